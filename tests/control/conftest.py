"""A stand-in supervisor with its control side, and the commands."""

import pytest
from fakes.served import Served
from fakes.supervisor import StandIn
from harness.databases import cluster

from turnout.control import cli


@pytest.fixture(scope="session")
def postgresql():
    """A cluster for all tests of a process."""
    with cluster() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """Of an empty database; tests that have it run once on each."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.db"
    found = request.getfixturevalue("postgresql")
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    return found.fresh()


@pytest.fixture
def supervisor():
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def served(supervisor):
    out = Served(supervisor)
    yield out
    out.stop()


@pytest.fixture
def turnout(monkeypatch, capsys):
    """Call `turnout` with arguments: exit code, stdout, stderr."""
    monkeypatch.delenv("TURNOUT_API", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["turnout", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call
