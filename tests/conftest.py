import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # tests share `fakes` and `harness`

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background that way, and the programs under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("turnout", deadline=None)  # no assertion on wall time
settings.load_profile("turnout")

SANITIZED = os.environ.get("TURNOUT_SANITIZED") == "1"


def pytest_report_header() -> str:
    from turnout.ext import engine  # noqa: PLC0415 (where it is from is the point)

    if SANITIZED and "sanitize" not in Path(engine.__file__).parts:
        raise pytest.UsageError(f"asked for the sanitized build, got {engine.__file__}")
    return f"turnout.ext: {Path(engine.__file__).parent}{', sanitized' if SANITIZED else ''}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """CI has everything that the tests need: there a skip is a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped in CI: {report.longrepr}"
    return report
