"""How commands find the proxy that runs."""

import socket

import pytest

from turnout.control import discover
from turnout.control.discover import SeveralError
from turnout.proxy import runtimedir


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The system's folder of sockets and the user's, both empty; the environment that says so."""
    folders = tmp_path / "system", tmp_path / "user" / "turnout"
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.setattr(runtimedir, "SYSTEM", folders[0])
    return *folders, {"XDG_RUNTIME_DIR": str(tmp_path / "user"), "XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def listening():
    """Make a socket that somebody listens at, or did."""
    made = []

    def make(path, *, alive: bool = True):
        sock = socket.socket(socket.AF_UNIX)
        made.append(sock)
        sock.bind(str(path))
        sock.listen()
        if not alive:
            sock.close()
        return path

    yield make
    for sock in made:
        sock.close()


@pytest.mark.parametrize("given", ["unix:/a.sock", "http://10.0.0.1:9900", "nonsense"])
def test_what_is_said_counts(places, listening, given):
    listening(places[0] / "a.sock")

    assert discover.api_url(given, places[2]) == given


@pytest.mark.parametrize("of", [0, 1])
def test_the_one_that_runs_is_found(places, listening, of):
    listening(places[1 - of] / "dead.sock", alive=False)
    (places[of] / "file.sock").write_text("no socket")
    path = listening(places[of] / "a.sock")

    assert discover.api_url(None, places[2]) == f"unix:{path}"


def test_of_several_a_user_has_to_choose(places, listening):
    paths = [listening(places[0] / "a.sock"), listening(places[1] / "b.sock")]
    with pytest.raises(SeveralError) as several:
        discover.api_url(None, places[2])

    for path in paths:
        assert f"--api unix:{path}" in str(several.value)


def test_without_any_it_is_the_default_address(places):
    assert discover.api_url(None, places[2]) == "http://127.0.0.1:9900"
    assert "no proxy of this user" in discover.hint("http://127.0.0.1:9900", places[2])
    assert discover.hint("http://10.0.0.1:9900", places[2]) == ""


def test_what_a_service_manager_runs_looks_at_its_own_service(places, listening, tmp_path):
    listening(places[0] / "a.sock")
    (tmp_path / "service").mkdir()
    path = listening(tmp_path / "service" / "b.sock")

    assert (
        discover.api_url(None, places[2] | {"RUNTIME_DIRECTORY": str(tmp_path / "service")}) == f"unix:{path}"
    )


def test_several_are_a_usage_error_that_lists_them(turnout, places, listening, monkeypatch):
    for name, value in places[2].items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    listening(places[0] / "a.sock")
    listening(places[1] / "b.sock")
    code, _, err = turnout("status")

    assert code == 2
    assert err.count("--api unix:") == 2
