"""Traders in front of a small exchange: quotes, orders, positions and a stream of prices.

    python bench/backend.py                         the exchange behind Turnout; prints ADDRESS
    locust -f bench/locustfile.py --host ADDRESS    then http://localhost:8089
    locust -f bench/locustfile.py --host ADDRESS --headless -u 50 -r 10 -t 30s

What is checked goes beyond the status: an order sent twice under one Idempotency-Key is one order, and the
positions of an account are the sum of what it ordered.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from typing import Any

from locust import HttpUser, between, task

SYMBOLS = ("ABC", "DEF", "GHI", "JKL", "MNO")
STREAM_EVENTS = 20


class Trader(HttpUser):
    """Looks at quotes most of the time, orders now and then, and checks that the books are right."""

    weight = 9
    wait_time = between(0.02, 0.2)

    def on_start(self) -> None:
        self.account = uuid.uuid4().hex
        self.ordered: dict[str, int] = {}

    @task(20)
    def quote(self) -> None:
        symbol = random.choice(SYMBOLS)
        with self.client.get(f"/quotes/{symbol}", name="/quotes/[symbol]", catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif answer.json()["symbol"] != symbol:
                answer.failure("the quote of another symbol")

    @task(5)
    def order(self) -> None:
        """One in five is sent twice, as by a client that did not see the first answer."""
        symbol, quantity = random.choice(SYMBOLS), random.randint(1, 100)
        asked = {"account": self.account, "symbol": symbol, "quantity": quantity}
        key = uuid.uuid4().hex
        first = self._post(asked, key, {201})
        if first is None:
            return
        self.ordered[symbol] = self.ordered.get(symbol, 0) + quantity
        if random.random() < 0.2:
            self._post(asked, key, {200}, same=first)

    def _post(
        self, asked: dict[str, Any], key: str, expected: set[int], same: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        name = "/orders (again)" if same else "/orders"
        with self.client.post(
            "/orders", json=asked, headers={"Idempotency-Key": key}, name=name, catch_response=True
        ) as answer:
            if answer.status_code not in expected:
                answer.failure(f"status {answer.status_code}")
                return None
            order: dict[str, Any] = answer.json()
            if same is not None and order["id"] != same["id"]:
                answer.failure("one key, two orders")
            return order

    @task(2)
    def positions(self) -> None:
        with self.client.get(
            f"/positions/{self.account}", name="/positions/[account]", catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif answer.json() != self.ordered:
                answer.failure(f"positions {answer.json()} are not what was ordered: {self.ordered}")


class Watcher(HttpUser):
    """Listens to the stream for a while; an event that comes late was held back somewhere."""

    weight = 1
    wait_time = between(0.1, 0.5)

    @task
    def watch(self) -> None:
        seen = 0
        with self.client.get("/stream", stream=True, timeout=10, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            last = time.monotonic()
            for line in answer.iter_lines():
                if not line.startswith(b"data: "):
                    continue
                json.loads(line[6:])
                if time.monotonic() - last > 2:
                    answer.failure("an event came more than two seconds after the one before")
                last = time.monotonic()
                seen += 1
                if seen == STREAM_EVENTS:
                    break
            else:
                answer.failure(f"the stream ended after {seen} events")
            answer.close()
