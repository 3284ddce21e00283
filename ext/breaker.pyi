"""The circuit breaker's test access; the engine uses it through breaker.pxd."""

from typing import Literal

State = Literal["closed", "open", "half_open"]
Event = Literal[
    "ask_early",
    "ask_due",
    "success",
    "failure",
    "neutral",
    "probe_success",
    "probe_failure",
    "probe_neutral",
]

def _table() -> dict[State, dict[Event, str]]:
    """The action for each state and event."""

def _pack(**fields: object) -> int:
    """A word of state (a name), failures, streak, probes, successes, epoch, deadline; 0 if left out."""

def _unpack(word: int) -> dict[str, object]: ...
def _next(
    word: int,
    event: Event,
    now_ms: int,
    *,
    lease_ms: int = 1000,
    random: int = 0,
    may_trip: bool = True,
    **conf: object,
) -> int:
    """brk_next. conf: the fields of breaker_conf_t, `statuses` as a list of status codes."""

def _open_to(word: int, now_ms: int, **conf: object) -> bool: ...
def _is_failure(outcome: int, status: int, **conf: object) -> bool:
    """outcome: index into scoreboard.OUTCOMES."""

class _Breaker:
    """The breaker of one endpoint slot of the scoreboard behind a descriptor, which stays the caller's."""

    word: int
    def __init__(self, fd: int, slot: int, **conf: object) -> None: ...
    def admit(self, now_ms: int, *, lease_ms: int = 1000) -> tuple[int, int]:
        """brk_admit's verdict and the epoch of a probe."""

    def report(
        self, event: Event, now_ms: int, *, epoch: int = 0, random: int = 0, may_trip: bool = True
    ) -> int: ...
    def untrip(self, word: int, now_ms: int) -> None: ...
    def meet(self, parties: int) -> None:
        """Wait until so many processes are here."""

    def hammer_probes(self, now_ms: int, times: int) -> tuple[int, int]:
        """Ask until `times` probes were got, or it is open, and give each back: how many were got, and the
        most that were in flight at once over all processes that hammer.
        """

    def hammer_failures(self, now_ms: int, times: int) -> int:
        """Report `times` failures; how many of them made it open."""
