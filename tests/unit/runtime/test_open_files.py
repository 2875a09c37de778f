"""The agent may open many files, its jobs as many as usual."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from meshcron.model import Launch, Limits
from meshcron.runtime.launch import Planner, RunAsPolicy, Tools, User
from meshcron.runtime.open_files import lowering, raise_limit, share
from meshcron.runtime.trampoline import PLAIN

INFINITE = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits of a machine; the last one holds."""
    held: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: held[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: held.append(pair))
    return held


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, 524_288), (5000, 524_288)),
        ((1024, 4096), (4096, 4096)),
        ((1024, INFINITE), (5000, INFINITE)),
        ((8000, 8000), (8000, 8000)),
        ((INFINITE, INFINITE), (INFINITE, INFINITE)),
    ],
)
def test_raised_as_far_as_it_may(
    limits: list[tuple[int, int]], before: tuple[int, int], after: tuple[int, int]
) -> None:
    """Up to what is wanted or to the hard limit, never down; the answer is what it was."""
    limits.append(before)
    assert raise_limit(5000) == before[0]
    assert limits[-1] == after


@pytest.mark.parametrize(("free", "part"), [(40, 10), (1000, 250), (60_000, 2000), (3, 1), (-1, 1)])
def test_a_share_of_what_is_free(limits: list[tuple[int, int]], free: int, part: int) -> None:
    """A quarter, but never nothing and never more than is wanted."""
    limits.append((len(os.listdir("/proc/self/fd")) + free, INFINITE))  # noqa: PTH208 - names only, no paths
    assert share(4, 2000) == part


def test_of_no_limit_it_is_all_that_is_wanted(limits: list[tuple[int, int]]) -> None:
    """-1 is no number of files."""
    limits.append((INFINITE, INFINITE))
    assert share(4, 2000) == 2000


def test_a_jobs_shell_gets_the_old_limit() -> None:
    """The words do it in a real shell, and leave the hard limit as it is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(
        ["/bin/sh", "-c", lowering(100) + "ulimit -S -n; ulimit -H -n"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["100", "unlimited" if hard == INFINITE else str(hard)]
    assert done.stderr == ""


def test_an_unlimited_one_is_a_word_of_the_shell() -> None:
    """-1 is no number to a shell."""
    assert lowering(INFINITE) == "ulimit -S -n unlimited; "


def test_the_trampoline_lowers_it_first() -> None:
    """Before it becomes the job; an agent that has raised nothing adds nothing."""
    launch = Launch(
        execution_id="a", command="date", shell=True, env={}, cwd="/", run_as_user="", payload="", nice=0,
        limits=Limits(),
    )  # fmt: skip
    user, tools = User("alice", 1000, 1000, "/home/alice"), Tools("", "", "")
    assert Planner(RunAsPolicy(), user, tools, 1024).plan(launch, "/f/a").argv[2] == "ulimit -S -n 1024; " + PLAIN
    assert Planner(RunAsPolicy(), user, tools).plan(launch, "/f/a").argv[2] == PLAIN


@pytest.mark.parametrize("closed", ["", ">&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_becomes_standard_output(closed: str) -> None:
    """The next one that is opened has a number of its own, whichever of the three were closed."""
    script = (
        "import os; from meshcron.runtime.open_files import fill_standard; fill_standard(); fill_standard(); "
        "os._exit(os.open('/dev/null', os.O_RDONLY))"
    )
    done = subprocess.run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script], check=False)
    assert done.returncode == 3
