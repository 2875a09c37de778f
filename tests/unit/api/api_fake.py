"""An agent without a cluster: a real Service over state in memory, for tests of the HTTP side.

Run as a program it serves the API on a free port of 127.0.0.1 until its standard input ends, and prints one line of
JSON: {"url": ..., "token": ...}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from meshcron.api.app import make_app
from meshcron.api.auth import token_hash
from meshcron.api.server import serve
from meshcron.api.settings import ApiSettings, allowed_hosts
from meshcron.commands import (
    ClearHistory,
    Command,
    DeleteJob,
    JobAnswer,
    JobView,
    PutJob,
    PutToken,
    RemoveMember,
    RevokeToken,
    RunJob,
    SetPaused,
    StopAnswer,
    StopRun,
)
from meshcron.errors import Conflict, InvalidSchedule, NoLeader, NotFound, PreconditionFailed, UnknownJob
from meshcron.model import RANKS, SECOND_US, Execution, Job, Member, Role, Status, Token, Trigger
from meshcron.rows import OwedRow
from meshcron.service import AgentView, Explained, MemberView, OutputChunk, Service

NOW_US = 1_893_456_000 * SECOND_US
"""2030-01-01T00:00:00Z: the fake's wall clock stands there until a test moves it."""

SECRETS: dict[Role, str] = {role: f"mc_secret-of-the-{role}" for role in RANKS}
NODE_ID = "node-1"


