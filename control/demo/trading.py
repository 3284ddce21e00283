"""The demo of the trading preset: the file as `turnout init --preset trading` writes it, with the addresses
of this demo in the place of those that stand there.
"""

from __future__ import annotations

from turnout.control import trading
from turnout.control.demo.places import Places, Sample, file_of

STANDS_FOR = {
    "127.0.0.1:8001": Sample("trading-1"),
    "127.0.0.1:8002": Sample("trading-2"),
    "127.0.0.1:8010": Sample("gateway"),
    "127.0.0.1:8020": Sample("models"),
    "127.0.0.1:8030": Sample("market", kind="market"),
    "127.0.0.1:5432": Sample("database", kind="lines"),
    "127.0.0.1:8101": Sample("server-1"),
    "127.0.0.1:8102": Sample("server-2"),
    "127.0.0.1:8103": Sample("server-3"),
}
"""An endpoint of the file and the backend that is put there."""
SAMPLES = tuple(STANDS_FOR.values())
PORTS = {"web": 8080, "database": 6432, "api": 9900}
LISTENS = {"web": "0.0.0.0:8080", "database": "127.0.0.1:6432", "api": "127.0.0.1:9900"}
"""What the file says of them."""

TEXT = """
Turnout stands in front of a trading system, configured by {file}.
Things to try:

  # Each service; the two of trading-system take turns, server-1 and server-2 go as 3 to 2.
  curl http://{web}/trading/orders
  curl -d '{{"symbol": "SAP", "quantity": 10}}' http://{web}/trading/orders
  curl http://{web}/api/accounts
  curl http://{web}/ai/predict
  curl -N http://{web}/market/prices
  curl http://{web}/
  curl -c jar -b jar http://{web}/

  # The database is TCP: each line comes back.
  echo select 1 | python3 -c 'import socket, sys
  s = socket.create_connection(("{host}", {port})); s.send(sys.stdin.read().encode()); print(s.recv(99))'

  # Take an endpoint out and back; give one less; see what each of them does.
  turnout drain trading-system/{first}{option}
  turnout ready trading-system/{first}{option}
  turnout weight default-balancer/{server} 1{option}
  turnout top{option}

  # A check takes one out that says it is not well, and brings it back.
  curl -X PUT -d down http://{first}/health; sleep 4; turnout health trading-system{option}
  curl -X PUT -d up http://{first}/health

  # Something slow, and failures until a circuit breaker opens.
  curl "http://{web}/ai/slow?ms=3000"
  for i in $(seq 20); do curl http://{web}/api/fail; done
"""


def configuration(places: Places) -> str:
    text = trading.TEXT
    moves = dict(zip(STANDS_FOR, places.backends, strict=True))
    moves |= {LISTENS[name]: address for name, address in places.ports.items()}
    for stands, address in moves.items():
        text = text.replace(f'"{stands}"', f'"{address}"')
    return text.replace("[proxy]\n", '[proxy]\nstate = "state"\n', 1)


def what_to_try(places: Places) -> str:
    host, _, port = places.ports["database"].rpartition(":")
    address = dict(zip(STANDS_FOR, places.backends, strict=True))
    return TEXT.format(
        web=places.ports["web"],
        host=host,
        port=port,
        first=address["127.0.0.1:8001"],
        server=address["127.0.0.1:8101"],
        option=places.option,
        file=file_of(places.folder),
    )
