"""scripts/quickstart, scripts/cluster and scripts/demo-failover with real agents, in a copy of scripts/."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.agent.real_agent import ROOT

pytestmark = pytest.mark.slow

SCRIPT_SECONDS = 120.0
"""The slowest takes 40 s on a machine with nothing else to do."""

FAR_AHEAD = 4_000_000_000
"""A stamp of the year 2096: the environment that runs the tests is up to date."""

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Calls a script of the copy; ends what it left behind."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/checker.py", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, words in {"python": "", "meshcron": "-m meshcron "}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {words}"$@"\n')
        program.chmod(0o755)
    stamp = tmp_path / ".venv/.meshcron-test"
    stamp.touch()
    os.utime(stamp, (FAR_AHEAD, FAR_AHEAD))

    def call(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if key != "VENV" and not key.startswith("MESHCRON_")}
        return subprocess.run(
            [tmp_path / "scripts" / name, *words],
            env=clean,
            capture_output=True,
            text=True,
            timeout=SCRIPT_SECONDS,
            check=False,
        )

    yield call
    for folder in (".meshcron", ".meshcron/cluster", ".meshcron/demo"):
        if (tmp_path / folder).exists():
            assert call("cluster", "--dir", str(tmp_path / folder), "stop").returncode == 0


def pids(folder: Path) -> dict[str, int]:
    """Of the agents of a cluster, by name."""
    return {file.parent.name: json.loads(file.read_text())["pid"] for file in folder.glob("*/agent.json")}


def test_quickstart(script: Script, tmp_path: Path) -> None:
    """Three agents, one cluster, both jobs run where they should; a second call finds them; the scripts find the first
    of them; `stop` ends all three."""
    first = script("quickstart")
    assert first.returncode == 0, first
    assert "one two three are one cluster" in first.stdout
    assert "hello from meshcron" in first.stdout
    agents = pids(tmp_path / ".meshcron")
    assert agents.keys() == {"one", "two", "three"}
    url = json.loads((tmp_path / ".meshcron/one/agent.json").read_text())["url"]
    assert f"{url}/v1/" in first.stdout
    again = script("quickstart")
    assert again.returncode == 0, again
    assert pids(tmp_path / ".meshcron") == agents
    ran = {one["node_name"] for one in json.loads(script("executions", "web").stdout) if one["status"] == "success"}
    assert ran == {"one", "two"}
    assert script("smoke-test").returncode == 0
    assert script("quickstart", "stop").returncode == 0
    assert not pids(tmp_path / ".meshcron")


def test_cluster(script: Script, tmp_path: Path) -> None:
    """start, status, kill-leader, start again, stop: each says what is."""
    assert script("cluster", "status").returncode == 1
    started = script("cluster", "start", "3")
    assert started.returncode == 0, started
    folder = tmp_path / ".meshcron/cluster"
    agents = pids(folder)
    told = script("cluster", "status").stdout
    assert (told.count("voter"), told.count("leader")) == (2, 1)
    killed = script("cluster", "kill-leader").stdout.strip()
    assert f"{killed} leads" in started.stdout
    assert script("cluster", "start", "3").returncode == 0
    assert {name for name, pid in pids(folder).items() if pid != agents[name]} == {killed}
    assert script("cluster", "stop").stdout == "stopped\n"
    assert script("cluster", "stop").stdout == "none of them is running\n"


def test_demo_failover(script: Script, tmp_path: Path) -> None:
    """It ends with the checker's line, and ends what it started. Whether this machine is quick enough today is not the
    question here."""
    done = script("demo-failover")
    last = done.stdout.splitlines()[-1]
    late = re.fullmatch(r"missing 0 doubled 0 late>200ms (\d+)", last)
    assert late, done
    assert done.returncode == (0 if late[1] == "0" else 1)
    assert pids(tmp_path / ".meshcron/demo").keys() <= {done.stdout.partition("killed the leader, ")[2].split(",")[0]}
