"""Build the extension modules: a named list, one shared object each.

Environment switches: TURNOUT_SANITIZE=1 builds with ASan and UBSan, TURNOUT_DEBUG=1 counts what is allocated,
TURNOUT_OPTIMIZE=-O0 builds quickly, TURNOUT_BUILD_JOBS bounds the processes that translate.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = [
    "timers", "buffers", "text", "headers", "framing", "http1", "scoreboard", "ring", "breaker", "sticky",
    "retry", "listing", "latency", "strategies", "split", "adopt", "select", "document", "router",
    "snapshot", "logline", "account", "stream", "conn", "endpoint", "edits", "respond", "request",
    "upstream", "exchange", "hello", "proxyproto", "preface", "tunnel", "sessions", "datagram", "relay",
    "listener", "engine", "openssl", "contexts", "tls",
]  # fmt: skip

SANITIZE = os.environ.get("TURNOUT_SANITIZE") == "1"
DEBUG = os.environ.get("TURNOUT_DEBUG") == "1" or SANITIZE

cflags = [os.environ.get("TURNOUT_OPTIMIZE", "-O2"), "-fno-strict-aliasing", "-fno-plt"]
cflags += ["-Wno-unused-function", "-Wno-unreachable-code", "-Wno-sign-compare"]
ldflags: list[str] = []
if SANITIZE:
    cflags += [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fno-omit-frame-pointer",
        "-g",
    ]
    ldflags += ["-fsanitize=address,undefined"]

if not Path("src/turnout/ext").is_dir():
    raise SystemExit(
        "src/turnout/ext is not a folder: this copy lost its symbolic links (GitHub's zip does that). "
        "Use git, the tar.gz, the sdist or the wheel."
    )

extensions = [
    Extension(
        f"turnout.ext.{name}",
        [f"src/turnout/ext/{name}.pyx"],
        extra_compile_args=cflags,
        extra_link_args=ldflags,
        define_macros=[("TURNOUT_DEBUG", "1" if DEBUG else "0")],
    )
    for name in MODULES
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
