"""Listening sockets: opened, found again, given to workers, and closed without losing who waits in them.

A TCP address has one SO_REUSEPORT socket for each worker, a unix socket one for all. The supervisor keeps all
of them open, so that an accept queue outlives the worker that served it. An address is known by its key: the
numeric "host:port" that it is bound to, "udp:host:port", or "unix:/path".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import socket
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from turnout.proxy.resolve import resolve

SO_ATTACH_FILTER = 26
UDP = "udp:"
UDP_BUFFER = 4 << 20
"""Bytes asked for; the kernel gives what net.core.rmem_max allows."""
# Classic BPF; a filter of a TCP socket sees packets from the TCP header on.
_SYN_FILTER = [
    (0x30, 0, 0, 13),  # load the flags
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # yes: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # no: pass
]
WHY = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
    errno.EMFILE: "no descriptors left: raise the limit (ulimit -n, LimitNOFILE=)",
    errno.ENOENT: "its directory does not exist",
}
PRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class BindError(Exception):
    """An address cannot be listened on; the text says why, without the address."""


@dataclass
class Listening:
    """A socket in the hands of the supervisor. `id` names it in messages; `shared` when somebody outside (a
    service manager, another supervisor) keeps it open too, so that its queue is in good hands without us.
    """

    key: str
    sock: socket.socket
    shared: bool = False
    id: int = field(default_factory=itertools.count(1).__next__)

    @property
    def fd(self) -> int:
        return self.sock.fileno()


Offers = dict[str, list[Listening]]
"""Sockets that somebody handed over, by key."""


# ---- addresses -------------------------------------------------------------------------------------------


def key_of_bind(bind: str) -> str:
    """The key of an address as written in the file. A host that is left out is every address, IPv6 and IPv4.
    Raises BindError for a name without an address.
    """
    if bind.startswith(UDP):
        return UDP + key_of_bind(bind.removeprefix(UDP))
    if bind.startswith(":"):
        return f"[::]{bind}" if socket.has_dualstack_ipv6() else f"0.0.0.0{bind}"
    found = resolve([bind])[bind]
    if isinstance(found, OSError):
        raise BindError(found.strerror or str(found))
    if found.startswith("["):
        host, _, port = found.rpartition(":")
        return f"[{socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host[1:-1]))}]:{port}"
    return found


def key_of_socket(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{UDP if sock.type == socket.SOCK_DGRAM else ''}{host}:{name[1]}"


def _address(key: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host, _, port = key.removeprefix(UDP).rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return family, (host.strip("[]"), int(port))


def port_of_key(key: str) -> int:
    """0 for a unix socket."""
    return 0 if key.startswith("unix:") else _address(key)[1][1]


# ---- opening ---------------------------------------------------------------------------------------------


def check_free(key: str) -> None:
    """Raises BindError when somebody else listens there: SO_REUSEPORT alone would share in silence."""
    if key.startswith("unix:"):
        return
    family, address = _address(key)
    with socket.socket(family, _type(key)) as probe:
        try:
            if key.startswith(UDP):
                probe.bind(address)
                return
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        except OSError as error:
            raise BindError(_why(error, key)) from None


def bind(key: str, *, reuse_port: bool = True) -> Listening:
    """A socket that does not listen yet, so that it takes no connection away. Raises BindError."""
    try:
        sock = _bind_unix(key[5:]) if key.startswith("unix:") else _bind_port(key, reuse_port)
    except OSError as error:
        raise BindError(_why(error, key)) from None
    sock.setblocking(False)
    return Listening(key, sock)


def _type(key: str) -> socket.SocketKind:
    return socket.SOCK_DGRAM if key.startswith(UDP) else socket.SOCK_STREAM


def _bind_port(key: str, reuse_port: bool) -> socket.socket:
    family, address = _address(key)
    sock = socket.socket(family, _type(key))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        if key.startswith(UDP):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
    except (OSError, BindError):
        sock.close()
        raise
    return sock


def listen(item: Listening, backlog: int) -> None:
    """Raises BindError."""
    if item.key.startswith(UDP):
        return
    try:
        item.sock.listen(backlog)
    except OSError as error:
        raise BindError(_why(error, item.key)) from None


def _remove_stale(path: str) -> None:
    """Unlink the socket of a process that is gone; whatever else stands there stays."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise BindError("a file that is no socket stands there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.setblocking(False)
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
                return
            except BlockingIOError:
                pass
        raise BindError("in use by another process")


