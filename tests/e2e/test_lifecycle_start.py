"""The start: what is said when it cannot be, and how a service manager is met."""

import asyncio
import os
import shutil
import signal
import socket
import sys

import pytest
from harness.client import get, until
from harness.origin import Origin
from harness.turnout import RUN, Turnout, config, free_port, scenario, turnout


async def failed_start(tmp_path, text: str, *command: str) -> tuple[int, str]:
    """Exit code and everything said."""
    file = tmp_path / "turnout.toml"
    file.write_text(text)
    proxy = Turnout(file, env={**os.environ, "TURNOUT_TEST": str(file)})
    try:
        await proxy.start((*command, *RUN))
        code = await proxy.exit_code()
    finally:
        await proxy.clean_up()
    return code, proxy.text


@scenario
async def test_every_address_that_is_taken_is_named_with_who_has_it(tmp_path):
    async with Origin() as one, Origin() as two:
        more = f'[listeners.other]\nbind = "127.0.0.1:{two.port}"\n'
        code, said = await failed_start(tmp_path, config(one.port, one.address, more=more))

    assert code == 1
    who = f"in use by process {os.getpid()}"
    assert f"[listeners.web] bind: 127.0.0.1:{one.port}: {who}" in said
    assert f"[listeners.other] bind: 127.0.0.1:{two.port}: {who}" in said


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not there")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
@scenario
async def test_a_port_that_needs_rights_says_which(tmp_path):
    drop = ("setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service")
    code, said = await failed_start(tmp_path, config(81, "127.0.0.1:9"), *drop)

    assert code == 1
    assert "[listeners.web] bind: 127.0.0.1:81: permission denied" in said
    assert "CAP_NET_BIND_SERVICE" in said


@scenario
async def test_an_address_of_another_machine_and_a_log_nowhere_are_told_together(tmp_path):
    text = config(80, "127.0.0.1:9").replace("127.0.0.1:80", "192.0.2.1:8080")
    code, said = await failed_start(tmp_path, text + '[proxy.access_log]\npath = "no/where.log"\n')

    assert code == 1
    assert "[listeners.web] bind: 192.0.2.1:8080: no interface of this machine has this address" in said
    assert "the access log no/where.log cannot be opened" in said


@scenario
async def test_a_bad_file_has_an_exit_code_of_its_own(tmp_path):
    code, said = await failed_start(tmp_path, "[listeners.web]\nbimd = 3\n")

    assert code == 2
    assert 'did you mean "bind"?' in said


@scenario
async def test_an_endpoint_without_address_is_a_bad_configuration(tmp_path):
    code, said = await failed_start(tmp_path, config(free_port(), "no.such.name.invalid:80"))

    assert code == 2
    assert "no.such.name.invalid:80" in said


@scenario
async def test_too_few_descriptors_say_how_many_are_needed(tmp_path):
    text = config(free_port(), "127.0.0.1:9")
    code, said = await failed_start(tmp_path, text, "prlimit", "--nofile=60:60")

    assert code == 1
    assert "too few descriptors: 60 are allowed, 74 are needed to start (workers: 2, listeners: 1)" in said


@scenario
async def test_a_unix_socket_is_served_and_its_name_goes_with_the_proxy(tmp_path):
    path = tmp_path / "web.sock"
    async with Origin() as origin:
        text = config(1, origin.address).replace('127.0.0.1:1"', f'unix:{path}"')
        async with turnout(tmp_path, text) as proxy:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert await proxy.stop() == 0
            assert not path.exists()


# ---- a service manager -----------------------------------------------------------------------------------


class Manager:
    """The receiving end of sd_notify; it listens as long as the block lasts."""

    def __init__(self, path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.setblocking(False)
        self.heard: list[str] = []

    async def __aenter__(self) -> "Manager":
        asyncio.get_running_loop().add_reader(self.sock, self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()

    def _hear(self) -> None:
        self.heard += self.sock.recv(65536).decode().splitlines()

    async def hears(self, line: str, times: int = 1) -> None:
        await until(lambda: self.heard.count(line) >= times)


@scenario
async def test_a_service_manager_is_told_of_every_turn(tmp_path):
    async with Manager(tmp_path / "notify.sock") as manager:
        await told_of_every_turn(tmp_path, manager)


async def told_of_every_turn(tmp_path, manager: Manager) -> None:
    port = free_port()
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify.sock"), "WATCHDOG_USEC": "200000"}
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address), **environ) as proxy:
        former = proxy.supervisor
        await manager.hears("READY=1")
        await manager.hears(f"MAINPID={former}")
        await manager.hears("WATCHDOG=1", times=3)
        await proxy.reload()
        await manager.hears("RELOADING=1")
        await manager.hears("READY=1", times=2)
        assert any(line.startswith("MONOTONIC_USEC=") for line in manager.heard)
        proxy.signal(signal.SIGUSR2)
        await proxy.serving(2)
        await manager.hears(f"MAINPID={proxy.supervisor}")
        await proxy.exit_code()
        assert "STOPPING=1" not in manager.heard
        proxy.signal(signal.SIGTERM)
        await manager.hears("STOPPING=1")
        await until(lambda: not proxy.processes())


@scenario
async def test_sockets_of_a_service_manager_are_used_and_outlive_the_proxy(tmp_path):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as passed:
        port = passed.getsockname()[1]
        os.set_inheritable(passed.fileno(), True)
        start = (
            f"import os, sys; os.dup2({passed.fileno()}, 3); os.environ['LISTEN_FDS'] = '1';"
            "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"
        )
        async with Origin() as origin:
            file = tmp_path / "turnout.toml"
            file.write_text(config(port, origin.address))
            environ = {**os.environ, "TURNOUT_TEST": str(file)}
            proxy = Turnout(file, env=environ, pass_fds=(passed.fileno(),))
            try:
                await proxy.start((sys.executable, "-c", start, *RUN))
                await proxy.serving()
                answers = await asyncio.gather(*(get(port) for _ in range(20)))
                assert {answer.status for answer in answers} == {200}
                assert await proxy.stop() == 0
                with socket.create_connection(("127.0.0.1", port), timeout=5):
                    pass  # it waits for the next start
            finally:
                await proxy.clean_up()
