"""Where a proxy keeps what must outlive it: one folder for each configuration file."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnout.proxy.errors import StartError

LOCK = "lock"


def base_directory(configured: str | None, file: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """[proxy] state (relative to its file), else the service manager's, else root's, else the user's."""
    if configured is not None:
        return file.absolute().parent / Path(configured).expanduser()
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "turnout"
    if os.geteuid() == 0:
        return Path("/var/lib/turnout")
    return Path("~/.local/state/turnout").expanduser()


def folder_name(file: Path) -> str:
    """What stands for a configuration file wherever files of several proxies are."""
    path = file.resolve()
    return f"{path.stem}-{hashlib.blake2b(str(path).encode(), digest_size=5).hexdigest()}"


def state_directory(configured: str | None, file: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of this configuration file, made if need be (mode 0700). Raises StartError."""
    out = base_directory(configured, file, environ) / folder_name(file)
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartError(
            [f"the state directory {out} cannot be made: {error.strerror}; name another in [proxy] state"]
        ) from None
    return out


def write_json(path: Path, value: Any) -> None:
    """The whole file or the former one, on disk before it has its name. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def take_lock(directory: Path) -> int | None:
    """A descriptor that holds the folder for its process, and for whoever inherits it; None when another
    process has it. Raises StartError.
    """
    path = directory / LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError([f"{path} cannot be opened: {error.strerror}"]) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
