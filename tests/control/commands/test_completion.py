"""What a shell is offered."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
eval "$(_TURNOUT_COMPLETE=source_bash turnout)"
COMP_WORDS=({words}); COMP_CWORD={at}
_turnout_completion turnout
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def offered(served, monkeypatch, tmp_path):
    """What bash offers behind words, as bash has taken them apart."""
    program = tmp_path / "turnout"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m turnout "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TURNOUT_API", served.url)

    def ask(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in ("turnout", *words))
        script = SCRIPT.format(words=quoted, at=len(words))
        done = subprocess.run(
            ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    return ask


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (("dr",), ["drain"]),
        (("split", ""), ["app", "plain"]),
        (("split", "app", ""), ["v1=", "v2="]),
        (("split", "app", "v1", "=", "3", ""), ["v2="]),
        (("drain", "pl"), ["plain/10.0.0.3:80"]),
        (("drain", "10.0.0.3"), ["10.0.0.3:80"]),
        (("drain", "app/10.0.0.1", ":", ""), ["80"]),
        (("drain", "app/10.0.0.1", ":", "8"), ["80"]),
        (("drain", "app/unix", ":"), ["/run/app.sock"]),
        (("token", "rev"), ["revoke"]),
        (("top", "--sort", "p"), ["p50", "p99"]),
    ],
)
def test_bash_is_offered_commands_and_names_of_the_running_proxy(offered, words, offers):
    assert offered(*words) == offers


def test_nothing_is_offered_and_nothing_is_said_when_no_proxy_runs(offered, served):
    served.stop()

    assert offered("drain", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(turnout, monkeypatch, shell):
    monkeypatch.setenv("_TURNOUT_COMPLETE", f"source_{shell}")
    code, out, _ = turnout()

    assert (code, "_TURNOUT_COMPLETE" in out) == (0, True)
