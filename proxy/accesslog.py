"""The file that workers write access-log records to. The supervisor opens it and hands the descriptor out, so
that workers need no rights in its folder, and a failure is known before anything changes.
"""

from __future__ import annotations

import os
from pathlib import Path

from turnout.proxy.model import AccessLog

MODE = 0o640


def open_log(conf: AccessLog, file: Path) -> int:
    """A descriptor for appending, the caller's; -1 with the log off. A relative path starts at the folder of
    the configuration `file`. Raises OSError.
    """
    if conf.path == "off":
        return -1
    if conf.path == "stderr":
        return os.dup(2)
    path = file.absolute().parent / Path(conf.path).expanduser()
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
