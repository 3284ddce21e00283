"""The file that `turnout init --preset trading` writes: the services of a trading system, and a balancer in
front of what has no service of its own. Its addresses are those of backends on this machine; the demo puts
its own in their place.
"""

from __future__ import annotations

TEXT = """\
# Turnout in front of a trading system. Check this file with `turnout check`, run it with `turnout run`.
# Durations and sizes are strings with a unit: "500ms", "10m", "64kB". Every key: docs/configuration.md.
# The addresses are those of backends on this machine: write yours.

[proxy]
workers = "auto"                   # worker processes; "auto" is one per CPU
grace = "30s"                      # how long requests may take to end after a stop, a reload or an upgrade

# Commands, metrics and health of the proxy itself.
[control]
listen = "127.0.0.1:9900"

# ---- where clients connect -----------------------------------------------------------------------

[listeners.web]
bind = "0.0.0.0:8080"

[listeners.database]               # connections are passed on as they are
bind = "127.0.0.1:6432"
protocol = "tcp"

# ---- the services --------------------------------------------------------------------------------
# Each: round robin, checks, and a circuit breaker. An endpoint is asked every 2 s how it is: 3 failed checks
# in a row take it out, 2 good ones bring it back. After 5 failed requests in a row it is left alone for 60 s;
# then single requests try whether it is well again.

# Orders. A failed request is tried on the other endpoint only when nothing can have been processed or its
# method allows to repeat it: an order is never sent twice.
[services.trading-system]
balance = "round_robin"
endpoints = ["127.0.0.1:8001", "127.0.0.1:8002"]
health = { path = "/health", interval = "2s" }
breaker = { failures = 5, open = "60s" }
timeouts = { connect = "1s", response = "10s" }

[services.api-gateway]
balance = "round_robin"
endpoints = ["127.0.0.1:8010"]
health = { path = "/health", interval = "2s" }
breaker = { failures = 5, open = "60s" }
timeouts = { connect = "1s", response = "30s" }

# Predictions take their time, and more of them at once only take longer: the rest waits in a queue.
[services.ai-models]
balance = "round_robin"
endpoints = ["127.0.0.1:8020"]
health = { path = "/health", interval = "5s", timeout = "3s" }
breaker = { failures = 5, open = "60s" }
timeouts = { connect = "1s", response = "2m" }
limits = { connections = 64, queue = 256, queue_timeout = "10s" }

# Prices as event streams and WebSockets: nothing may come for a while, and they stand all day.
[services.market-data]
balance = "round_robin"
endpoints = ["127.0.0.1:8030"]
health = { path = "/health", interval = "2s" }
breaker = { failures = 5, open = "60s" }
timeouts = { connect = "1s", idle = "10m", tunnel = "24h" }

# A connection counts as in flight for as long as it stands. A check is a connect.
[services.database]
balance = "round_robin"
endpoints = ["127.0.0.1:5432"]
health = { type = "tcp", interval = "2s" }
breaker = { failures = 5, open = "60s" }
timeouts = { connect = "2s", tunnel = "8h" }
limits = { connections = 100, queue_timeout = "5s" }

# ---- the default balancer ------------------------------------------------------------------------
# What no other route takes. The first two servers share it as 3 to 2; the third, of a higher priority number,
# is used when neither of them can take a request. A signed cookie keeps a client where it was.

[services.default-balancer]
balance = "round_robin"
endpoints = [
  { address = "127.0.0.1:8101", weight = 3, priority = 0 },
  { address = "127.0.0.1:8102", weight = 2, priority = 0 },
  { address = "127.0.0.1:8103", weight = 1, priority = 1 },
]
health = { path = "/health", interval = "2s" }
sticky = { cookie = "turnout", ttl = "30m" }
breaker = { failures = 5, open = "60s" }

# ---- what goes where: the most specific host, then the longest path ------------------------------
# A service gets the path without the prefix: /trading/orders as /orders.

[[routes]]
path = "/trading"
service = "trading-system"
strip_prefix = true

[[routes]]
path = "/api"
service = "api-gateway"
strip_prefix = true

[[routes]]
path = "/ai"
service = "ai-models"
strip_prefix = true

[[routes]]
path = "/market"
service = "market-data"
strip_prefix = true

[[routes]]
listener = "web"
path = "/"
service = "default-balancer"

[[routes]]
listener = "database"
service = "database"
"""
