"""Build the extension modules: a named list, one shared object each.

Environment switches: TURNOUT_SANITIZE=1 builds with ASan and UBSan, TURNOUT_DEBUG=1 counts what is allocated.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = [
    "timers", "buffers", "text", "headers", "framing", "http1", "scoreboard", "ring", "breaker", "sticky",
    "retry", "select", "document", "router", "snapshot", "logline", "account", "stream", "conn", "endpoint",
    "edits", "respond", "request", "upstream", "exchange", "listener", "engine",
]  # fmt: skip

SANITIZE = os.environ.get("TURNOUT_SANITIZE") == "1"
DEBUG = os.environ.get("TURNOUT_DEBUG") == "1" or SANITIZE

cflags = [
    "-O2",
    "-fno-strict-aliasing",
    "-fno-plt",
    "-Wno-unused-function",
    "-Wno-unreachable-code",
    "-Wno-sign-compare",
]
ldflags: list[str] = []
if SANITIZE:
    cflags += [
        "-fsanitize=address,undefined",
        "-fno-omit-frame-pointer",
        "-g",
        "-fno-sanitize-recover=undefined",
    ]
    ldflags += ["-fsanitize=address,undefined"]

extensions = [
    Extension(
        f"turnout.ext.{name}",
        [f"src/turnout/ext/{name}.pyx"],
        extra_compile_args=cflags,
        extra_link_args=ldflags,
        define_macros=[("TURNOUT_DEBUG", "1" if DEBUG else "0")],
    )
    for name in MODULES
    if Path(f"src/turnout/ext/{name}.pyx").exists()
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=["src"],
        build_dir="build/cython",
        nthreads=int(os.environ.get("TURNOUT_BUILD_JOBS", os.cpu_count() or 1)),
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
        },
    )
)
