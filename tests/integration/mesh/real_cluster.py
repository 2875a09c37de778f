"""Real agents of one key on loopback, which a test may kill, stop, wipe, and watch under the checker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshcron.net.keys import SECRET_BYTES, ClusterKey
from tests.checker import COMMAND, SECOND_US, Down, Findings, Job, checked
from tests.integration.agent.real_agent import RealAgent, environment, wait_for

FORM_SECONDS = 60.0
"""Three vote 15 s after their start; the machine of a test may be busy."""

HEAL_SECONDS = 40.0

HORIZON_US = 3 * SECOND_US
"""Ticks are decided so far ahead (`--horizon`)."""

RUNS_MAX = 100_000
"""In the history of a job: all that a test can start in an hour."""

BUSY_LATE_US = SECOND_US
"""On a machine that runs other tests beside this one; the goal of 200 ms is asked for after fifteen kills."""


class MeshAgent(RealAgent):
    """One of a cluster; it finds the others by mDNS, which never leaves the loopback interface."""

    def __init__(self, folder: Path, key_file: Path, *flags: str) -> None:
        super().__init__(folder, *flags)
        self._key_file = key_file
        self.name = folder.name
        self.module = "meshcron"
        """What is installed: `tests.next_build` is a later version."""

    def spawn(self, *flags: str, **variables: str) -> None:
        """Start its process, and do not wait for it."""
        (self.folder / "agent.json").unlink(missing_ok=True)
        words = ["--name", self.name, "--data-dir", str(self.folder), "--key-file", str(self._key_file)]
        words += ["--bind", "127.0.0.1", "--mdns-interface", "127.0.0.1", "--http", "127.0.0.1:0"]
        words += ["--gate-port", "0", "--mesh-port", "0", "--pub-port", "0", *self.flags, *flags]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "up", *words],
                env=environment(**variables),
                stdout=log,
                stderr=log,
            )

    def start(self, *flags: str, **variables: str) -> None:
        self.spawn(*flags, **variables)
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        wait_for(lambda: not self.running or (self.folder / "agent.json").exists(), f"the start of {self.name}")
        assert self.running, self.log

    def pause(self) -> None:
        """SIGSTOP: every connection stays, nothing moves."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def holds_log(self) -> bool:
        """Whether it may vote: one that only runs jobs has no log."""
        return "never" not in self.flags

    @property
    def members(self) -> list[dict[str, Any]]:
        """Every member as this agent tells it."""
        found: list[dict[str, Any]] = self.call("GET", "/v1/members")
        return found

    @property
    def mesh(self) -> dict[str, Any]:
        """Its place in the cluster."""
        found: dict[str, Any] = self.call("GET", "/v1/")["mesh"]
        return found

    @property
    def leader_name(self) -> str:
        """Whom it takes for the leader; "" when it knows none, or does not answer."""
        try:
            answer = self.client("GET", "/v1/leader")
        except OSError:
            return ""
        return str(answer.json["Name"]) if answer.status == 200 else ""


