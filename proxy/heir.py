"""The new program of an upgrade, as the one that it is to replace sees it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from turnout.proxy import handover
from turnout.proxy.errors import UpgradeError

COMMAND = (sys.executable, "-m", "turnout")
BAD_CONFIG = 2
"""Exit code of the program for a file that does not validate."""


async def start_heir(
    file: Path, will: Callable[[int], handover.Handover], timeout: float
) -> tuple[int, list[str]]:
    """Start the program on a configuration file; `will` makes what is left to it, given the pipe for its
    answer. Returns its pid and the keys of sockets it does not want. Raises UpgradeError, and no process is
    left then, when it is not ready within `timeout` seconds.
    """
    pipe, theirs = os.pipe2(os.O_CLOEXEC)
    memfd = os.memfd_create("turnout-handover", os.MFD_CLOEXEC)
    try:
        left = will(theirs)
        child = subprocess.Popen(
            [*COMMAND, "run", str(file)],
            env=left.environment(memfd),
            pass_fds=(*left.descriptors(), memfd),
        )
    except OSError as error:
        os.close(pipe)
        raise UpgradeError(f"the new program cannot be started: {error.strerror}") from None
    finally:
        os.close(theirs)
        os.close(memfd)
    answer = await handover.read_answer(pipe, timeout)
    if "unused" in answer:
        return child.pid, answer["unused"]
    if "error" in answer:
        child.kill()  # its workers end with it: they have not been told to go on
    code = await asyncio.to_thread(child.wait)
    raise UpgradeError(answer.get("error") or await asyncio.to_thread(_why_not, file, code))


def _why_not(file: Path, code: int) -> str:
    """Why it ended without a word: what it thinks of the file, if that is the reason."""
    if code != BAD_CONFIG:
        return f"the new program ended with code {code}"
    done = subprocess.run([*COMMAND, "check", str(file)], capture_output=True, text=True, check=False)
    return done.stderr.strip() or done.stdout.strip()
