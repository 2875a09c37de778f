"""Real agents in processes of their own, on loopback with free ports; they end with the block that started them."""

from __future__ import annotations

import json
import os
import signal
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

from meshcron.net.keys import SECRET_BYTES, ClusterKey

START_SECONDS = 60.0
STOP_SECONDS = 30.0
CALL_SECONDS = 30.0
POLL_SECONDS = 0.02
OPEN = ("armed", "running")
FORM_SECONDS = 60.0
"""Three agents vote some 12 s after their start, ten of them because a voter has to be heard for so long."""

LOOPBACK = ("--bind", "127.0.0.1", "--gate-port", "0", "--mesh-port", "0", "--pub-port", "0")
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
        self._opener = urllib.request.build_opener()

    def start(self) -> None:
        """Start; returns when it says it is ready. Raises Failed with its log when it ends instead."""
        self.spawn()
        self.wait()

    @property
    def _log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def _address(self) -> Path:
        return self.folder / "agent.json"

    def _words(self) -> list[str]:
        """Its command line."""
        up = [sys.executable, "-m", "meshcron", "up"]
        return [*up, "--name", self.name, "--data-dir", str(self.folder), "--http", "127.0.0.1:0", *self._flags]

    def spawn(self) -> None:
        """Start its process, and do not wait for it."""
        self._address.unlink(missing_ok=True)  # a killed one has left it
        with self._log.open("a") as stderr:
            self._process = subprocess.Popen(
                self._words(),
                env=environment(self._bytecode),
                cwd=self.folder.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def wait(self) -> None:
        """Until it says it is ready. Raises Failed with its log when it ends instead."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise Failed(f"{self.name} did not start:\n{self._log.read_text()}")
        # Written right after that line, and whole at once; soon, since starts are measured.
        wait_until(f"the address of {self.name}", self._address.exists, START_SECONDS, poll_seconds=0.001)
        self.url = json.loads(self._address.read_text())["url"]
        self.token = (self.folder / "local.token").read_text().strip()

    def stop(self) -> None:
        """TERM, and KILL where that is not enough. The processes of jobs run on; ours are short."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    def kill(self) -> None:
        """KILL: no word to anybody."""
        os.kill(self.pid, signal.SIGKILL)
        self._gone()

    def pause(self) -> None:
        """SIGSTOP: every connection stays, nothing moves."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _gone(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.wait()
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
            with self._opener.open(request, timeout=CALL_SECONDS) as answer:
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
    """The agents of a column. Load goes to `entrance`: the leader, once they are one cluster."""

    def __init__(self, agents: list[Agent]) -> None:
        self.agents = agents
        self.entrance = agents[0]

    def start(self) -> None:
        """All of them in one instant; returns when each says it is ready."""
        for agent in self.agents:
            agent.spawn()
        for agent in self.agents:
            agent.wait()

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()

    def others(self, than: Agent) -> list[Agent]:
        return [agent for agent in self.agents if agent is not than]

    def unite(self) -> None:
        """Wait until they are one cluster in which all of them vote, and know its leader."""
        wait_until("one cluster", lambda: self.agree(voters=len(self.agents)), FORM_SECONDS)

    def agree(self, voters: int) -> bool:
        """Whether each agent tells of all as alive, of so many voters or more, and of the same leader."""
        leaders = set()
        for agent in self.agents:
            try:
                members = agent.call("GET", "/v1/members")
            except Failed:
                return False
            alive = [one for one in members if one["statusText"] == "alive"]
            if len(alive) != len(self.agents) or sum(one["voter"] for one in alive) < voters:
                return False
            leaders.add(next((one["Name"] for one in alive if one["leader"]), ""))
        if len(leaders) != 1 or leaders == {""}:
            return False
        self.entrance = next(agent for agent in self.agents if agent.name in leaders)
        return True


def made(folder: Path, count: int, bytecode: Path) -> Cluster:
    """Agents below `folder`, not started; data directories of an earlier call are taken up again. Compiled modules are
    kept in `bytecode`. Several have a key, one tag, and find each other by mDNS on the loopback interface."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = [*LOOPBACK, "--no-mdns"]
    if count > 1:
        flags = [*LOOPBACK, "--mdns-interface", "127.0.0.1", *united(folder)]
    return Cluster([Agent(name, folder / name, bytecode, *flags) for name in names(count)])


def names(count: int) -> list[str]:
    return [f"agent{number}" for number in range(1, count + 1)]


def united(folder: Path) -> list[str]:
    """What several agents have in common: the key in this folder, made where there is none, and a tag."""
    key_file = folder / "cluster.key"
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(ClusterKey(os.urandom(SECRET_BYTES)).text + "\n")
    return ["--key-file", str(key_file), "--tag", "bench=yes"]


@contextmanager
def running(folder: Path, count: int, bytecode: Path) -> Iterator[Cluster]:
    """The same, started, one cluster in which all vote, and stopped at the end."""
    cluster = made(folder, count, bytecode)
    try:
        cluster.start()
        if count > 1:
            cluster.unite()
        yield cluster
    finally:
        cluster.stop()


def wait_until(what: str, condition: Any, seconds: float, poll_seconds: float = POLL_SECONDS) -> None:
    """Looks again and again. Raises Failed with `what` when it stays false for too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:g} s in vain: {what}")
        time.sleep(poll_seconds)
