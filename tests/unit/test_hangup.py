"""HUP while an agent starts: noted from the first moment on, by the agent and by no other command."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshcron import hangup

SCRIPT = """
import os, signal, sys, types

signal.signal(signal.SIGHUP, signal.SIG_DFL)

def slow(prog_name):
    os.kill(os.getpid(), signal.SIGHUP)
    print("lives")

sys.modules["meshcron.cli.root"] = types.SimpleNamespace(root=types.SimpleNamespace(main=slow))
from meshcron.cli import main
main()
"""
"""The command line, with a HUP where all else is imported. A HUP is what it is at a terminal, also under nohup."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_one_that_came_is_told_once() -> None:
    """And ends nothing."""
    hangup.hold()
    assert not hangup.held()
    signal.raise_signal(signal.SIGHUP)
    assert hangup.held()
    assert not hangup.held()


@pytest.mark.parametrize(("word", "code"), [("up", 0), ("agent", 0), ("ls", -signal.SIGHUP)])
def test_only_an_agent_outlives_it(word: str, code: int) -> None:
    """Any other command ends with the terminal that it was typed at."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, word], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "lives\n" if code == 0 else ""), done.stderr


def test_what_comes_before_the_first_moment_is_systemds_to_mend() -> None:
    """The interpreter itself takes a while to start: the unit says that an end by HUP is none."""
    unit = Path(__file__).parents[2] / "conf" / "meshcron.service"
    assert "RestartForceExitStatus=SIGHUP" in unit.read_text().splitlines()
