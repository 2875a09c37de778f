"""`meshcron up` in a process of its own, which a test may kill, start again, and see refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tests.unit.api.api_client import Client

ROOT = Path(__file__).parents[3]

READY_SECONDS = 20.0
"""An agent answers within 1 s; the machine of a test may be busy."""

LOOPBACK = (
    *("--name", "one", "--http", "127.0.0.1:0", "--bind", "127.0.0.1", "--no-mdns"),
    *("--gate-port", "0", "--mesh-port", "0", "--pub-port", "0"),
)
"""Nothing leaves the machine, and no port meets another test's."""

PAGE = 5000
"""Records in one answer."""

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found | None], what: str = "", seconds: float = READY_SECONDS) -> Found:
    """The first true value of a condition. Fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what or condition}"
        time.sleep(0.02)
    return found


def until_there(file: Path) -> str:
    """A shell's loop that ends once a file is there, and after a minute for a test that failed."""
    return f"n=0; while ! test -e {file} && test $n -lt 3000; do n=$((n + 1)); sleep 0.02; done"


def environment(**more: str) -> dict[str, str]:
    """Ours without anything that is meant for another agent."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MESHCRON_")}
    return clean | {"PYTHONPATH": str(ROOT)} | more


def meshcron(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """One call of the command line, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "meshcron", *map(str, words)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_SECONDS,
    )


def refusal(folder: Path, *flags: str | Path, **variables: str) -> str:
    """How a start on this data directory is refused: exit code 1 and exactly one line, which this returns."""
    done = meshcron("up", "--data-dir", folder, *LOOPBACK, *flags, **variables)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("meshcron: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")
    assert "defect" not in done.stderr
    return done.stderr.removeprefix("meshcron: ").removesuffix("\n")


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder by its digest; but for `lock`, which says who looked last."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


class RealAgent:
    """An agent on one data directory, with `flags` besides those that keep it on this machine; `before` are words that
    stand before its command."""

    def __init__(self, folder: Path, *flags: str, log: Path | None = None, before: Sequence[str] = ()) -> None:
        self.folder = folder
        self.flags = flags
        self._before = before
        self._log = log or folder.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What it ever said, over all its starts."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return str(json.loads((self.folder / "agent.json").read_text())["url"])

    @property
    def token(self) -> str:
        """The one for programs on its machine, of the role admin."""
        return (self.folder / "local.token").read_text().strip()

    @property
    def client(self) -> Client:
        """Sends whatever a test says, with the token."""
        port = urlsplit(self.url).port
        assert port is not None
        return Client(port, self.token)

    @property
    def record(self) -> dict[str, Any]:
        """What it wrote down of itself."""
        found: dict[str, Any] = json.loads((self.folder / "agent.json").read_text())
        return found

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """Used since its start, user and system."""
        assert self.process is not None
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def start(self, *flags: str, **variables: str) -> None:
        """Start it and wait until it answers."""
        (self.folder / "agent.json").unlink(missing_ok=True)
        words = ["up", "--data-dir", str(self.folder), *LOOPBACK, *self.flags, *flags]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._before, sys.executable, "-m", "meshcron", *words],
                env=environment(**variables),
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: not self.running or (self.folder / "agent.json").exists(), "the agent's start")
        assert self.running, self.log

    def kill(self) -> None:
        """As a power cut would: kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """TERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(READY_SECONDS)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request that succeeds."""
        answer = self.client(method, path, body)
        assert answer.status in {200, 201}, answer
        return answer.json

    def add(self, name: str, command: str = "true", schedule: str = "@manually", **more: object) -> Any:
        """Store a job. A 201 is a promise: it is durable."""
        return self.call("POST", "/v1/jobs", {"name": name, "schedule": schedule, "command": command, **more})

    def jobs(self) -> list[str]:
        """The names of all jobs."""
        return [job["name"] for job in self.call("GET", "/v1/jobs")]

    def executions(self, name: str) -> list[dict[str, Any]]:
        """What is recorded of a job, oldest first."""
        found: list[dict[str, Any]] = []
        while len(found) % PAGE == 0:
            where = f"/v1/executions/{name}?_start={len(found)}&_end={len(found) + PAGE}"
            more: list[dict[str, Any]] = self.call("GET", where)
            if not more:
                break
            found += more
        return found
