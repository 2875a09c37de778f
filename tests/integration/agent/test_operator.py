"""What an operator does with one agent: reloads it, moves its folder, starts it for the first time, fills its slots."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.real_agent import LOOPBACK, READY_SECONDS, RealAgent, environment, refusal, wait_for


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[RealAgent]:
    """An agent that was never started yet, configured by a file; it does not outlive the test."""
    file = tmp_path / "meshcron.toml"
    file.touch()
    agent = RealAgent(tmp_path / "data", "--config", str(file))
    yield agent
    if agent.running:
        agent.stop()


def configure(agent: RealAgent, text: str) -> None:
    agent.folder.with_name("meshcron.toml").write_text(text)


def hang_up(agent: RealAgent, line: str) -> None:
    """HUP, and wait for the one line that the log says to it."""
    before = len(agent.log)
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: line in agent.log[before:], line)
    assert agent.log[before:].count("\n") == 1


def run(agent: RealAgent, name: str) -> dict[str, Any]:
    """Run a job to its end; what is recorded of that."""
    agent.call("POST", f"/v1/jobs/{name}/run?wait=15")
    return agent.executions(name)[-1]


def test_hup_reads_the_tags_again(stopped: RealAgent) -> None:
    """New tags count for the next run; a wrong file is refused in one line, and all stays as it was."""
    agent = stopped
    configure(agent, 'tag = ["role=web"]\n')
    agent.start()
    agent.add("on-db", tags={"role": "db"})
    assert run(agent, "on-db")["status"] == "skipped"
    configure(agent, 'tag = ["role=db"]\nslots = 7\n')
    hang_up(agent, "need_a_restart=slots")
    assert agent.call("GET", "/v1/members")[0]["Tags"] == agent.call("GET", "/v1/")["tags"] == {"role": "db"}
    assert run(agent, "on-db")["status"] == "success"
    for wrong in ("tag = [", 'tag = ["role"]', "tga = []"):
        configure(agent, wrong)
        hang_up(agent, "the configuration is wrong, the old one holds")
    assert run(agent, "on-db")["status"] == "success"


def catches_hup(process: subprocess.Popen[bytes]) -> bool:
    """Whether a handler of HUP is in place: its bit in the process's status."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGHUP - 1))


def test_hup_while_it_starts_is_obeyed_once_it_can_be(stopped: RealAgent) -> None:
    """A reload in the first moment of a start, as a script may send it: the agent lives, and reads again."""
    configure(stopped, "")
    words = ["up", "--data-dir", str(stopped.folder), *LOOPBACK, *stopped.flags]
    with stopped.folder.with_suffix(".log").open("wb") as log:
        process = stopped.process = subprocess.Popen(
            [sys.executable, "-m", "meshcron", *words], env=environment(), stdout=log, stderr=log
        )
    wait_for(lambda: catches_hup(process), "its handler")
    assert not stopped.folder.exists()
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: not stopped.running or "the configuration was read again" in stopped.log, "it reads again")
    wait_for(lambda: not stopped.running or (stopped.folder / "agent.json").exists(), "the agent's start")
    assert stopped.running


def test_a_copied_folder_goes_on_as_somebody_else(stopped: RealAgent) -> None:
    """Refused, with the flag that helps; with it everything is there, under a new node id, once and for all."""
    stopped.start()
    stopped.add("kept", "echo hello")
    assert run(stopped, "kept")["output"] == "hello\n"
    [old] = stopped.call("GET", "/v1/members")
    stopped.stop()
    copy = RealAgent(stopped.folder.with_name("copy"))
    shutil.copytree(stopped.folder, copy.folder)
    assert "--adopt-data-dir" in refusal(copy.folder)
    copy.start("--adopt-data-dir")
    try:
        [new] = copy.call("GET", "/v1/members")
        assert new["id"] != old["id"]
        assert old["id"] in (copy.folder / "node.json.old-1").read_text()
        assert copy.executions("kept")[-1]["output"] == "hello\n"
        assert run(copy, "kept")["status"] == "success"
        assert copy.stop() == 0
        copy.start()
        assert [member["id"] for member in copy.call("GET", "/v1/members")] == [new["id"]]
        assert [one["status"] for one in copy.executions("kept")] == ["success", "success"]
        assert not (copy.folder / "recovered").exists()
    finally:
        copy.stop()


