"""Configurations that were in force, on a store of each kind, with a stand-in for the supervisor."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from turnout.control.events.events import Events
from turnout.control.registry.errors import ConflictError, NotFoundError, UnavailableError
from turnout.control.registry.history import Configurations
from turnout.control.storage.store import Store
from turnout.proxy.config import ConfigError, Problem, parse

TEXT = """
[listeners.web]
bind = "127.0.0.1:8080"
[services.app]
endpoints = ["10.0.0.1:80"]
[[routes]]
service = "app"
"""
OTHER = TEXT.replace("10.0.0.1", "10.0.0.2")
BAD = TEXT.replace("endpoints", "endpointz")


class Supervisor:
    serving = True

    def __init__(self, file):
        self.file = file
        self.file_config = parse(file.read_text(), str(file))
        self.version = 1
        self.refuses = None

    def check(self, config):
        if self.refuses:
            raise ConfigError([Problem(str(self.file), "[proxy]", self.refuses)])

    async def reload(self, config=None):
        config = parse(self.file.read_text(), str(self.file)) if config is None else config
        self.check(config)
        self.file_config = config
        self.version += 1
        return self.version


@pytest.fixture
def with_history(store_url, tmp_path):
    """Run a coroutine function with configurations of a file that has TEXT."""
    file = tmp_path / "turnout.toml"
    file.write_text(TEXT)

    def run(work):
        async def whole():
            store = await Store.open(store_url)
            await store.claim()
            events = Events(store)
            await events.open()
            history = Configurations(Supervisor(file), store, events)
            await history.noticed()
            try:
                return await asyncio.wait_for(work(history), 30)
            finally:
                await store.close()

        return asyncio.run(whole())

    return run


def test_a_text_that_is_applied_is_in_force_and_in_the_file_and_in_the_history(with_history):
    async def scenario(history):
        first = history.version
        done = await history.apply(OTHER, by="ann", note="second server")
        assert history.supervisor.file.read_text() == OTHER
        assert history.supervisor.file_config.services["app"].endpoints[0].address == "10.0.0.2:80"
        assert history.current() == (done.version, OTHER)
        assert '-endpoints = ["10.0.0.1:80"]\n+endpoints = ["10.0.0.2:80"]' in done.diff
        versions = await history.versions()
        assert [(v.version, v.by, v.note) for v in versions] == [
            (done.version, "ann", "second server"),
            (first, "file", ""),
        ]

    with_history(scenario)


def test_any_earlier_version_is_brought_back_as_a_new_one(with_history):
    async def scenario(history):
        first = history.version
        await history.apply(OTHER, by="ann")
        done = await history.rewind(first, by="ben")
        assert history.supervisor.file.read_text() == TEXT
        newest = (await history.versions(limit=1))[0]
        assert (newest.version, newest.by, newest.note) == (done.version, "ben", f"rewind to version {first}")
        with pytest.raises(NotFoundError, match="no version 999"):
            await history.rewind(999, by="ben")

    with_history(scenario)


@pytest.mark.parametrize(
    "way", ["does not validate", "cannot be reloaded", "another version", "no room", "no rename"]
)
def test_what_cannot_be_applied_changes_nothing(with_history, monkeypatch, way):
    async def scenario(history):
        before = history.current()
        error, text, version = ConfigError, OTHER, None
        if way == "does not validate":
            text = BAD
        elif way == "cannot be reloaded":
            history.supervisor.refuses = "cannot be changed by a reload"
        elif way == "another version":
            error, version = ConflictError, history.version + 7
        else:
            error = UnavailableError
            monkeypatch.setattr(*(os, "fsync") if way == "no room" else (Path, "replace"), refuse)
        with pytest.raises(error):
            await history.apply(text, by="ann", if_version=version)
        monkeypatch.undo()
        assert history.current() == before
        assert history.supervisor.file_config == parse(TEXT, "turnout.toml")
        assert history.supervisor.file.read_text() == TEXT
        assert [path.name for path in history.supervisor.file.parent.glob("*turnout.toml*")] == [
            "turnout.toml"
        ]
        assert len(await history.versions()) == 1

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with_history(scenario)


def test_the_file_keeps_its_mode_and_a_link_to_it_stays_a_link(with_history, tmp_path):
    async def scenario(history):
        real = tmp_path / "real.toml"
        history.supervisor.file.rename(real)
        real.chmod(0o640)
        history.supervisor.file.symlink_to(real)
        await history.apply(OTHER, by="ann")
        assert history.supervisor.file.is_symlink()
        assert real.read_text() == OTHER
        assert stat.S_IMODE(real.stat().st_mode) == 0o640

    with_history(scenario)


def test_a_restart_with_the_same_text_is_no_new_version_and_an_edit_is_one(with_history):
    async def scenario(history):
        again = Configurations(history.supervisor, history.store, history.events)
        await again.noticed()
        assert again.current() == history.current()
        history.supervisor.file.write_text(OTHER)
        await again.noticed()
        assert again.version > history.version
        assert [version.by for version in await again.versions()] == ["file", "file"]

    with_history(scenario)


def test_a_dry_run_says_what_would_change_and_what_is_wrong(with_history):
    async def scenario(history):
        assert history.validate(TEXT) == ""
        assert "+endpoints" in history.validate(OTHER)
        with pytest.raises(ConfigError, match="endpointz"):
            history.validate(BAD)
        assert len(await history.versions()) == 1

    with_history(scenario)


def test_programs_come_from_the_file_alone_and_never_through_the_api(with_history):
    program = TEXT.replace("[[routes]]", 'health = { exec = ["/bin/check"] }\n[[routes]]')

    async def scenario(history):
        for work in (history.apply(program, by="ann"), asyncio.to_thread(history.validate, program)):
            with pytest.raises(ConfigError, match=r"\[services.app\] health.exec: .* on this machine only"):
                await work
        history.supervisor.file.write_text(program)
        await history.supervisor.reload()
        await history.noticed()
        local = history.version
        await history.apply(program + "# more", by="ann")
        await history.apply(OTHER, by="ann")
        with pytest.raises(ConfigError, match="exec"):
            await history.apply(program, by="ann")
        await history.rewind(local, by="ann")
        assert history.current()[1] == program

    with_history(scenario)


def test_what_is_written_here_is_not_taken_for_an_edit(with_history):
    async def scenario(history):
        await history.apply(OTHER, by="ann")
        snapshot = history.supervisor.version
        for _ in range(3):
            await history.watch.look()
        assert history.supervisor.version == snapshot
        history.supervisor.file.write_text(BAD)
        for _ in range(3):
            await history.watch.look()
        assert history.supervisor.version == snapshot

    with_history(scenario)


def test_a_store_that_cannot_be_written_is_found_out_before_anything_changes(with_history):
    async def work(history):
        async def refuse(_make):
            raise UnavailableError("the store is away")

        history._write = refuse
        with pytest.raises(UnavailableError, match="the store is away"):
            await history.apply(OTHER, by="me")
        assert history.supervisor.version == 1
        assert history.supervisor.file.read_text() == TEXT

    with_history(work)


def test_what_could_not_be_recorded_is_recorded_later(with_history, monkeypatch):
    monkeypatch.setattr("turnout.control.registry.history.AGAIN_S", 0.01)

    async def work(history):
        write, calls = history._write, []

        async def away_for_a_while(make):
            calls.append(make)
            if 1 < len(calls) < 4:
                raise UnavailableError("the store is away")
            return await write(make)

        history._write = away_for_a_while
        with pytest.raises(UnavailableError, match="in force and in the file, but not in the history yet"):
            await history.apply(OTHER, by="me")
        assert history.supervisor.file.read_text() == OTHER
        await history._again
        version, text = history.current()
        assert (text, (await history.versions())[0].version) == (OTHER, version)

    with_history(work)


def test_a_configuration_is_never_readable_by_more_than_its_file(with_history, monkeypatch):
    async def work(history):
        history.supervisor.file.chmod(0o600)
        modes = []
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda fd: (modes.append(os.fstat(fd).st_mode & 0o777), fsync(fd)))
        opened = os.open

        def watched(path, flags, mode=0o777, **more):
            fd = opened(path, flags, mode, **more)
            if flags & os.O_CREAT and Path(path).parent == history.supervisor.file.parent:
                modes.append(os.fstat(fd).st_mode & 0o777)
            return fd

        monkeypatch.setattr(os, "open", watched)
        await history.apply(OTHER, by="me")
        assert set(modes[:2]) == {0o600}

    with_history(work)
