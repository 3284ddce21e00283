"""How the side-by-side bench turns samples into figures; the measuring itself is not for the test suite."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))

import peers
from chart import draw
from peers import MODES, Sample, summarise
from proxies import PEERS, Peer, Place


def samples(*values: float | None) -> list[Sample]:
    return [Sample(v, error="" if v is not None else "7 errors in 10 requests") for v in values]


def test_a_ratio_is_taken_inside_each_round_and_then_the_median():
    rows = summarise(
        {
            "turnout": samples(10, 30, 8),
            "nginx": samples(20, 40, 10),
            "haproxy": samples(25, 35, 16),
        }
    )
    assert rows["turnout"]["value"] == 10
    assert rows["turnout"]["to_reference"] == pytest.approx(0.8)  # of 10/20, 30/35 and 8/10
    assert (rows["turnout"]["low"], rows["turnout"]["high"]) == (8, 30)


def test_one_round_with_errors_makes_the_row_invalid():
    rows = summarise({"turnout": samples(10, None, 10), "nginx": samples(20, 20, 20)})
    assert rows["turnout"]["value"] is None
    assert rows["turnout"]["errors"] == ["7 errors in 10 requests"]
    assert rows["nginx"]["value"] == 20


def test_a_round_without_one_of_the_references_gives_no_ratio():
    rows = summarise({"turnout": samples(10), "nginx": samples(20), "haproxy": samples(None)})
    assert rows["turnout"]["to_reference"] is None


def test_the_chart_is_well_formed_and_names_every_valid_peer():
    rows = summarise({"turnout": samples(10), "a<b": samples(20), "broken": samples(None)})
    mode = MODES["small"]
    result = {
        "machine": {"cpu": "AMD & co", "kernel": "6"},
        "peers": {name: {"version": "1"} for name in rows},
        "modes": {"small": {"title": mode.title, "unit": mode.unit, "peers": rows}},
    }
    words = [e.text for e in ET.fromstring(draw(result)).iter("{http://www.w3.org/2000/svg}text")]
    assert {"turnout", "a<b"} <= set(words)
    assert "broken" not in words


def test_a_peer_that_is_not_installed_is_named_and_left_out(capsys: pytest.CaptureFixture[str]):
    def setup(_: Place) -> None:
        raise AssertionError

    absent = Peer("absent", "no-such-proxy-anywhere", [], setup, "")
    assert list(peers.installed([absent, PEERS[0]])) == [PEERS[0]]
    assert "skipped: absent" in capsys.readouterr().err
