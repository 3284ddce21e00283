"""What a shell offers for words that name something of the running proxy. Whatever goes wrong, it offers
nothing: nobody reads errors in the middle of a command line.

bash takes ":" and "=" for ends of words. What it sends is put together again before it is understood, and of
what is offered the part that it takes for earlier words is left out.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from turnout.control.client import Client, ClientError
from turnout.control.discover import SeveralError

VARIABLE = "_TURNOUT_COMPLETE"
TIMEOUT_S = 2.0
BREAKS = ":="


def is_asked_by_bash() -> bool:
    return os.environ.get(VARIABLE) == "complete_bash"


def answer_bash(app: Callable[[], object]) -> None:
    """Run `app`, which prints what there is to offer, with words that are whole."""
    stands = mended(os.environ)
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        app()
    sys.stdout.write("".join(line.removeprefix(stands) for line in said.getvalue().splitlines(keepends=True)))


def mended(environ: MutableMapping[str, str]) -> str:
    """Put the words together; the part of the last one that is an earlier word to bash."""
    words = environ.get("COMP_WORDS", "").split("\n")
    at = int(environ.get("COMP_CWORD", 0))
    out: list[str] = []
    now = 0
    for place, word in enumerate(words):
        if place > 1 and (_is_break(word) or _is_break(words[place - 1])):
            out[-1] += word
        else:
            out.append(word)
        if place == at:
            now = len(out) - 1
    environ["COMP_WORDS"] = "\n".join(out)
    environ["COMP_CWORD"] = str(now)
    last = out[now] if now < len(out) else ""
    return last[: max(map(last.rfind, BREAKS)) + 1]


def _is_break(word: str) -> bool:
    return word != "" and all(letter in BREAKS for letter in word)


def services(ctx: Any, incomplete: str) -> list[str]:
    return _offer(incomplete, (row["name"] for row in _rows(ctx)))


def endpoints(ctx: Any, incomplete: str) -> list[str]:
    """SERVICE/ENDPOINT; the address alone once its beginning stands there."""
    there = [(service["name"], row["address"]) for service in _rows(ctx) for row in service["endpoints"]]
    full = [f"{service}/{address}" for service, address in there]
    if incomplete and not any(name.startswith(incomplete) for name in full):
        return _offer(incomplete, (address for _, address in there))
    return _offer(incomplete, full)


def shares(ctx: Any, incomplete: str) -> list[str]:
    """VERSION= for what the service of this command has and does not stand there yet."""
    named = {word.partition("=")[0] for word in ctx.params.get("shares") or ()}
    return _offer(
        incomplete,
        (
            f"{row['version']}="
            for service in _rows(ctx)
            if service["name"] == ctx.params.get("service")
            for row in service["split"]
            if row["version"] not in named
        ),
    )


def _rows(ctx: Any) -> list[Any]:
    """Services of the status."""
    try:
        api = ctx.params.get("api") or os.environ.get("TURNOUT_API") or None
        rows: list[Any] = Client(api, timeout=TIMEOUT_S).status()["services"]
    except (ClientError, SeveralError):
        return []
    return rows


def _offer(incomplete: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})
