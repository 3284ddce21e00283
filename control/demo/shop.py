"""The demo without a preset: one service of two versions."""

from __future__ import annotations

from turnout.control.demo.places import Places, Sample, file_of

SAMPLES = (Sample("ada"), Sample("ben"), Sample("cleo", version="v2"))
PORTS = {"web": 8080, "api": 9900}

CONFIGURATION = """\
[proxy]
workers = 2
grace = "5s"
state = "state"

[control]
listen = "{api}"

[listeners.web]
bind = "{web}"

[services.shop]
balance = "least_connections"
endpoints = [
{endpoints}
]
split = {{ v1 = 80, v2 = 20 }}
sticky = {{ cookie = "turnout", ttl = "10m" }}
breaker = {{ failures = 5, open = "10s" }}

[[routes]]
path = "/"
service = "shop"
"""

TEXT = """
Turnout stands on http://{web} in front of three backends: {backends}.
New sessions go to v1 and v2 as 80 to 20; a cookie keeps each where it began. Things to try:

  # Who answers? Again and again: 80 to 20. With the cookie: always the same one.
  curl http://{web}/
  curl -c jar -b jar http://{web}/

  # Move traffic; take an endpoint out of it and back.
  turnout split shop v1=50 v2=50{option}
  turnout drain shop/{first}{option}
  turnout ready shop/{first}{option}

  # See it happen: something slow, a stream, and failures until a circuit breaker opens.
  turnout status --watch{option}
  curl "http://{web}/slow?ms=3000"
  curl -N http://{web}/events
  for i in $(seq 20); do curl http://{web}/fail; done

  # For Prometheus. And after a change of {file}:
  curl http://{api}/metrics
  turnout reload{option}
"""


def configuration(places: Places) -> str:
    endpoints = "\n".join(
        f'  {{ address = "{address}", version = "{sample.version}" }},'
        for sample, address in zip(SAMPLES, places.backends, strict=True)
    )
    return CONFIGURATION.format(**places.ports, endpoints=endpoints)


def what_to_try(places: Places) -> str:
    named = (
        f"{sample.name} ({sample.version}, {address})"
        for sample, address in zip(SAMPLES, places.backends, strict=True)
    )
    return TEXT.format(
        **places.ports,
        backends=", ".join(named),
        first=places.backends[0],
        option=places.option,
        file=file_of(places.folder),
    )
