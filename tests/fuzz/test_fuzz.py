"""A short run of every target, always the same; `make fuzz` runs them longer and elsewhere."""

from __future__ import annotations

import pytest
from fuzz.engine import fuzz
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_do_no_harm(name, tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz.engine.FOLDER", tmp_path)

    assert fuzz(name, seed=1, times=500) == 500


def test_a_check_that_fails_is_told_with_its_input(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz.engine.FOLDER", tmp_path)
    monkeypatch.setitem(TARGETS, "cookie", TARGETS["cookie"]._replace(check=lambda rng, raw: 1 / 0))

    with pytest.raises(AssertionError, match=r"^cookie: b'"):
        fuzz("cookie", seed=1, times=1)
