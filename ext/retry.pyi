"""The test access of the retry rule and its budget; the engine uses them through retry.pxd."""

def _allowed(
    conf: dict[str, object],
    *,
    reason: int = 0,
    method: int = 0,
    sent: bool = False,
    replayable: bool = True,
    answered: bool = False,
    keyed: bool = False,
    tries: int = 1,
    stale_tries: int = 0,
    status: int = 0,
) -> bool:
    """retry_allowed. conf: the fields of retry_conf_t, `statuses` as a list of status codes; reason: index
    into scoreboard.RETRY_REASONS; method: method_id of headers.pxd.
    """

class _Budget:
    """One service's budget in one worker. conf: as with _allowed."""

    tokens: float
    denied: int
    def __init__(self, **conf: object) -> None: ...
    def earn(self, elapsed_s: float) -> None: ...
    def spend(self) -> bool: ...
