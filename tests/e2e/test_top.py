"""`turnout top` in a terminal: it shows what goes on, obeys keys and leaves the terminal as it was."""

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

from harness.client import until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout


class Terminal:
    """A program in a terminal of so many rows and columns; `text` is all it has written."""

    def __init__(self, rows: int, columns: int, *words: str) -> None:
        self.fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.text = ""
        self.child = subprocess.Popen(
            [sys.executable, "-m", "turnout", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": str(rows)},
            start_new_session=True,
        )
        os.set_blocking(self.fd, False)
        asyncio.get_running_loop().add_reader(self.fd, self._read)

    def _read(self) -> None:
        self.text += os.read(self.fd, 65536).decode(errors="replace")

    def press(self, key: str) -> None:
        os.write(self.fd, key.encode())

    async def shows(self, *words: str) -> None:
        """From now on."""
        start = len(self.text)
        await until(lambda: all(word in self.text[start:] for word in words))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fd)
        self.child.kill()
        self.child.wait()
        os.close(self.fd)
        os.close(self.theirs)


@scenario
async def test_it_obeys_keys_in_a_small_terminal_and_leaves_it_as_it_was(tmp_path):
    port, control = free_port(), free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, control=control)):
        api = f"http://127.0.0.1:{control}"
        terminal = Terminal(10, 60, "top", "--api", api, "--interval", "0.2")
        try:
            await terminal.shows("req/s▾", origin.address)
            terminal.press("9")
            await terminal.shows("p99▾")
            terminal.press("s")
            await asyncio.sleep(0)
            await until(lambda: origin.address not in terminal.text[-400:])
            terminal.press("q")
            await until(lambda: terminal.child.poll() is not None)
            after = termios.tcgetattr(terminal.theirs)
        finally:
            terminal.close()

    assert terminal.child.returncode == 0
    assert after == terminal.before
    assert "\x1b[?1049l" in terminal.text