def launch(agent: RealAgent, *before: str, stdout: int | None = None) -> None:
    """Start it by words that stand before its own, or with its output somewhere else."""
    words = [*before, sys.executable, "-m", "meshcron", "up", "--data-dir", str(agent.folder), *LOOPBACK, *agent.flags]
    with agent.folder.with_suffix(".log").open("ab") as log:
        agent.process = subprocess.Popen(words, env=environment(), stdout=stdout or log, stderr=log)
    wait_for(lambda: not agent.running or (agent.folder / "agent.json").exists(), "the agent's start")
    assert agent.running, agent.log


def on_a_terminal(agent: RealAgent) -> str:
    """What one start prints to the person at a terminal."""
    ours, theirs = pty.openpty()
    try:
        launch(agent, stdout=theirs)
        agent.stop()
        return os.read(ours, 10_000).decode()
    finally:
        os.close(theirs)
        os.close(ours)


def test_a_first_start_says_how_to_go_on(stopped: RealAgent) -> None:
    """At a terminal the line for the next machine, with the key, this once."""
    said = on_a_terminal(stopped)
    key = (stopped.folder / "cluster.key").read_text().strip()
    assert f"on another machine: MESHCRON_KEY={key} meshcron up" in said
    assert "another machine" not in on_a_terminal(stopped)
    assert "mk1-" not in stopped.log


@pytest.mark.parametrize(
    "output", [">/dev/full", "| true", ">&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"]
)
def test_it_starts_also_where_nobody_hears_that(stopped: RealAgent, output: str) -> None:
    """The disk under its output is full, the reader has gone, or it has no output: the agent starts, and runs jobs."""
    launch(stopped, "/bin/sh", "-c", f'"$@" {output}', "sh")
    stopped.add("greets", "echo hello")
    assert run(stopped, "greets")["output"] == "hello\n"
    os.kill(stopped.record["pid"], signal.SIGTERM)
    assert stopped.process is not None
    stopped.process.wait(READY_SECONDS)


def test_no_file_gets_the_key(stopped: RealAgent) -> None:
    """Where the output is kept, as a service's is, the line names the command that prints the key."""
    stopped.start()
    assert f"meshcron key show --secret --data-dir {stopped.folder}" in stopped.log
    assert (stopped.folder / "cluster.key").read_text().strip() not in stopped.log


def test_what_finds_no_slot_waits_and_says_so(stopped: RealAgent) -> None:
    """It is shown as waiting, with the reason, until its turn comes; a job that only waits does not run."""
    agent, go = stopped, stopped.folder.with_name("go")
    agent.start("--slots", "1")
    agent.add("long", f"until [ -e {go} ]; do sleep 0.05; done")
    agent.add("short")
    for name in ("long", "short"):
        agent.call("POST", f"/v1/jobs/{name}/run")
    (waits,) = wait_for(lambda: agent.call("GET", "/v1/history?status=waiting"), "it waits")
    assert (waits["job_name"], waits["status"]) == ("short", "waiting")
    assert waits["reason"] == "all 1 slots of one are in use"
    assert [agent.call("GET", f"/v1/jobs/{name}")["status"] for name in ("long", "short")] == ["running", ""]
    go.touch()
    wait_for(lambda: agent.executions("short")[-1]["status"] == "success", "its turn")
    assert agent.executions("short")[-1]["reason"] == ""


def test_jobs_may_open_as_many_files_as_usual(stopped: RealAgent) -> None:
    """The agent raises its own limit; a job has the one that the agent was started with."""
    launch(stopped, "/bin/sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh")
    assert stopped.process is not None
    limits = Path(f"/proc/{stopped.process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) > 200
    stopped.add("limit", "ulimit -S -n")
    assert run(stopped, "limit")["output"] == "200\n"


def test_a_log_that_is_full_ends_nothing(stopped: RealAgent) -> None:
    """Its disk is full, its terminal was closed: lines are lost, and the agent goes on."""
    with Path("/dev/full").open("wb") as full:
        words = ["up", "--data-dir", str(stopped.folder), *LOOPBACK, *stopped.flags]
        stopped.process = subprocess.Popen(
            [sys.executable, "-m", "meshcron", *words], env=environment(), stdout=subprocess.DEVNULL, stderr=full
        )
    wait_for((stopped.folder / "agent.json").exists, "the agent's start")
    configure(stopped, 'tag = ["role=db"]\n')
    stopped.process.send_signal(signal.SIGHUP)
    wait_for(lambda: stopped.call("GET", "/v1/members")[0]["Tags"] == {"role": "db"}, "the new tags")
    stopped.add("fine")
    assert run(stopped, "fine")["status"] == "success"
    assert stopped.stop() == 0
    assert stopped.process.wait(READY_SECONDS) == 0