def _why(error: OSError, key: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"in use by {owner_of(key) or 'another process'}"
    why = WHY.get(error.errno or 0, error.strerror or str(error))
    if error.errno in {errno.EACCES, errno.EPERM} and 0 < port_of_key(key) < _first_free_port():
        why += (
            f": ports below {_first_free_port()} need root or CAP_NET_BIND_SERVICE"
            f" (AmbientCapabilities= in a unit, setcap, or sysctl net.ipv4.ip_unprivileged_port_start)"
        )
    return why


def _first_free_port() -> int:
    try:
        return int(PRIVILEGED_PORTS.read_text())
    except (OSError, ValueError):
        return 1024


def owner_of(key: str) -> str | None:
    """Who listens on a port of this machine, as far as /proc tells."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - slow, needed for a failure only

    port = port_of_key(key)
    with contextlib.suppress(psutil.Error, OSError):
        kind, status = ("udp", psutil.CONN_NONE) if key.startswith(UDP) else ("tcp", psutil.CONN_LISTEN)
        for connection in psutil.net_connections(kind):
            if connection.status == status and connection.laddr.port == port and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return None


# ---- all of one proxy ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """Why a listener cannot have its address."""

    listener: str
    bind: str
    why: str


@dataclass(frozen=True)
class Opening:
    """What a set of listeners needs: the key of each listener, sockets bound for them, how long the queue of
    each key is. Nobody outside notices it before `ListeningSet.commit`.
    """

    keys: dict[str, str]
    bound: list[Listening]
    backlogs: dict[str, int]

    def cancel(self) -> None:
        for item in self.bound:
            forget(item)


class ListeningSet:
    """The sockets of all listeners, by key, and those that somebody offers."""

    def __init__(self, offers: Offers | None = None) -> None:
        self.by_key: dict[str, list[Listening]] = {}
        self._lingering: set[str] = set()  # UDP keys given up; workers may still hold them for their sessions
        self.offers: Offers = offers or {}

    def prepare(
        self, binds: Mapping[str, tuple[str, int]], workers: int
    ) -> tuple[Opening | None, list[Failure]]:
        """Find and bind what listeners (name -> bind, backlog) need: the sockets there are, those offered,
        and new ones. Everything that fails is named, and then nothing has changed.
        """
        opening, failures = Opening({}, [], {}), []
        for name, (address, backlog) in binds.items():
            try:
                key = self._claim(address, opening.keys)
                opening.bound.extend(self._missing(key, workers))
                opening.keys[name] = key
                opening.backlogs[key] = backlog
            except BindError as error:
                failures.append(Failure(name, address, str(error)))
        if failures:
            opening.cancel()
            return None, failures
        return opening, []

    def commit(self, opening: Opening) -> None:
        """Listen. Raises BindError when somebody was faster."""
        for key in set(opening.backlogs) & set(self.offers):
            self.by_key[key] = self.offers.pop(key) + self.by_key.get(key, [])
        for item in opening.bound:
            self.by_key.setdefault(item.key, []).append(item)
        for key, backlog in opening.backlogs.items():
            for item in self.by_key[key]:
                listen(item, backlog)

    def _claim(self, address: str, keys: Mapping[str, str]) -> str:
        key = key_of_bind(address)
        for other, taken in keys.items():
            if taken == key:
                raise BindError(f"is the address of the listener {other} too")
        return key

    def _missing(self, key: str, workers: int) -> list[Listening]:
        have = self.by_key.get(key, []) + self.offers.get(key, [])
        if have and (key.startswith("unix:") or any(item.shared for item in have)):
            return []
        if not have and not self._ours(key) and key not in self._lingering:
            check_free(key)
        out: list[Listening] = []
        try:
            for _ in range(len(have), 1 if key.startswith("unix:") else workers):
                out.append(bind(key))
        except BindError:
            close_all(out)
            raise
        return out

    def _ours(self, key: str) -> bool:
        """Whether a socket of ours has the same port at another address: that is not somebody else's."""
        port = port_of_key(key)
        return any(
            _type(other) == _type(key) and port_of_key(other) == port
            for other in (*self.by_key, *self.offers)
        )

    def all(self) -> list[Listening]:
        return [item for items in self.by_key.values() for item in items]

    def remove(self, keys: Iterable[str]) -> list[Listening]:
        """Take out all sockets of these keys; they stay open, and are the caller's."""
        keys = list(keys)
        self._lingering.update(key for key in keys if key.startswith(UDP))
        return [item for key in keys for item in self.by_key.pop(key, [])]

    def take_offers(self) -> list[Listening]:
        """What was offered and is not used."""
        items = [item for items in self.offers.values() for item in items]
        self.offers = {}
        return items


def shares(items: list[Listening], workers: list[int]) -> dict[int, list[Listening]]:
    """Which of one address's sockets each worker accepts on. Every worker has one or more, and every socket
    has a worker: with fewer sockets than workers they share.
    """
    places = min(len(items), len(workers))
    return {
        worker: [item for j, item in enumerate(items) if j % places == i % places] if places else []
        for i, worker in enumerate(workers)
    }


# ---- closing ---------------------------------------------------------------------------------------------


def refuse_new(item: Listening) -> None:
    """Let nobody new in: SYN packets are dropped, handshakes under way are completed, so that the accept
    queue comes to an end and nobody who got in is lost. A unix socket loses its name.
    """
    if item.shared or item.key.startswith(UDP):
        return
    if item.key.startswith("unix:"):
        with contextlib.suppress(OSError):
            Path(item.key[5:]).unlink()
        return
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _SYN_FILTER)
    buffer = _Buffer(program)
    with contextlib.suppress(OSError):
        item.sock.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(_SYN_FILTER), buffer.address)
        )


class _Buffer:
    """Bytes at an address the kernel can read from."""

    def __init__(self, data: bytes) -> None:
        self._data = ctypes.create_string_buffer(data, len(data))
        self.address = ctypes.addressof(self._data)


def forget(item: Listening) -> None:
    """Close a socket that nobody was told of."""
    item.sock.close()
    if item.key.startswith("unix:"):
        Path(item.key[5:]).unlink(missing_ok=True)


def close_all(items: Iterable[Listening]) -> None:
    for item in items:
        item.sock.close()
