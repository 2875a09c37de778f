"""Real agents in processes of their own, on loopback with free ports; they end with the block that started them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from failed import Failed

START_SECONDS = 60.0
STOP_SECONDS = 30.0
CALL_SECONDS = 30.0
POLL_SECONDS = 0.02
OPEN = ("armed", "running")
ROOT = Path(__file__).parents[2]


def environment(bytecode: Path) -> dict[str, str]:
    """Ours without what configures an agent, and with bytecode kept: an installed agent has it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MESHCRON_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(bytecode)}


class Agent:
    """`meshcron up` on one data directory."""

    def __init__(self, name: str, folder: Path, bytecode: Path, *flags: str) -> None:
        self.name = name
        self.folder = folder
        self._bytecode = bytecode
        self._flags = flags
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.token = ""

    def start(self) -> None:
        """Start; returns when it says it is ready. Raises Failed with its log when it ends instead."""
        flags = ["--name", self.name, "--data-dir", str(self.folder), "--http", "127.0.0.1:0", *self._flags]
        flags += ["--bind", "127.0.0.1", "--no-mdns", "--gate-port", "0", "--mesh-port", "0", "--pub-port", "0"]
        log = self.folder.with_suffix(".log")
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "meshcron", "up", *flags],
                env=environment(self._bytecode),
                cwd=self.folder.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise Failed(f"{self.name} did not start:\n{log.read_text()}")
        self.url = json.loads((self.folder / "agent.json").read_text())["url"]
        self.token = (self.folder / "local.token").read_text().strip()

    def stop(self) -> None:
        """TERM, and KILL where that is not enough. The processes of jobs run on; ours are short."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request with the local token, and its JSON. Raises Failed where it is refused or nobody answers."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
                return json.loads(answer.read())
        except HTTPError as refused:
            raise Failed(f"{method} {path}: {refused.code} {refused.read().decode(errors='replace')}") from refused
        except OSError as error:
            raise Failed(f"{method} {path}: {error}") from error

    def settled(self) -> bool:
        """Whether every execution has its final record, also on disk: that follows what the core knows by a commit."""
        if self.call("GET", "/v1/")["mesh"]["open_executions"]:
            return False
        return not any(self.call("GET", f"/v1/history?status={status}&_start=0&_end=1") for status in OPEN)

    def history(self, query: str) -> Iterator[dict[str, Any]]:
        """Records of all jobs, newest tick first, page by page."""
        start, page = 0, 1000
        while some := self.call("GET", f"/v1/history?_start={start}&_end={start + page}&{query}"):
            yield from some
            start += page


class Cluster:
    """The agents of a column. Load goes to `entrance`, what only a leader knows is asked of it, too."""

    def __init__(self, agents: list[Agent]) -> None:
        self.agents = agents

    @property
    def entrance(self) -> Agent:
        return self.agents[0]


@contextmanager
def running(folder: Path, count: int, bytecode: Path, *flags: str) -> Iterator[Cluster]:
    """Agents below `folder` (data directories of an earlier call are taken up again), stopped at the end. Compiled
    modules are kept in `bytecode`."""
    if count != 1:
        raise Failed("agents of this version do not find each other yet: one agent is all there is to measure")
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"agent{number}" for number in range(1, count + 1)]
    cluster = Cluster([Agent(name, folder / name, bytecode, *flags) for name in names])
    try:
        for agent in cluster.agents:
            agent.start()
        yield cluster
    finally:
        for agent in cluster.agents:
            agent.stop()


def wait_until(what: str, condition: Any, seconds: float) -> None:
    """Looks again and again. Raises Failed with `what` when it stays false for too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:g} s in vain: {what}")
        time.sleep(POLL_SECONDS)
