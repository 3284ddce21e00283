"""What the processes say of themselves: one line each on stderr, key=value, nothing per request."""

from __future__ import annotations

import json
import logging
import sys
import time


class LineFormatter(logging.Formatter):
    """time, level, who, then the event and its fields (given as `extra={"fields": {...}}`)."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self.who = who

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [
            f"{stamp}.{int(record.msecs):03d}Z",
            record.levelname.lower(),
            f"{self.who}[{record.process}]",
            _one_line(record.getMessage()),
        ]
        parts += [f"{key}={_value(value)}" for key, value in getattr(record, "fields", {}).items()]
        if record.exc_info:
            parts.append(f"trace={json.dumps(self.formatException(record.exc_info))}")
        return " ".join(parts)


def _one_line(text: str) -> str:
    return " | ".join(text.splitlines())


def _value(value: object) -> str:
    text = str(value)
    plain = text and all(char.isalnum() or char in "-_./:[]+%@" for char in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def configure(who: str, level: int = logging.INFO) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(who))
    logging.basicConfig(level=level, handlers=[handler], force=True)
