"""A small HTTP/1.1 client, and a bounded load made of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection to the proxy; `closed` once the proxy has said or done so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.closed = False

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> Connection:
        name = None if tls is None else "site.test"
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name))

    async def get(self, path: str = "/", timeout: float = 20) -> Answer:
        """Raises ConnectionError or IncompleteReadError (an EOFError) when there is no whole answer."""
        return await asyncio.wait_for(self._get(path), timeout)

    async def _get(self, path: str) -> Answer:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        self.closed = headers.get("connection", "").lower() == "close"
        return Answer(int(head[0].split()[1]), headers, body)

    def unused_and_gone(self) -> bool:
        """Whether the proxy has closed this connection between two requests."""
        return self.closed or self.reader.at_eof()

    def close(self) -> None:
        self.closed = True
        self.writer.close()


async def get(port: int, path: str = "/", timeout: float = 20, tls: ssl.SSLContext | None = None) -> Answer:
    """One request on a connection of its own."""
    connection = await Connection.open(port, tls)
    try:
        return await connection.get(path, timeout)
    finally:
        connection.close()


@dataclass
class Load:
    """Requests from several clients, half of them on kept connections. With `until_refused` a client whose
    connection is refused has come to its end; else that is a failure.
    """

    port: int
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: bool = False
    until_refused: bool = False
    path: str = "/"
    pause: float = 0.02
    tls: ssl.SSLContext | None = None

    async def _client(self, keep: bool) -> None:
        connection: Connection | None = None
        while not self.stopping:
            try:
                if connection is None or connection.unused_and_gone():
                    if connection is not None:
                        connection.close()
                    connection = await Connection.open(self.port, self.tls)
                answer = await connection.get(self.path)
                if answer.status != 200:
                    self.failures.append(f"status {answer.status}: {answer.body!r}")
                self.answers += 1
            except ConnectionRefusedError as error:
                if self.until_refused:
                    return
                self.failures.append(repr(error))
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(repr(error))
                if connection is not None:
                    connection.close()
                connection = None
            if not keep and connection is not None:
                connection.close()
                connection = None
            await asyncio.sleep(self.pause)
        if connection is not None:
            connection.close()

    async def more(self, answers: int) -> None:
        """Wait until there are so many more answers."""
        wanted = self.answers + answers
        await until(lambda: self.answers >= wanted or len(self.failures) > 100)


@contextlib.asynccontextmanager
async def load(port: int, clients: int = 8, **changes: object) -> AsyncIterator[Load]:
    """A few hundred requests a second for as long as the block lasts; every request begun is finished. With
    `until_refused` the block's end waits for that.
    """
    out = Load(port, **changes)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(out._client(keep=number % 2 == 0)) for number in range(clients)]
    try:
        yield out
    except BaseException:
        out.stopping = True
        raise
    finally:
        out.stopping = out.stopping or not out.until_refused
        await asyncio.gather(*tasks)


async def until(condition: Callable[[], object], timeout: float = 20) -> None:
    """Raises TimeoutError when it does not come true."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.005)