class RealCluster:
    """Some agents of one key."""

    def __init__(self, folder: Path, names: Sequence[str], key: ClusterKey | None = None) -> None:
        """Each agent's folder has its name; the last one has role=db, the others role=web."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.voters = 3
        """How many vote once it is whole, as the last call said."""
        self.key = key or ClusterKey(os.urandom(SECRET_BYTES))
        self.key_file = folder / "cluster.key"
        self.key_file.touch(mode=0o600)
        self.key_file.write_text(self.key.text + "\n")
        roles = ["web"] * (len(names) - 1) + ["db"]
        self.agents = [
            MeshAgent(folder / name, self.key_file, "--tag", f"role={role}")
            for name, role in zip(names, roles, strict=True)
        ]

    def start(self, voters: int) -> None:
        """Start them all in one instant; returns once they are one cluster in which so many vote."""
        for agent in self.agents:
            agent.spawn()
        for agent in self.agents:
            agent.wait()
        self.heal(voters, FORM_SECONDS)

    def heal(self, voters: int = 0, seconds: float = HEAL_SECONDS) -> None:
        """Whatever a test did: all run, hear each other, know one leader, and so many vote, or as many as before."""
        self.voters = voters or self.voters
        for agent in self.agents:
            if agent.running:
                agent.resume()
            else:
                agent.start()
        wait_for(lambda: self.is_one(self.voters), f"one cluster of {self.names}", seconds)

    def is_one(self, voters: int) -> bool:
        """Whether each agent tells of the same members, all alive, one leader, and so many voters."""
        told = []
        for agent in self.agents:
            try:
                members = agent.members
            except (OSError, AssertionError):
                return False
            alive = {one["id"] for one in members if one["statusText"] == "alive"}
            leaders = [one["Name"] for one in members if one["leader"]]
            told.append((alive, leaders, sum(one["voter"] for one in members), len(members)))
        alive, leaders, voting, count = told[0]
        right = len(alive) == count == len(self.agents) and len(leaders) == 1 and voting == voters
        return right and all(one == told[0] for one in told)

    @property
    def names(self) -> list[str]:
        return [agent.name for agent in self.agents]

    def __getitem__(self, name: str) -> MeshAgent:
        return next(agent for agent in self.agents if agent.name == name)

    @property
    def leader(self) -> MeshAgent:
        """The one that leads, as all that run say."""
        running = [agent for agent in self.agents if agent.running]

        def said() -> str:
            names = {agent.leader_name for agent in running}
            return names.pop() if len(names) == 1 else ""

        return self[wait_for(said, "one leader")]

    @property
    def followers(self) -> list[MeshAgent]:
        """All others."""
        leader = self.leader
        return [agent for agent in self.agents if agent is not leader]

    def close(self) -> None:
        """End them all, stopped ones too."""
        for agent in self.agents:
            if agent.process is not None and agent.running:
                agent.resume()
                agent.kill()


class Watch:
    """Two jobs under the checker, each with a tick a second and overlap allowed: `everywhere` on all agents, `single`
    on one that has role=web."""

    def __init__(self, cluster: RealCluster, label: str, *, everywhere: bool = True, then: str = "") -> None:
        """`then`: what each start does after it has written itself down."""
        self._cluster = cluster
        self._then = then
        self._file = cluster.folder / f"starts-{label}"
        self._jobs = [Job(f"single-{label}", 1)]
        if everywhere:
            self._jobs.append(Job(f"everywhere-{label}", frozenset(cluster.names)))
        self._read = 0
        self._ticks: defaultdict[str, set[str]] = defaultdict(set)
        self._down: list[Down] = []
        self._away: dict[str, int] = {}

    def begin(self) -> None:
        """Add the jobs, and wait until both run."""
        self._file.touch()
        for job in self._jobs:
            self._cluster.leader.add(
                job.name,
                COMMAND.format(file=self._file) + self._then,
                "* * * * * *",
                tags={"role": "web:1"} if job.targets == 1 else {},
                concurrency="allow",
                history={"runs": RUNS_MAX, "days": 1},
            )
        self.wait_for_more(2)

    def wait_for_more(self, seconds: int) -> None:
        """Until each job has started so many more times, wherever."""
        wanted = {job.name: self._count(job) + seconds for job in self._jobs}
        wait_for(lambda: all(self._count(job) >= wanted[job.name] for job in self._jobs), "more starts", seconds + 30.0)

    def _count(self, job: Job) -> int:
        """Ticks that have started somewhere. Reads on where it left off: it is asked again and again."""
        with self._file.open("rb") as starts:
            starts.seek(self._read)
            for line in starts:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                name, tick, _ = line.decode().split(maxsplit=2)
                self._ticks[name].add(tick)
        return len(self._ticks[job.name])

    def kill(self, agent: MeshAgent) -> None:
        """Kill -9, under the checker's eyes."""
        self.away(agent)
        agent.kill()

    def away(self, agent: MeshAgent) -> None:
        """From now on what is open there may stay open, be lost, or be skipped."""
        self._away[agent.name] = now_us()

    def back(self, agent: MeshAgent) -> None:
        """It runs again: what is decided a horizon from now on is accounted for no more."""
        self._down.append(Down(agent.name, self._away.pop(agent.name) - SECOND_US, now_us() + HORIZON_US))

    def end(self, late_us: int = BUSY_LATE_US) -> Findings:
        """Check every tick: nothing missing, nothing doubled, on time but for those that were away. Every agent that
        holds the log tells the same of all that has ended; the token of any other one sees no job."""
        self._cluster.heal()
        for name in [*self._away]:
            self.back(self._cluster[name])
        self.wait_for_more(HORIZON_US // SECOND_US if self._down else 2)
        found = checked(self._jobs, self._file, self._cluster.leader.executions, self._down)
        print(found.line)
        assert found.clean, found.story()
        assert found.worst_us <= late_us, found.story()
        self._same_story_everywhere(int(time.time()) - HORIZON_US // SECOND_US)
        return found

    def remove(self) -> None:
        """Take the jobs away."""
        self._cluster.heal()
        for job in self._jobs:
            self._cluster.leader.call("DELETE", f"/v1/jobs/{job.name}")

    def _same_story_everywhere(self, until: int) -> None:
        def told(agent: MeshAgent) -> set[tuple[str, str]]:
            return {
                (one["id"], one["status"])
                for job in self._jobs
                for one in agent.executions(job.name)
                if int(one["id"][:10]) < until
            }

        def same() -> bool:
            first, *others = [told(agent) for agent in self._cluster.agents if agent.holds_log]
            return all(other == first for other in others)

        wait_for(same, "the same story everywhere")


def now_us() -> int:
    return int(time.time() * SECOND_US)
