"""`turnout config` against a proxy that runs."""

import json

from harness.client import get
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout

from .test_commands import command

ROUTE = '[[routes]]\npath = "/new"\nrespond = { status = 201 }\n'


@scenario
async def test_a_file_is_tried_applied_listed_and_brought_back(tmp_path):
    port, control = free_port(), free_port()
    api, other = f"http://127.0.0.1:{control}", tmp_path / "other.toml"
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, control=control)) as proxy:
        text = proxy.file.read_text()
        other.write_text(text + ROUTE)

        code, out, err = await command("config", "validate", other, api=api)
        assert (code, "+respond = { status = 201 }" in out) == (0, True), err
        assert (await get(port, "/new")).status == 200

        code, out, err = await command("config", "apply", other, "--note", "a route more", api=api)
        assert (code, "is in force" in out) == (0, True), err
        assert (await get(port, "/new")).status == 201
        assert proxy.file.read_text() == (await command("config", "get", api=api))[1] == text + ROUTE

        newest, oldest = json.loads((await command("config", "history", "--json", api=api))[1])
        assert newest["note"] == "a route more"

        words = ("config", "rewind", oldest["version"])
        assert (await command(*words, "--if-version", oldest["version"], api=api))[0] == 1
        assert (await command(*words, "--if-version", newest["version"], api=api))[0] == 0
        assert (await get(port, "/new")).status == 200
        assert (await command("config", "get", api=api))[1] == text


@scenario
async def test_a_file_that_does_not_validate_exits_2_with_its_problems_and_changes_nothing(tmp_path):
    port, control = free_port(), free_port()
    api, other = f"http://127.0.0.1:{control}", tmp_path / "other.toml"
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, control=control)) as proxy:
        text = proxy.file.read_text()
        other.write_text(text.replace('service = "app"', 'service = "ap"'))
        for verb in ("validate", "apply"):
            code, _, err = await command("config", verb, other, api=api)
            assert (code, 'did you mean "app"?' in err) == (2, True), err
        assert proxy.file.read_text() == text
