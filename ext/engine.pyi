"""What Python may call of the engine of one worker."""

from turnout.ext.snapshot import Snapshot

class Engine:
    """Carries the traffic of one worker process.

    `scoreboard_fd` is the memfd made by `turnout.ext.scoreboard.Scoreboard`; `worker` this process's slab in
    it. `large_bytes` bounds the memory of large body buffers (bytes). Raises ValueError for a scoreboard of
    another layout, OSError when the kernel refuses a descriptor.
    """

    def __init__(self, scoreboard_fd: int, worker: int, *, large_bytes: int = 134217728) -> None: ...
    def fileno(self) -> int:
        """The epoll descriptor, readable when `turn` has work: `loop.add_reader(fd, engine.turn)`."""

    def turn(self) -> None:
        """Carry traffic without the GIL until nothing comes for a few milliseconds or a watched descriptor is
        readable.
        """

    def watch(self, fd: int) -> None:
        """Give control back to Python when `fd` is readable (level-triggered). The caller keeps `fd`."""

    def unwatch(self, fd: int) -> None: ...
    def listen(self, slot: int, fd: int) -> None:
        """Accept on a listening socket for the listener with this slot, which may have several. The engine
        owns `fd` from here on.
        """

    def unlisten(self, slot: int, fd: int = -1, *, last: bool = False) -> None:
        """Stop accepting and close this worker's copy of all sockets of the listener, or of the one whose
        `fd` was given to `listen`; open connections go on. `last`: nobody else reads from these sockets, so
        clients of UDP sessions still do through this engine.
        """

    def retire(self, slot: int) -> None:
        """The listener is to go: answers to its clients carry Connection: close, idle connections close after
        a moment. Until then its row has to stay in the snapshot. Ends with the slot's next `listen`.
        """

    def load(self, snapshot: Snapshot) -> int:
        """Put a snapshot in force between two turns; returns its version. The first one must precede
        `listen`. Raises ValueError for a snapshot made for a larger scoreboard.
        """

    def log_to(self, fd: int) -> None:
        """Write access-log records to `fd` (the engine owns it and closes the former one); -1: log off."""

    def flush(self) -> None:
        """Write out buffered log records."""

    def drain(self) -> None:
        """Stop accepting; answers carry Connection: close; idle connections close after a moment, busy ones
        when done.
        """

    def abort(self) -> int:
        """Close what is still open, counted as cancelled by the proxy; how many exchanges that cut."""

    @property
    def open_clients(self) -> int: ...
    @property
    def open_exchanges(self) -> int: ...
    @property
    def held_snapshots(self) -> int:
        """Those that exchanges still use, and the one in force."""

    def close(self) -> None:
        """Free everything. In a debug build raises AssertionError naming what was not given back."""