class FakeCluster:
    """Jobs, executions and tokens in memory. Runs end at once, with the job's command as output."""

    def __init__(self) -> None:
        self.wall_us = NOW_US
        self.monotonic_seconds = 1000.0
        self.views: dict[str, JobView] = {}
        self.rows: list[Execution] = []
        self.token_rows: dict[str, Token] = {}
        self.outputs: dict[str, bytes] = {}
        self.unread: BaseException | None = None
        """Raised by the next looks at an output."""
        self.ended: set[str] = set()
        self.commands: list[tuple[Command, str]] = []
        self.leader: str = "agent1"
        self.names = {"node-1": "agent1", "node-2": "agent2"}
        """Of the members, by node id."""
        self.not_ready: str | None = None
        self.waiting: dict[str, str] = {}
        """Armed executions that wait, and why."""
        self.fails: BaseException | None = None
        """Raised by the next proposals, as if the cluster said so."""
        self.runs_end = True
        self.owed: dict[str, OwedRow] = {}
        self.disk_lags = 0
        """Entries that are known in memory and not yet on the disk."""
        self.on_open: Callable[[], None] = lambda: None
        """Called before each look at what is open."""
        self.index = 100
        self.reads = 0
        """Of outputs."""
        self.looks = 0
        """At which runs are open, and from the first of them on at what the disk holds."""
        for role in RANKS:
            self.add_token(role, SECRETS[role], role)

    # ---- Setting the scene ----

    def add_token(self, name: str, secret: str, role: Role, **more: Any) -> Token:
        token = Token(id=f"id-{name}", name=name, role=role, sha256=token_hash(secret), created_wall_us=NOW_US, **more)
        self.token_rows[token.id] = token
        return token

    def add_job(self, name: str, **fields: Any) -> JobView:
        job = Job(name=name, **{"schedule": "@daily", "command": "true", **fields})
        return self._store(job)

    def add_execution(self, name: str, status: Status = Status.SUCCESS, **more: Any) -> Execution:
        view = self.views[name]
        self.index += 1
        started = NOW_US + self.index * SECOND_US
        values: dict[str, Any] = {
            "id": f"x{self.index:031d}",
            "uid": view.uid,
            "run_id": f"run-{self.index}",
            "index": self.index,
            "revision": view.revision,
            "attempt": 1,
            "trigger": "schedule",
            "scheduled_wall_us": started - 2_500,
            "due_cluster_us": 0,
            "start_by_cluster_us": 0,
            "node_id": NODE_ID,
            "agent": "agent1",
            "status": status,
            "started_wall_us": started,
            "finished_wall_us": started + 1_500_000 if status.final else 0,
            "exit_code": 0 if status is Status.SUCCESS else None,
            "output_tail": "done\n" if status.final else "",
            "output_bytes": 5 if status.final else 0,
        }
        row = Execution(**(values | more))
        self.rows.append(row)
        return row

    def end(self, execution_id: str, status: Status = Status.SUCCESS) -> None:
        for at, row in enumerate(self.rows):
            if row.id == execution_id:
                self.rows[at] = msgspec.structs.replace(
                    row, status=status, finished_wall_us=row.started_wall_us + SECOND_US
                )
        self.ended.add(execution_id)

    # ---- Catalog ----

    @property
    def applied(self) -> tuple[int, int, int]:
        return self.index, 1, 0

    @property
    def open(self) -> Mapping[str, Execution]:
        self.on_open()
        return {row.id: row for row in self.rows if not row.status.final}

    @property
    def run_open(self) -> Mapping[str, Collection[str]]:
        self.looks += 1
        open_ones = list(self.open.values())
        return {
            run_id: {row.id for row in open_ones if row.run_id == run_id} for run_id in {r.run_id for r in open_ones}
        }

    def job_view(self, name: str) -> JobView | None:
        return self.views.get(name)

    def job_views(self) -> Sequence[JobView]:
        return [self.views[name] for name in sorted(self.views)]

    def job_name(self, uid: int) -> str | None:
        return next((view.job.name for view in self.views.values() if view.uid == uid), None)

    def token_by_hash(self, sha256: str) -> Token | None:
        return next((token for token in self.token_rows.values() if token.sha256 == sha256), None)

    def tokens(self) -> Sequence[Token]:
        return list(self.token_rows.values())

    # ---- Tables ----

    def executions(self, uid: int, *, newest_first: bool, offset: int, limit: int) -> list[Execution]:
        found = [row for row in self.rows if row.uid == uid]
        found.sort(key=lambda row: row.index, reverse=newest_first)
        return found[offset : offset + limit]

    def execution_count(self, uid: int) -> int:
        return sum(row.uid == uid for row in self.rows)

    def execution(self, uid: int, public_id: str) -> Execution | None:
        return next((row for row in self.rows if row.uid == uid and row.public_id == public_id), None)

    def run_executions(self, run_id: str) -> list[Execution]:
        return [row for row in self.rows if row.run_id == run_id]

    def meta(self) -> Mapping[str, str]:
        self.looks += self.looks > 0
        return {"applied": f"{self.index - self.disk_lags} 1 0"}

    def history(self, *, filters: Mapping[str, object], offset: int, limit: int) -> list[Execution]:
        found = [row for row in reversed(self.rows) if self._passes(row, filters)]
        return found[offset : offset + limit]

    def _passes(self, row: Execution, filters: Mapping[str, object]) -> bool:
        since, until = filters.get("since_wall_us", 0), filters.get("until_wall_us", 2**62)
        assert isinstance(since, int)
        assert isinstance(until, int)
        named = all(getattr(row, key) == filters[key] for key in ("uid", "agent", "status") if key in filters)
        return named and since <= row.scheduled_wall_us <= until

    # ---- Cluster ----

    def agent_view(self) -> AgentView:
        return AgentView(
            name="agent1",
            version="0.1.0",
            tags={"role": "web"},
            cluster="c1",
            fingerprint="f1",
            term=3,
            generation=1,
            protocol=1,
            leader=self.leader,
            commit_index=self.index,
            applied_index=self.index,
            jobs=len(self.views),
            open_executions=sum(not row.status.final for row in self.rows),
            paused=False,
            encrypted=True,
            started_wall_us=NOW_US,
            refused={("gate", "handshake"): 3},
        )

    def member_views(self) -> Sequence[MemberView]:
        return [
            MemberView(
                node_id=node_id,
                name=name,
                address=f"10.0.0.{number}",
                port=8947,
                tags={"role": "web"},
                facts={"meshcron.os": "linux"},
                status=1,
                voter=True,
                leader=self.leader == name,
                version="0.1.0",
                running=0,
            )
            for number, (node_id, name) in enumerate(self.names.items(), 1)
        ]

    def why_not_ready(self) -> str | None:
        return self.not_ready

    def why_waiting(self, execution: Execution) -> str:
        return self.waiting.get(execution.id, "")

    def check_job(self, command: PutJob) -> None:
        self.explain(command.job.schedule, command.job.timezone, command.job.name, 1)

    def explain(self, schedule: str, timezone: str, name: str, count: int) -> Explained:
        if "60" in schedule:
            raise InvalidSchedule("minute 60 is above 59", "0-59", column=3)
        return Explained(schedule, timezone or "UTC", "every day", tuple(NOW_US + i * SECOND_US for i in range(count)))

    # ---- What is proposed ----

    async def propose(self, command: Command, key: str) -> object:
        self.commands.append((command, key))
        if self.fails is not None:
            return self.fails
        try:
            return self._apply(command)
        except (NotFound, Conflict, PreconditionFailed) as error:
            return error

    def _apply(self, command: Command) -> object:
        match command:
            case PutJob():
                return self._put(command)
            case DeleteJob():
                return self._delete(command)
            case RunJob(name=name):
                return JobAnswer(view=self._view(name), run_id=self._run(name, command))
            case StopRun():
                return self._stop(command)
            case ClearHistory(name=name):
                return self._clear(name)
            case PutToken(token=token):
                return self._put_token(token)
            case RevokeToken(id=token_id):
                if token_id not in self.token_rows:
                    raise NotFound("token", token_id)
                return self.token_rows.pop(token_id)
            case RemoveMember(name=name):
                node_id = next((one for one, known in self.names.items() if name in (one, known)), f"node-{name}")
                return Member(node_id=node_id, name=self.names.get(node_id, name), number=1, leaving=True)
            case SetPaused(paused=paused):
                return paused

    def _put(self, command: PutJob) -> JobAnswer:
        self._check_revision(command.job.name, command.if_revision)
        created = command.job.name not in self.views
        view = self._store(command.job)
        open_ids = self._open_ids(view.uid) if command.job.disabled else ()
        return JobAnswer(view=view, created=created, holds_from_wall_us=NOW_US, open_executions=open_ids)

    def _delete(self, command: DeleteJob) -> JobAnswer:
        view = self._view(command.name)
        self._check_revision(command.name, command.if_revision)
        if view.dependents:
            raise Conflict("name", f"the job {command.name!r} has children", "delete them first")
        open_ids = self._open_ids(view.uid)
        self.rows = [row for row in self.rows if row.uid != view.uid or not row.status.final]
        return JobAnswer(view=self.views.pop(command.name), open_executions=open_ids)

    def _stop(self, command: StopRun) -> StopAnswer:
        stopped = [
            row
            for row in self.run_executions(command.run_id)
            if not row.status.final and command.execution_id in {"", row.id}
        ]
        for row in stopped:
            self.end(row.id, Status.KILLED)
        return StopAnswer(run_id=command.run_id, public_ids=tuple(row.public_id for row in stopped))

    def _clear(self, name: str) -> JobAnswer:
        view = self._view(name)
        self.rows = [row for row in self.rows if row.uid != view.uid or not row.status.final]
        self.views[name] = msgspec.structs.replace(view, success_count=0, error_count=0)
        return JobAnswer(view=self.views[name])

    def _put_token(self, token: Token) -> Token:
        if any(token.name == other.name for other in self.token_rows.values()):
            raise Conflict("name", f"there is a token named {token.name!r}", "choose another name")
        self.token_rows[token.id] = token
        return token

    def _view(self, name: str) -> JobView:
        if name not in self.views:
            raise UnknownJob(name)
        return self.views[name]

    def _check_revision(self, name: str, wanted: int | None) -> None:
        stored = self.views[name].revision if name in self.views else 0
        if wanted is not None and wanted != stored:
            raise PreconditionFailed(f"the job is at revision {stored}, not {wanted}")

    def _store(self, job: Job) -> JobView:
        self.index += 1
        before = self.views.get(job.name)
        view = JobView(
            job=job,
            uid=before.uid if before else self.index,
            revision=before.revision + 1 if before else 1,
            created_wall_us=NOW_US,
            next_wall_us=None if job.disabled else NOW_US + 3600 * SECOND_US,
            success_count=before.success_count if before else 0,
            error_count=0,
            last_success_wall_us=0,
            last_error_wall_us=0,
            last_status="",
            open_runs=0,
        )
        self.views[job.name] = view
        return view

    def _open_ids(self, uid: int) -> tuple[str, ...]:
        return tuple(row.public_id for row in self.rows if row.uid == uid and not row.status.final)

    def _run(self, name: str, command: RunJob) -> str:
        status = Status.SUCCESS if self.runs_end else Status.RUNNING
        trigger: Trigger = "manual"
        row = self.add_execution(name, status, trigger=trigger, env=command.env)
        view = self.views[name]
        self.views[name] = msgspec.structs.replace(
            view, success_count=view.success_count + self.runs_end, last_status="success" if self.runs_end else ""
        )
        return row.run_id

    # ---- Output ----

    def read_output(self, execution_id: str, offset: int, most: int) -> OutputChunk:
        self.reads += 1
        if self.unread is not None:
            raise self.unread
        whole = self.outputs.get(execution_id, b"")
        data = whole[offset : offset + most]
        row = next((row for row in self.rows if row.id == execution_id), None)
        final = row is None or row.status.final or execution_id in self.ended
        return OutputChunk(data, offset + len(data), final and offset + len(data) >= len(whole))

    def service(self) -> Service:
        """The real Service; what a test replaces of this object later counts."""

        async def propose(command: Command, key: str) -> object:
            return await self.propose(command, key)

        return Service(
            propose=propose,
            catalog=self,
            tables=self,
            cluster=self,
            read_output=self.read_output,
        )

    def no_leader(self) -> None:
        """Nobody leads any more."""
        self.leader = ""
        self.not_ready = "no leader"
        self.fails = NoLeader("nobody leads at the moment")


async def main() -> None:
    """Serves a fake with one job and its history until standard input ends."""
    cluster = FakeCluster()
    cluster.add_job("bench_job", tags={"role": "web"}, owner="John Doe", owner_email="john@doe.com")
    cluster.add_execution("bench_job")
    settings = ApiSettings(
        agent="agent1", allowed_hosts=allowed_hosts(["127.0.0.1", "localhost", "dkron-node"]), node_id=NODE_ID
    )
    app = make_app(cluster.service(), settings, wall_clock_us=lambda: time.time_ns() // 1000, monotonic=time.monotonic)
    server = serve(app, "127.0.0.1", 0)
    print(json.dumps({"url": f"http://127.0.0.1:{server.port}", "token": SECRETS["admin"]}), flush=True)
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()
    server.stop()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
