"""The command line as a person uses it: processes of its own, against a real agent on 127.0.0.1."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 20.0
"""An agent answers within 1 s; the machine of a test may be busy."""

ROOT = Path(__file__).parents[3]

Cli = Callable[..., subprocess.CompletedProcess[str]]


def environment(folder: Path) -> dict[str, str]:
    """Ours without anything that says where another agent is."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MESHCRON_")}
    return clean | {"MESHCRON_DATA_DIR": str(folder), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent")


@pytest.fixture(scope="module")
def cli(folder: Path) -> Cli:
    """`cli("ls")`: the command in a process of its own; it finds the agent by the data directory alone."""

    def run(*args: str, seconds: float = 30.0, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meshcron", *args],
            env=environment(folder) | env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    return run


@pytest.fixture(scope="module", autouse=True)
def agent(folder: Path, cli: Cli) -> Iterator[subprocess.Popen[bytes]]:
    """One agent for all stories; it ends gracefully when asked to."""
    flags = ["--name", "one", "--bind", "127.0.0.1", "--http", "127.0.0.1:0", "--no-mdns"]
    ports = ["--gate-port", "0", "--mesh-port", "0", "--pub-port", "0"]
    log = folder.with_suffix(".log")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "meshcron", "up", *flags, *ports],
            env=environment(folder), stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until_ready(process, folder, cli, log)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], folder: Path, cli: Cli, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if (folder / "agent.json").exists():
            page = cli("status", "--json")
            if page.returncode == 0 and json.loads(page.stdout)["ready"]:
                return
        time.sleep(0.1)
    raise AssertionError(f"the agent was not ready within {START_SECONDS} s: {log.read_text()}")


