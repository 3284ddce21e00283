"""What stands around the supervisor: state folder, run file, descriptors, service manager, log lines."""

import json
import logging
import os
import socket
from pathlib import Path

import pytest

from turnout.proxy import handover, runfile
from turnout.proxy.accesslog import open_log
from turnout.proxy.config import parse
from turnout.proxy.errors import StartError
from turnout.proxy.limits import complaints, needed_by_worker
from turnout.proxy.logs import LineFormatter
from turnout.proxy.model import AccessLog
from turnout.proxy.names import Names
from turnout.proxy.notify import Notifier, passed_sockets
from turnout.proxy.statedir import base_directory, state_directory, take_lock

FILE = Path("/etc/turnout.toml")


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        ("/srv/state", {"STATE_DIRECTORY": "/a"}, "/srv/state"),
        ("state", {}, "/etc/state"),
        (None, {"STATE_DIRECTORY": "/a:/b", "XDG_STATE_HOME": "/x"}, "/a"),
        (None, {"XDG_STATE_HOME": "/x"}, "/x/turnout"),
    ],
)
def test_the_state_folder_is_the_first_that_is_named(configured, environ, expected):
    assert base_directory(configured, FILE, environ) == Path(expected)


def test_without_a_name_root_and_others_have_their_usual_places(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert base_directory(None, FILE, {}) == Path("/var/lib/turnout")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert base_directory(None, FILE, {}) == Path.home() / ".local/state/turnout"


def test_each_file_has_a_folder_of_its_own_that_others_cannot_read(tmp_path):
    one = state_directory(str(tmp_path / "state"), tmp_path / "one" / "t.toml")
    two = state_directory(str(tmp_path / "state"), tmp_path / "two" / "t.toml")

    assert one != two
    assert one == state_directory(str(tmp_path / "state"), tmp_path / "one" / "t.toml")
    assert one.stat().st_mode & 0o777 == 0o700


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StartError, match=r"\[proxy\] state"):
        state_directory("state", tmp_path / "t.toml")


def test_the_lock_has_one_holder_until_it_is_closed(tmp_path):
    lock = take_lock(tmp_path)
    assert take_lock(tmp_path) is None
    os.close(lock)
    again = take_lock(tmp_path)
    assert again is not None
    os.close(again)


def test_a_run_file_is_read_as_it_was_written(tmp_path):
    me = runfile.process(os.getpid())
    run = runfile.Run(me, ((me, "worker-1.sock"),), {"splits": [["app", {"v1": 1.0}, {"v1": 1000000}]]})
    runfile.write(tmp_path, run)

    assert runfile.read(tmp_path) == run
    assert me.alive()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    runfile.remove(tmp_path)
    assert runfile.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"supervisor": {"pid": 1}}', "\xff", "null"])
def test_a_run_file_that_is_none_is_no_obstacle(tmp_path, text):
    (tmp_path / "run.json").write_text(text)

    assert runfile.read(tmp_path) is None


def test_a_pid_that_is_somebody_elses_by_now_is_not_taken_for_the_process():
    assert not runfile.Process(os.getpid(), runfile.process(os.getpid()).started - 1).alive()
    assert not runfile.Process(1 << 30, 1).alive()


def config(*tables: str):
    text = '[listeners.web]\nbind = ":80"\n{}\n[[routes]]\nrespond = {{ }}\n'
    return parse(text.format("\n".join(tables)), "t.toml")


def test_descriptors_are_counted_by_what_the_listeners_allow():
    limited = config("limits = { connections = 1000 }")
    assert needed_by_worker(limited) == 2065
    assert complaints(limited, 2, 4096) == ([], [])
    (warning,) = complaints(limited, 2, 2000)[1]
    assert "2065 would be needed" in warning


def test_few_descriptors_are_warned_about_and_too_few_are_an_error():
    assert complaints(config(), 2, 20000) == ([], [])
    (warning,) = complaints(config(), 2, 1024)[1]
    assert "1024" in warning
    (error,) = complaints(config(), 2, 50)[0]
    assert "50 are allowed, 74 are needed" in error


def test_an_abstract_notify_socket_is_reached():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0turnout-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@turnout-test-{os.getpid()}"}).ready("fine")

        assert manager.recv(1000).decode().splitlines() == [
            "READY=1",
            f"MAINPID={os.getpid()}",
            "STATUS=fine",
        ]


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(tmp_path):
    Notifier({}).ready("fine")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("fine")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_watchdog_is_served_if_it_is_meant_for_this_process(environ, expected):
    assert Notifier(environ).watchdog_s == expected


def test_sockets_passed_to_another_process_are_left_alone():
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "PATH": "/bin"}

    assert passed_sockets(environ) == {}
    assert environ == {"PATH": "/bin"}


def test_a_handover_that_is_none_is_refused():
    with pytest.raises(StartError, match="TURNOUT_HANDOVER=99999 is not what a supervisor leaves"):
        handover.take({"TURNOUT_HANDOVER": "99999"})


def test_what_is_left_to_the_heir_arrives():
    read, write = os.pipe()
    lock = os.open("/dev/null", os.O_RDONLY)
    memfd = os.memfd_create("test")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        left = handover.Handover(
            [(f"127.0.0.1:{port}", os.dup(server.fileno()), True)], [], lock, write, {"a": 1}
        )
        environ = left.environment(memfd)
        taken = handover.take(environ)
        (item,) = taken.offers()[f"127.0.0.1:{port}"]

        assert taken == left
        assert "TURNOUT_HANDOVER" not in environ
        assert item.shared
        assert not any(os.get_inheritable(fd) for fd in taken.descriptors())
        item.sock.close()
    taken.answer(unused=[])
    assert json.loads(os.read(read, 100)) == {"unused": []}
    os.close(read)
    os.close(lock)


def test_a_log_file_is_appended_to_and_a_relative_path_starts_at_the_file(tmp_path):
    (tmp_path / "a.log").write_text("one\n")
    fd = open_log(AccessLog(path="a.log"), tmp_path / "t.toml")
    os.write(fd, b"two\n")
    os.close(fd)

    assert (tmp_path / "a.log").read_text() == "one\ntwo\n"
    assert open_log(AccessLog(), tmp_path / "t.toml") == -1


def test_names_are_asked_for_once_and_failures_are_kept():
    asked = []

    def resolver(name: str) -> list[str]:
        asked.append(name)
        if name == "bad":
            raise OSError(-2, "unknown")
        return ["10.0.0.1"]

    names = Names(resolver)
    names.look_up(config('[services.a]\nendpoints = ["good:1", "good:2", "bad:1", "10.0.0.9:1"]'))

    assert names("good") == ["10.0.0.1"]
    with pytest.raises(OSError, match="unknown"):
        names("bad")
    assert sorted(asked) == ["bad", "good"]


def test_a_log_record_is_one_line_with_its_fields():
    record = logging.LogRecord("turnout", logging.INFO, __file__, 1, "two\nlines", None, None)
    record.fields = {"worker": 3, "why": 'a "b"'}
    line = LineFormatter("supervisor").format(record)

    assert line.endswith(f'info supervisor[{os.getpid()}] two | lines worker=3 why="a \\"b\\""')
