"""Programs of the system, as tests run them."""

import os


def plain_environment() -> dict[str, str]:
    """Without the sanitizers' runtimes, which are for our own build: curl hangs under them."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
