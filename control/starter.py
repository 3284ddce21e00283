"""The files that `turnout init` writes. The one without a preset is small enough to understand at once, with
the settings people reach for written out and switched off. There a line that begins with "#" and no blank is
a setting; remove the "#" to use it.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from turnout.control import trading

FILE = "turnout.toml"

TEXT = """\
# Turnout. Check this file with `turnout check`, run it with `turnout run`.
# Lines that begin with "#" and no blank are settings, switched off: remove the "#" to use them.
# Durations and sizes are strings with a unit: "500ms", "10m", "64kB". Every key: docs/configuration.md.

[proxy]
workers = "auto"                   # worker processes; "auto" is one per CPU
grace = "30s"                      # how long requests may take to end after a stop, a reload or an upgrade
#access_log = { path = "/var/log/turnout/access.log", sample = 1.0, slow = "1s" }

# Commands, metrics and health of the proxy itself. Commands of root and of the user who runs it find it by a
# unix socket; over TCP a token is needed (docs/access.md).
[control]
listen = "127.0.0.1:9900"

# ---- where clients connect -----------------------------------------------------------------------

[listeners.web]
bind = "0.0.0.0:8080"
# Behind another proxy: whose X-Forwarded-* fields are believed. Without it they are written anew.
#trusted = ["10.0.0.0/8"]
#timeouts = { header = "10s", body = "60s", keepalive = "75s" }
#limits = { connections = 20000, head = "32kB", body = "10MB" }

# ---- what answers --------------------------------------------------------------------------------

[services.app]
# round_robin, least_connections, weighted_round_robin, ip_hash, random, least_response_time,
# consistent_hash
balance = "least_connections"
endpoints = [
  "127.0.0.1:8000",
#  { address = "127.0.0.1:8001", weight = 2 },
#  { address = "127.0.0.1:8002", version = "v2" },
]
# A canary: the share of new sessions that each version gets; at run time: turnout split app v1=90 v2=10
#split = { v1 = 95, v2 = 5 }
# A client stays where it was, by a signed cookie.
#sticky = { cookie = "turnout", ttl = "30m" }
# An endpoint that fails so often in a row is left alone for a while.
#breaker = { failures = 5, open = "60s" }
# A failed request is tried elsewhere when that is safe; at most this share of all requests.
#retries = { attempts = 2, budget = 0.2 }
#timeouts = { connect = "5s", response = "60s", idle = "60s" }
# For each endpoint.
#limits = { connections = 256, queue = 512 }

# ---- what goes where: the most specific host, then the longest path ------------------------------

[[routes]]
path = "/"
service = "app"

#[[routes]]
#host = "api.example.com"
#path = "/v1"
#strip_prefix = true
#service = "app"
#request_headers = { set = { X-Api = "v1" }, remove = ["Cookie"] }

#[[routes]]
#path = "/old"
#redirect = { to = "https://{host}/new", status = 308 }

#[[routes]]
#path = "/robots.txt"
#respond = { status = 200, body = "User-agent: *\\nDisallow: /\\n" }
"""


class Preset(StrEnum):
    """Of `turnout init` and `turnout demo`."""

    TRADING = "trading"


def text(preset: Preset | None = None) -> str:
    return TEXT if preset is None else trading.TEXT


def write(path: Path, preset: Preset | None = None, *, force: bool = False) -> None:
    """Write a file to start from. FileExistsError when something is there already, unless forced."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    with os.fdopen(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
        file.write(text(preset))
