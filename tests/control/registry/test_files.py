"""When an edited file counts as changed."""

import asyncio

from turnout.control.registry.files import FileWatch


def looks(tmp_path, *steps):
    """How often the file was taken for changed after each step and a look."""
    path = tmp_path / "turnout.toml"
    path.write_text("a")
    calls = []

    async def changed():
        calls.append(path.read_text())

    async def run():
        watch, counts = FileWatch(path, changed), []
        for step in steps:
            step(path, watch)
            await watch.look()
            counts.append(len(calls))
        return counts, calls

    return asyncio.run(run())


def write(text):
    return lambda path, _watch: path.write_text(text)


def nothing(_path, _watch):
    pass


def test_an_edit_counts_once_and_only_when_two_looks_see_the_same(tmp_path):
    counts, calls = looks(tmp_path, nothing, write("bb"), write("ccc"), nothing, nothing)
    assert counts == [0, 0, 0, 1, 1]
    assert calls == ["ccc"]


def test_a_file_that_is_away_for_a_moment_is_no_change(tmp_path):
    counts, _ = looks(tmp_path, lambda path, _: path.unlink(), nothing, nothing)
    assert counts == [0, 0, 0]


def test_a_file_put_in_its_place_by_a_rename_is_a_change(tmp_path):
    def renamed(path, _watch):
        (path.parent / "new").write_text("a")
        (path.parent / "new").rename(path)

    assert looks(tmp_path, renamed, nothing)[0] == [0, 1]


def test_a_link_that_points_elsewhere_is_a_change(tmp_path):
    def linked(path, _watch):
        (path.parent / "v2").write_text("v2")
        path.unlink()
        path.symlink_to(path.parent / "v2")

    assert looks(tmp_path, linked, nothing)[0] == [0, 1]


def test_what_the_program_wrote_itself_is_no_change(tmp_path):
    def written(path, watch):
        path.write_text("mine")
        watch.seen()

    assert looks(tmp_path, written, nothing, nothing)[0] == [0, 0, 0]