def wait_for(condition: Callable[[], Any]) -> Any:
    """What the condition answers, as soon as that is true."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that in time")


def data(answer: subprocess.CompletedProcess[str]) -> Any:
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def add(cli: Cli, name: str, *options: str, command: str, schedule: str = "@manually") -> None:
    answer = cli("add", name, schedule, *options, "--", command)
    assert answer.returncode == 0, answer.stderr


def test_a_first_job(cli: Cli) -> None:
    """Nothing there, add one, see it, see it run by itself, look at what it wrote."""
    assert cli("ls").stderr.startswith("no jobs yet: meshcron add")
    added = cli("add", "hello", "@every 1s", "--", "echo", "hello", "world")
    assert added.returncode == 0, added.stderr
    assert 'added "hello" on every agent' in added.stdout
    assert "hello" in cli("ls").stdout
    wait_for(lambda: data(cli("show", "hello", "--json"))["success_count"])
    assert cli("output", "hello", "--follow").stdout == "hello world\n"  # the last one may just be running
    assert data(cli("history", "hello", "--json"))[0]["node_name"] == "one"
    assert len(data(cli("next", "hello", "-n", "3", "--json"))) == 3
    assert cli("disable", "hello").stdout.startswith('"hello" is disabled')
    assert cli("rm", "hello").returncode == 0
    assert cli("show", "hello").returncode == 3


@pytest.mark.parametrize(
    ("name", "options", "command", "code"),
    [
        ("ok", [], "true", 0),
        ("seven", [], "exit 7", 7),
        ("once", ["--ephemeral"], "true", 0),
        ("stays", ["--ephemeral"], "exit 3", 3),
        ("allowed", ["--success-code", "3"], "exit 3", 0),
        ("slow", ["--timeout", "1s"], "sleep 30", 124),
        ("crash", [], "kill -SEGV $$", 139),
        ("retried", ["--retries", "1"], 'test "$MESHCRON_ATTEMPT" = 2', 0),
        ("exhausted", ["--retries", "1"], "exit 4", 4),
        ("unstartable", ["--retries", "1", "--cwd", "/nonexistent"], "true", 1),
        ("nowhere", ["--tag", "role=nobody"], "true", 1),
    ],
)
def test_run_wait_ends_as_the_job(cli: Cli, name: str, options: list[str], command: str, code: int) -> None:
    """Each way a job may end, and what the shell gets."""
    add(cli, name, *options, command=command)
    ended = cli("run", name, "--wait")
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


def test_run_wait_outlives_an_attempt_that_never_started(cli: Cli) -> None:
    """It has no time of an end; the second one is waited for all the same."""
    add(cli, "unready", "--retries", "1", "--retry-delay", "1s", "--cwd", "/nonexistent", command="true")
    ended = cli("run", "unready", "--wait", "--json")
    assert [each["attempt"] for each in data(cli("history", "unready", "--json"))] == [2, 1]
    assert [each["attempt"] for each in json.loads(ended.stdout)] == [2]


def test_run_wait_of_a_disabled_job_waits_for_no_retry(cli: Cli) -> None:
    """A disabled job is owed none: the command ends with the first attempt."""
    add(cli, "asleep", "--retries", "1", "--retry-delay", "1h", "--disabled", command="exit 5")
    assert cli("run", "asleep", "--wait").returncode == 5


def test_run_wait_prints_while_it_runs(cli: Cli, folder: Path) -> None:
    """The first line is there long before the job ends; parameters reach it."""
    add(cli, "stream", command='echo "$GREETING"; while ! test -e "$GO"; do sleep 0.05; done; echo done')
    go = folder / "go"
    command = [sys.executable, "-m", "meshcron", "run", "stream", "--wait", "--env", "GREETING=hi", "--env", f"GO={go}"]
    with subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hi\n"
        go.touch()
        assert process.stdout.readline() == "done\n"
        assert process.wait(START_SECONDS) == 0


def test_output_follow_ends_with_the_job(cli: Cli) -> None:
    """A running execution is followed to its end."""
    add(cli, "follow", command="echo a; sleep 0.5; echo b")
    assert cli("run", "follow").returncode == 0
    wait_for(lambda: data(cli("history", "follow", "--json")))
    assert cli("output", "follow", "--follow").stdout == "a\nb\n"


def test_kill_ends_what_runs(cli: Cli) -> None:
    """A long job is running; kill ends it; nothing is left to kill."""
    add(cli, "long", command="sleep 60")
    assert cli("run", "long").returncode == 0
    wait_for(lambda: [each for each in data(cli("history", "long", "--json")) if each["status"] == "running"])
    assert cli("kill", "long").returncode == 0
    wait_for(lambda: data(cli("history", "long", "--json"))[0]["status"] == "killed")
    assert cli("kill", "long").returncode == 3
    ended = cli("kill", "long", data(cli("history", "long", "--json"))[0]["id"])
    assert (ended.returncode, " has ended; " in ended.stderr) == (3, True), ended


def test_kill_ends_a_run_between_two_attempts(cli: Cli) -> None:
    """Nothing of it runs; the attempt that waits is given up, with a record."""
    add(cli, "twice", "--retries", "1", "--retry-delay", "1h", command="false")
    assert cli("run", "twice").returncode == 0
    wait_for(lambda: [each for each in data(cli("history", "twice", "--json")) if each["status"] == "failed"])
    killed = cli("kill", "twice")
    assert (killed.returncode, killed.stdout.endswith(", which waited\n")) == (0, True), killed
    assert [each["status"] for each in data(cli("history", "twice", "--json"))] == ["skipped", "failed"]
    assert cli("kill", "twice").returncode == 3


def test_kill_ends_a_run_that_waits_in_the_queue(cli: Cli) -> None:
    """Of two runs the second waits for the first: neither runs on, and the second does not start."""
    add(cli, "busy", "--concurrency", "queue", command="sleep 60")
    assert cli("run", "busy").returncode == cli("run", "busy").returncode == 0
    assert len(data(cli("kill", "busy", "--json"))) == 2
    wait_for(lambda: {each["status"] for each in data(cli("history", "busy", "--json"))} == {"killed", "skipped"})
    assert cli("kill", "busy").returncode == 3


def test_nothing_is_overwritten_by_accident(cli: Cli) -> None:
    """The second add is refused, --replace is not, and a wrong schedule changes nothing."""
    add(cli, "once", command="true")
    again = cli("add", "once", "@daily", "--", "false")
    assert again.returncode == 2
    assert "--replace" in again.stderr
    assert cli("add", "once", "61 * * * *", "--replace", "--", "false").returncode == 2
    assert data(cli("show", "once", "--json"))["command"] == "true"
    assert cli("add", "once", "@daily", "--replace", "--", "false").returncode == 0
    assert data(cli("show", "once", "--json"))["command"] == "false"


def test_every_field_of_add_is_understood(cli: Cli) -> None:
    """The agent takes each option and shows it again."""
    add(
        cli, "full", "--tag", "role=web:2", "--tz", "Europe/Berlin", "--concurrency", "forbid", "--timeout", "10m",
        "--retries", "2", "--retry-delay", "5s", "--retry-backoff", "1.5", "--retry-on", "other", "--user", "nobody",
        "--env", "A=1", "--cwd", "/tmp", "--catch-up", "all", "--start-deadline", "2h", "--on-lost", "rerun",
        "--owner", "Ann", "--owner-email", "ann@example.org", "--display-name", "Full", "--meta", "team=ops",
        "--when", "always", "--success-code", "3", "--nice", "5", "--starts-at", "2030-01-01T00:00:00Z",
        "--expires-at", "2031-01-01T00:00:00Z", "--ephemeral", "--disabled", "--no-shell",
        command="true", schedule="0 3 * * *",
    )  # fmt: skip
    job = data(cli("show", "full", "--json"))
    expected = {
        "tags": {"role": "web:2"}, "timezone": "Europe/Berlin", "concurrency": "forbid", "timeout": "10m0s",
        "retries": 2, "retry_delay": "5s", "retry_backoff": 1.5, "retry_on": "other", "run_as_user": "nobody",
        "env": {"A": "1"}, "cwd": "/tmp", "catch_up": "all", "start_deadline": "2h0m0s", "on_lost": "rerun",
        "owner": "Ann", "owner_email": "ann@example.org", "displayname": "Full", "metadata": {"team": "ops"},
        "when": "always", "success_exit_codes": [3], "nice": 5, "starts_at": "2030-01-01T00:00:00Z",
        "expires_at": "2031-01-01T00:00:00Z", "ephemeral": True, "disabled": True, "shell": False,
    }  # fmt: skip
    assert {key: job[key] for key in expected} == expected
    assert cli("show", "full").returncode == 0


def test_a_token_may_what_its_role_says(cli: Cli) -> None:
    """A viewer looks and no more; a removed token is refused."""
    add(cli, "guarded", command="true")
    secret = cli("token", "add", "looker").stdout.strip()
    assert cli("ls", MESHCRON_TOKEN=secret).returncode == 0
    assert cli("rm", "guarded", MESHCRON_TOKEN=secret).returncode == 5
    assert cli("token", "rm", "looker").returncode == 0
    assert cli("ls", MESHCRON_TOKEN=secret).returncode == 5
    assert cli("show", "guarded").returncode == 0


def test_the_cluster_shows_itself(cli: Cli, folder: Path) -> None:
    """Status, members and key agree about who we are."""
    page = data(cli("status", "--json"))
    assert page["agent"]["name"] == "one"
    assert [member["Name"] for member in data(cli("members", "--json"))] == ["one"]
    assert data(cli("key", "show", "--json"))["fingerprint"] == page["mesh"]["fingerprint"]
    host = json.loads((folder / "agent.json").read_text())["url"].split("/")[2].split(":")[0]
    assert cli("token", "netrc").stdout.startswith(f"machine {host} login ")
    for command in (["status"], ["members"], ["history"], ["ls"], ["token", "list"]):
        assert cli(*command).returncode == 0


def test_one_writes_out_a_tag_that_selects(cli: Cli) -> None:
    """`--one` names a tag that the agent really has: the job runs."""
    add(cli, "single", "--one", command="true")
    assert cli("run", "single", "--wait").returncode == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_jobs_are_saved_and_loaded_again(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """As docs/CLI.md says it, twice; a child's name comes before its parents', here of two generations."""
    more = ("--env", "B=x, y", "--tz", "Europe/Berlin", "--timeout", "5m", "--disabled", "--tag", "role=web:1")
    add(cli, "saved-c", *more, command="echo '$A \\ ü'", schedule="0 3 * * *")
    add(cli, "saved-b", "--parent", "saved-c", "--when", "always", command="true")
    add(cli, "saved-a", "--parent", "saved-b", command="true")
    names = ("saved-a", "saved-b", "saved-c")
    saved = cli("ls", "saved-", "--json").stdout
    (tmp_path / "jobs.json").write_text(saved, encoding="utf-8")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    assert cli("rm", *names).returncode == 0
    assert cli("ls", "saved-", "--json").stdout == "[]\n"
    [block] = re.findall(r"```bash\n(python3 .*?)```", (ROOT / "docs/CLI.md").read_text(encoding="utf-8"), re.DOTALL)
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", block], cwd=tmp_path, env=environment(folder), capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("", "")
        assert cli("ls", "saved-", "--json").stdout == saved
    assert cli("rm", *names).returncode == 0


def test_no_agent(cli: Cli, tmp_path: Path) -> None:
    """A data directory without an agent: code 4, one line, the next step."""
    (tmp_path / "agent.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1}')
    answer = cli("ls", MESHCRON_DATA_DIR=str(tmp_path))
    assert answer.returncode == 4
    assert answer.stderr == 'meshcron: no agent answers at http://127.0.0.1:1; start one with "meshcron up"\n'


def test_a_second_agent_on_the_same_folder_is_refused(cli: Cli) -> None:
    """Two agents never share a data directory: code 1 and a line, no traceback."""
    answer = cli("up", "--no-mdns", "--http", "127.0.0.1:0", "--gate-port", "0", "--mesh-port", "0", "--pub-port", "0")
    assert answer.returncode == 1
    assert answer.stderr.strip().splitlines()[-1].startswith("meshcron: ")
    assert "Traceback" not in answer.stderr
