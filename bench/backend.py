"""A small exchange to put under load: three backends over one book, and Turnout in front of them.

    python bench/backend.py                       prints the proxy's address; Ctrl-C ends all of it
    locust -f bench/locustfile.py --host ADDRESS  its own page is on http://localhost:8089

Quotes move by themselves. An order is taken once for each Idempotency-Key, whichever backend gets it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

SYMBOLS = ("ABC", "DEF", "GHI", "JKL", "MNO")
BACKENDS = 3
MOVE_S = 0.1

CONFIGURATION = """
[proxy]
workers = {workers}
state = "{folder}/state"

[control]
listen = "127.0.0.1:{control}"
socket = "off"

[listeners.web]
bind = "127.0.0.1:{web}"

[services.exchange]
balance = "least_connections"
endpoints = [{endpoints}]

[[routes]]
path = "/"
service = "exchange"
"""


@dataclass
class Book:
    """What all backends share: prices, orders by their key, positions by account."""

    prices: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SYMBOLS, 100.0))
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    positions: dict[str, dict[str, int]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def move(self) -> None:
        while True:
            for symbol in SYMBOLS:
                self.prices[symbol] = max(1.0, self.prices[symbol] + random.gauss(0, 0.05))
            await asyncio.sleep(MOVE_S)

    def quote(self, symbol: str) -> dict[str, Any]:
        price = self.prices[symbol]
        return {"symbol": symbol, "bid": round(price - 0.01, 2), "ask": round(price + 0.01, 2)}

    def take(self, key: str, account: str, symbol: str, quantity: int) -> tuple[dict[str, Any], bool]:
        """The order, and whether it is new."""
        if key in self.orders:
            return self.orders[key], False
        order = {
            "id": next(self.numbers),
            "symbol": symbol,
            "quantity": quantity,
            "price": self.prices[symbol],
        }
        self.orders[key] = order
        held = self.positions.setdefault(account, {})
        held[symbol] = held.get(symbol, 0) + quantity
        return order, True


class Backend:
    def __init__(self, name: str, book: Book) -> None:
        self.name = name
        self.book = book

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/quotes/{symbol}", self.quotes),
                web.post("/orders", self.orders),
                web.get("/positions/{account}", self.positions),
                web.get("/stream", self.stream),
            ]
        )
        return app

    async def quotes(self, request: web.Request) -> web.Response:
        symbol = request.match_info["symbol"]
        if symbol not in self.book.prices:
            raise web.HTTPNotFound(text=f"no symbol {symbol}\n")
        return web.json_response(self.book.quote(symbol), headers={"X-Backend": self.name})

    async def orders(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key")
        if not key:
            raise web.HTTPBadRequest(text="an order needs an Idempotency-Key\n")
        asked = await request.json()
        order, new = self.book.take(key, asked["account"], asked["symbol"], int(asked["quantity"]))
        return web.json_response(order, status=201 if new else 200, headers={"X-Backend": self.name})

    async def positions(self, request: web.Request) -> web.Response:
        return web.json_response(self.book.positions.get(request.match_info["account"], {}))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: every symbol's quote, each time the market moves."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Backend": self.name})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                for symbol in SYMBOLS:
                    await response.write(f"data: {json.dumps(self.book.quote(symbol))}\n\n".encode())
                await asyncio.sleep(MOVE_S)
        return response


async def serve_backends(book: Book) -> tuple[list[web.AppRunner], list[str]]:
    runners, addresses = [], []
    for number in range(BACKENDS):
        runner = web.AppRunner(Backend(f"b{number + 1}", book).application(), shutdown_timeout=0.1)
        await runner.setup()
        sock = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, sock).start()
        runners.append(runner)
        addresses.append(f"127.0.0.1:{sock.getsockname()[1]}")
    return runners, addresses


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def run(port: int, workers: int) -> int:
    book = Book()
    moving = asyncio.create_task(book.move())
    runners, addresses = await serve_backends(book)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with tempfile.TemporaryDirectory(prefix="turnout-exchange-") as folder:
        file = Path(folder) / "turnout.toml"
        quoted = ", ".join(f'"{a}"' for a in addresses)
        control = free_port()
        file.write_text(
            CONFIGURATION.format(folder=folder, web=port, control=control, workers=workers, endpoints=quoted)
        )
        proxy = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "turnout", "run", str(file), start_new_session=True
        )
        print(f"http://127.0.0.1:{port}", flush=True)
        print(f"metrics: http://127.0.0.1:{control}/metrics", file=sys.stderr, flush=True)
        gone = asyncio.create_task(proxy.wait())
        await asyncio.wait([gone, asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED)
        if proxy.returncode is None:
            proxy.terminate()
        code = await gone
    moving.cancel()
    for runner in runners:
        await runner.cleanup()
    return code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="of the proxy; 0: one that is free")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    return asyncio.run(run(args.port or free_port(), args.workers))


if __name__ == "__main__":
    sys.exit(main())
