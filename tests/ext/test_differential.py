"""What is accepted here llhttp and h11 read the same way; what only they accept stands in docs/parsing.md."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from harness.bodies import chunked
from harness.corpus import corpus
from harness.feeding import at_the_edge
from harness.mutation import ANYWHERE, damaged
from harness.readers import (
    CHUNKED_PROBE,
    chunked_disagreement,
    disagreement,
    h11_chunks,
    h11_reads,
    llhttp,
    llhttp_chunks,
    ours,
)

PAGE = Path(__file__).parents[2] / "docs" / "parsing.md"


@pytest.mark.parametrize("kind", ["request", "response"])
def test_the_samples_are_accepted_and_read_alike_by_all(kind):
    for raw in corpus(kind):
        assert ours(kind, raw) is not None, raw
        assert disagreement(kind, raw) is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["request", "response"])
def test_damaged_heads_that_are_accepted_are_read_alike(kind, seed):
    rng = random.Random(seed)
    samples = corpus(kind)

    found = [disagreement(kind, damaged(rng, samples)) for _ in range(5000)]

    assert [each for each in found if each] == []


@pytest.mark.parametrize("kind", ["request", "response"])
def test_damage_leaves_enough_that_is_accepted_and_enough_that_is_refused(kind):
    rng = random.Random(0)
    samples = corpus(kind)

    accepted = sum(ours(kind, damaged(rng, samples)) is not None for _ in range(1000))

    assert 200 < accepted < 800


@pytest.mark.parametrize("seed", range(2))
def test_damaged_chunked_bodies_that_are_accepted_are_read_alike(seed):
    rng = random.Random(seed)
    samples = corpus("chunked")

    found = [chunked_disagreement(damaged(rng, samples, ANYWHERE)) for _ in range(5000)]

    assert [each for each in found if each] == []


# ---- what only they accept ---------------------------------------------------------------------------------


def rows() -> list[tuple[str, bytes, str, str, str]]:
    """(kind, example, what is said here, what llhttp does, what h11 does) of every row of the page."""
    out = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] in ("request", "response", "chunked"):
            kind, example, said, llhttp_does, h11_does, _why = cells
            out.append((kind, ast.literal_eval(f"b'{example.strip('`')}'"), said, llhttp_does, h11_does))
    return out


def accepted_by(kind: str, raw: bytes) -> dict[str, bool]:
    if kind == "chunked":
        return {
            "llhttp": llhttp_chunks(raw, b"\r\n") is not None,
            "h11": h11_chunks(raw, b"\r\n") is not None,
        }
    probe = CHUNKED_PROBE if b"chunked" in raw else b"x"
    return {
        "llhttp": llhttp(kind, raw, probe) is not None,
        "h11": h11_reads(kind, raw, probe) is not None,
    }


def said_here(kind: str, raw: bytes) -> str:
    if kind == "chunked":
        return "malformed" if chunked(raw) is None else "accepted"
    verdict = at_the_edge(kind, raw)
    return "accepted" if isinstance(verdict, dict) else {-5: "505"}.get(verdict, str(verdict))


@pytest.mark.parametrize(("kind", "raw", "said", "llhttp_does", "h11_does"), rows())
def test_each_row_of_the_page_is_so(kind, raw, said, llhttp_does, h11_does):
    accepted = accepted_by(kind, raw)

    assert said_here(kind, raw) == said != "accepted"
    assert {"llhttp": llhttp_does == "accepts", "h11": h11_does == "accepts"} == accepted
    assert any(accepted.values())


def test_the_page_has_a_row_for_every_reason_to_refuse_what_others_accept():
    """Found by damage: a phrase that is said here while another parser accepts needs a row."""
    known = {(kind, said) for kind, _, said, _, _ in rows()}
    rng = random.Random(7)
    missing = {}
    for kind in ("request", "response"):
        samples = corpus(kind)
        for _ in range(5000):
            raw = damaged(rng, samples)
            said = said_here(kind, raw)
            if (
                said not in ("accepted", "-2")
                and (kind, said) not in known
                and any(accepted_by(kind, raw).values())
            ):
                missing[kind, said] = raw

    assert missing == {}
