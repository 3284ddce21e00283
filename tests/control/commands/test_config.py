"""`turnout config`: shapes, and files that cannot be read."""

import json

from turnout.control.client import shapes


def test_a_file_that_is_not_there_is_a_usage_error(turnout):
    code, _, err = turnout("config", "apply", "/nowhere", "--api", "unix:/nowhere.sock")

    assert (code, "/nowhere cannot be read" in err) == (2, True)


def test_what_shapes_of_the_client_have_is_what_the_api_gives(call):
    assert set(json.loads(call("config", "get", "--json")[1])) == set(shapes.ConfigText.__annotations__)
    (row,) = json.loads(call("config", "history", "--json")[1])
    assert set(row) == set(shapes.Version.__annotations__)
