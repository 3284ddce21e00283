"""The unix socket of a proxy as its users meet it: commands, other users, upgrade and sudden death."""

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness.client import get, until
from harness.turnout import config, free_port, scenario, turnout

ACCESS = 'socket = "auto"'
STRANGER = """
import os, socket, sys
os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def folder():
    """One that other users can look into, with a short name."""
    with tempfile.TemporaryDirectory(prefix="turnout-test-") as out:
        Path(out).chmod(0o755)
        yield Path(out)


def text(**options) -> str:
    return config(free_port(), "127.0.0.1:9", access=ACCESS, workers=1, **options)


async def command(folder: Path, *words: str) -> tuple[int, str]:
    """Of a user who says nothing of where the proxy is. Exit code and all that is said."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TURNOUT_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "turnout",
        *words,
        env={**environ, "RUNTIME_DIRECTORY": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(child.communicate(), 30)
    return child.returncode or 0, out.decode()


def sockets(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.sock") if stat.S_ISSOCK(path.stat().st_mode)]


@scenario
async def test_commands_find_the_proxy_and_its_owner_may_do_everything(folder):
    async with turnout(folder, text()) as proxy:
        assert (await command(folder, "services"))[0] == 0
        assert (await command(folder, "reload")) == (0, "configuration 2 is in force\n")
        assert (await command(folder, "stop")) == (0, "stopped\n")
        assert await proxy.exit_code() == 0
    assert sockets(folder) == []


@scenario
async def test_over_tcp_the_same_proxy_asks_who_you_are_and_health_is_open(folder):
    port = free_port()
    async with turnout(folder, text(control=port)):
        code, said = await command(folder, "stop", "--api", f"http://127.0.0.1:{port}")

        assert (code, "who are you?" in said) == (5, True)
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await get(port, path)).status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@scenario
async def test_another_user_cannot_connect(folder):
    async with turnout(folder, text()):
        (path,) = sockets(folder)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STRANGER, str(path), stdout=subprocess.PIPE
        )

        assert (await child.communicate())[0] == b"Permission denied\n"


@scenario
async def test_after_an_upgrade_the_same_socket_leads_to_the_new_program(folder):
    async with turnout(folder, text()) as proxy:
        former = proxy.supervisor
        (path,) = sockets(folder)
        node = path.stat().st_ino
        code, said = await command(folder, "upgrade")
        await until(lambda: proxy.started[0][0].returncode is not None)

        assert (code, said) == (0, f"the new program has taken over, pid {proxy.supervisor}\n")
        assert (proxy.supervisor != former, path.stat().st_ino) == (True, node)
        assert (await command(folder, "stop"))[0] == 0
        await until(lambda: sockets(folder) == [])


@scenario
async def test_after_sudden_death_the_next_supervisor_takes_the_place_of_the_dead_socket(folder):
    async with turnout(folder, text()) as proxy:
        await proxy.kill_supervisor()
        assert len(sockets(folder)) == 1
        assert (await command(folder, "services"))[0] == 4
        await proxy.start()
        await proxy.serving(times=2)

        assert (await command(folder, "services"))[0] == 0
