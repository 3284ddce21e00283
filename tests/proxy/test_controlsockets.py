"""The sockets of the control side: where they are, who may use them, whose they are after an upgrade."""

import os
import socket
import stat
from pathlib import Path

import pytest
from harness.turnout import config, free_port, scenario

from turnout.proxy import handover, runtimedir
from turnout.proxy.config import parse
from turnout.proxy.controlsockets import ControlSockets
from turnout.proxy.statedir import folder_name

from .test_supervisor import Control, supervised

FILE = Path("/etc/turnout.toml")
NAME = f"{folder_name(FILE)}.sock"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where an automatic socket goes."""
    folder = tmp_path / "run"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    return folder


def settings(**changes: str):
    said = {"listen": f"127.0.0.1:{free_port()}", **changes}
    lines = "".join(f'{key} = "{value}"\n' for key, value in said.items())
    return parse(
        f'[control]\n{lines}[listeners.web]\nbind = "a:1"\n[[routes]]\nrespond = {{}}\n', "f"
    ).control


def opened(control, left: handover.Handover | None = None) -> ControlSockets:
    sockets = ControlSockets()
    assert sockets.open(control, FILE, left, {}) == []
    return sockets


def will(sockets: ControlSockets) -> handover.Handover:
    """As another process gets it: with descriptors of its own."""
    rows = [(key, os.dup(fd), shared) for key, fd, shared in sockets.will()]
    return handover.Handover([], rows, -1, -1)


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


# ---- where -----------------------------------------------------------------------------------------------


def test_a_service_manager_says_where():
    assert runtimedir.candidates(
        FILE, {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/u"}
    ) == [Path("/run/a", NAME)]


@pytest.mark.parametrize(
    ("uid", "environ", "folders"),
    [
        (0, {"XDG_STATE_HOME": "/s"}, ["/run/turnout", "/s/turnout"]),
        (
            7,
            {"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/s"},
            ["/run/user/7/turnout", "/s/turnout"],
        ),
        (7, {"STATE_DIRECTORY": "/var/lib/t"}, ["/var/lib/t"]),
    ],
)
def test_else_it_is_roots_or_the_users_or_where_state_is(monkeypatch, uid, environ, folders):
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert runtimedir.candidates(FILE, environ) == [Path(folder, NAME) for folder in folders]


def test_a_path_that_is_too_long_is_passed_over():
    assert runtimedir.candidates(FILE, {"RUNTIME_DIRECTORY": "/" + "a" * 100}) == []


# ---- open and put away -----------------------------------------------------------------------------------


def test_the_automatic_socket_is_its_owners_alone_and_gone_at_the_end(place):
    sockets = opened(settings())
    path = place / NAME

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert answers(path)
    sockets.put_away()
    assert not path.exists()


def test_a_socket_may_be_at_a_place_of_its_own_or_nowhere(place, tmp_path):
    sockets = opened(settings(socket=f"unix:{tmp_path}/a.sock"))
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600
    sockets.put_away()
    opened(settings(socket="off")).put_away()

    assert not place.exists()


def test_what_a_killed_proxy_left_is_replaced(place):
    place.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / NAME))
    sockets = opened(settings())

    assert answers(place / NAME)
    sockets.put_away()


def test_what_somebody_listens_at_is_left_alone_and_the_proxy_runs_without(place, caplog):
    place.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place / NAME))
        other.listen()
        sockets = opened(settings())

        assert sockets.local is None
        assert f"no unix socket for commands: {place / NAME}: in use by another process" in caplog.text
        sockets.put_away()
        assert answers(place / NAME)


def test_a_place_of_its_own_that_cannot_be_had_is_a_reason_not_to_start(tmp_path):
    sockets = ControlSockets()
    (reason,) = sockets.open(settings(socket=f"unix:{tmp_path}/none/a.sock"), FILE, None, {})

    assert reason == f"[control] socket: unix:{tmp_path}/none/a.sock: its directory does not exist"
    sockets.put_away()


# ---- from program to program -----------------------------------------------------------------------------


def test_the_heir_serves_the_same_sockets_and_removes_them_at_its_end(place):
    control = settings()
    former = opened(control)
    heir = opened(control, will(former))
    assert [item.key for item in (heir.listen, heir.local)] == [
        item.key for item in (former.listen, former.local)
    ]
    former.hand_over(heir.keep())
    former.put_away()

    assert answers(place / NAME)
    heir.put_away()
    assert not (place / NAME).exists()


def test_an_heir_that_does_not_come_up_takes_nothing_with_it(place):
    control = settings()
    former = opened(control)
    opened(control, will(former)).put_away()

    assert answers(place / NAME)
    former.put_away()


def test_a_socket_that_the_heir_does_not_want_goes_with_the_former_program(place):
    control = settings()
    former = opened(control)
    heir = opened(control.model_copy(update={"socket": "off"}), will(former))
    former.hand_over(heir.keep())
    former.put_away()

    assert not (place / NAME).exists()
    heir.put_away()


@scenario
async def test_a_supervisor_gives_its_control_side_both_sockets(tmp_path, place):
    port = free_port()
    text = config(free_port(), "127.0.0.1:9", control=port, access="")
    async with supervised(tmp_path, text, control=Control) as supervisor:
        control = supervisor._control
        path = place / f"{folder_name(supervisor.file)}.sock"

        assert (control.address, control.local) == (("127.0.0.1", port), str(path))
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()
