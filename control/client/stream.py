"""Server-sent events, taken apart."""

from __future__ import annotations

import json
from typing import cast

from turnout.control.client.shapes import Event

ACCEPT = "text/event-stream"
SILENCE_S = 60.0
"""A stream is never silent for so long: the API sends comments in between."""
DROPPED = "dropped"
"""The API's word for a reader that is too slow; then it ends the stream."""
PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Before another try to connect; the last again and again."""


class Parser:
    """Fed with lines without their ends; `last_id` is where to go on after a break."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self.began = False
        """There was a stream."""
        self._data: list[str] = []
        self._id: str | None = None
        self._kind = ""

    def feed(self, line: str) -> Event | None:
        """The event that ends with this line, if one does."""
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and value.isdecimal():
            self._id = value
        elif name == "event":
            self._kind = value
        return None

    def _end(self) -> Event | None:
        data, self._data = "\n".join(self._data), []
        if self._id is not None:
            self.last_id, self._id = self._id, None
        kind, self._kind = self._kind, ""
        if not data or kind == DROPPED:
            return None
        return cast(Event, json.loads(data))

    def broken(self) -> None:
        """What is not complete is void: it comes again."""
        self._data, self._id, self._kind = [], None, ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept": ACCEPT}

    @property
    def since(self) -> int | None:
        """To ask for what comes after the last event that was complete."""
        return None if self.last_id is None else int(self.last_id)


def pause(failures: int) -> float:
    """Seconds to wait after so many in a row."""
    return PAUSES_S[min(failures, len(PAUSES_S)) - 1]
