"""What the API may ask of the cluster. Writes are proposed to the leader; reads never enter the core.

Every method may raise the errors of errors.py and nothing else on purpose. What this module needs of the rest of the
agent it names as Protocols; `main` passes the real ones in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

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
from meshcron.errors import NoLeader, OutcomeUnknown, UnknownExecution, UnknownJob
from meshcron.model import Execution, Member, Status, Token

Outcome = TypeVar("Outcome")

COMMIT_WAIT_SECONDS = 5.0
"""A write not seen committed within this answers 503 `outcome_unknown` (API.md, Errors)."""

STOP_WAIT_SECONDS = 0.5
"""For the word of the agents on what was armed at a delete or disable (PROTOCOL 6, Edits)."""

STOP_LOOK_SECONDS = 0.01
"""Between two looks; a word takes some milliseconds."""


class MemberView(Struct, frozen=True, kw_only=True):
    """A member as the API shows it: committed facts and what this agent knows of its health."""

    node_id: str
    name: str
    address: str
    port: int
    tags: dict[str, str]
    facts: dict[str, str]
    status: int
    """1 alive, 2 leaving, 3 left, 4 failed (serf's numbers)."""
    voter: bool
    leader: bool
    version: str
    running: int
    clock_skew_ms: int = 0


class AgentView(Struct, frozen=True, kw_only=True):
    """This agent and its place in the cluster, for the status page."""

    name: str
    version: str
    tags: dict[str, str]
    cluster: str
    fingerprint: str
    term: int
    generation: int
    protocol: int
    """What the cluster speaks (docs/PROTOCOL.md)."""
    leader: str
    """Name of the leader, "" when nobody leads."""
    commit_index: int
    applied_index: int
    jobs: int
    open_executions: int
    paused: bool
    encrypted: bool
    started_wall_us: int
    warnings: tuple[str, ...] = ()
    """What the operator should know, e.g. that the API is open."""
    refused: Mapping[tuple[str, str], int] = {}
    """How often somebody was not let in since the start: (where, why) -> times."""


class Explained(Struct, frozen=True):
    """A schedule in words and its next ticks."""

    schedule: str
    timezone: str
    words: str
    next_wall_us: tuple[int, ...]


class OutputChunk(Struct, frozen=True):
    """A piece of an execution's output. `next_offset` is where to go on; `ended` = nothing will follow."""

    data: bytes
    next_offset: int
    ended: bool


class Owed(Protocol):
    """A run, or an attempt of one, that is still to be decided."""

    @property
    def uid(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def run_id(self) -> str: ...


START_NOTHING = frozenset({"late", "join"})
"""Kinds of Owed that are no run: a lost execution whose result may still come, a child that waits for more parents."""


class Catalog(Protocol):
    """The committed state of jobs, tokens and members, held in memory by the core. Read-only for us."""

    @property
    def applied(self) -> tuple[int, int, int]:
        """Index, term and chain CRC of the last entry that is in it."""

    @property
    def open(self) -> Mapping[str, Execution]:
        """Every open execution by its id."""

    @property
    def run_open(self) -> Mapping[str, Collection[str]]:
        """Run -> its open executions."""

    @property
    def owed(self) -> Mapping[str, Owed]: ...
    def job_view(self, name: str) -> JobView | None: ...
    def job_views(self) -> Sequence[JobView]: ...
    def job_name(self, uid: int) -> str | None: ...
    def token_by_hash(self, sha256: str) -> Token | None: ...
    def tokens(self) -> Sequence[Token]: ...


class Tables(Protocol):
    """The committed rows on disk. Each call is short and indexed."""

    def executions(self, uid: int, *, newest_first: bool, offset: int, limit: int) -> list[Execution]: ...
    def execution_count(self, uid: int) -> int: ...
    def execution(self, uid: int, public_id: str) -> Execution | None: ...
    def run_executions(self, run_id: str) -> list[Execution]: ...
    def meta(self) -> Mapping[str, str]: ...
    def history(self, *, filters: Mapping[str, object], offset: int, limit: int) -> list[Execution]: ...


class Cluster(Protocol):
    """What the agent says of itself and its peers."""

    def agent_view(self) -> AgentView: ...
    def member_views(self) -> Sequence[MemberView]: ...
    def why_not_ready(self) -> str | None: ...
    def why_waiting(self, execution: Execution) -> str: ...
    def check_job(self, command: PutJob) -> None: ...
    def explain(self, schedule: str, timezone: str, name: str, count: int) -> Explained: ...


VIA_HEADER = "X-Meshcron-Via"
"""`SECRET NODE_ID` on a request that another agent passed on to this one: it is not passed on again, and a token of
that agent's own is valid."""


class Told(Struct, frozen=True):
    """What another agent answered to a request that was passed on to it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Elsewhere(Protocol):
    """Other agents that answer for this one: the leader for writes, whoever ran a command for its output."""

    def knows_tokens(self) -> bool:
        """Whether this agent holds the log: if not, it can judge no token and answer nothing by itself."""

    def where(self) -> str:
        """Node id of the agent that takes writes, "" = this one. Raises NoLeader."""

    async def ask(self, to: str, method: str, uri: str, headers: dict[str, str], body: bytes) -> Told | None:
        """Have that agent answer, or whoever leads instead of it meanwhile; a write is shown here, too, once this
        returns. None: this agent leads meanwhile, and may do it itself. Raises NoLeader, OutcomeUnknown, TooLarge."""

    def ran_here(self, execution: Execution) -> bool:
        """Whether this agent holds the output of an execution."""

    async def output(self, execution: Execution, offset: int, most: int) -> OutputChunk:
        """A piece of it from the agent that does. Raises NoLeader where that is not reached."""


class Service:
    """The whole of what HTTP handlers, pages and the command line may do."""

    def __init__(
        self,
        *,
        propose: Callable[[Command, str], Awaitable[object]],
        catalog: Catalog,
        tables: Tables,
        cluster: Cluster,
        read_output: Callable[[str, int, int], OutputChunk],
    ) -> None:
        self._propose = propose
        self._catalog = catalog
        self._tables = tables
        self._cluster = cluster
        self._read_output = read_output

    # writes

    async def put_job(self, command: PutJob, key: str = "") -> JobAnswer:
        """Create or replace a job. Of a disabled one the answer names what still runs. Raises InvalidRequest,
        PreconditionFailed, NoLeader, OutcomeUnknown."""
        self._cluster.check_job(command)
        return await self._once_stopped(await self._write(command, key, JobAnswer))

    async def delete_job(self, command: DeleteJob, key: str = "") -> JobAnswer:
        """Delete a job and its history; the answer names what still runs. Raises UnknownJob, Conflict (it has
        children), PreconditionFailed."""
        return await self._once_stopped(await self._write(command, key, JobAnswer))

    async def run_job(self, command: RunJob, key: str = "") -> JobAnswer:
        """Start a run now; answers when the run is committed, not when it ends. Raises UnknownJob, Conflict."""
        return await self._write(command, key, JobAnswer)

    async def stop_run(self, command: StopRun, key: str = "") -> StopAnswer:
        """Kill a run, or one execution of it. Raises UnknownExecution."""
        return await self._write(command, key, StopAnswer)

    async def clear_history(self, command: ClearHistory, key: str = "") -> JobAnswer:
        """Forget the finished executions and counters of one job. Raises UnknownJob."""
        return await self._write(command, key, JobAnswer)

    async def set_paused(self, command: SetPaused, key: str = "") -> bool:
        """Pause or resume scheduling; answers the new state."""
        return await self._write(command, key, bool)

    async def remove_member(self, command: RemoveMember, key: str = "") -> Member:
        """Have a member leave for good; answers when that has begun. Raises NotFound, Conflict (the last one)."""
        return await self._write(command, key, Member)

    async def put_token(self, command: PutToken, key: str = "") -> Token:
        """Add a token. Raises Conflict where its name is in use."""
        return await self._write(command, key, Token)

    async def revoke_token(self, command: RevokeToken, key: str = "") -> Token:
        """Remove a token. Raises NotFound."""
        return await self._write(command, key, Token)

    async def _once_stopped(self, answer: JobAnswer) -> JobAnswer:
        """Once the agents have said whether what was armed has started: names what is open then."""
        named, waited = set(answer.open_executions), 0.0
        while named:
            found = [each for each in self._catalog.open.values() if each.uid == answer.view.uid]
            named &= {each.public_id for each in found}
            armed = any(each.status is Status.ARMED and each.public_id in named for each in found)
            if not armed or waited >= STOP_WAIT_SECONDS:
                break
            await asyncio.sleep(STOP_LOOK_SECONDS)
            waited += STOP_LOOK_SECONDS
        return replace(answer, open_executions=tuple(one for one in answer.open_executions if one in named))

    async def _write(self, command: Command, key: str, kind: type[Outcome]) -> Outcome:
        try:
            async with asyncio.timeout(COMMIT_WAIT_SECONDS):  # wait_for would make a task of each write
                outcome = await self._propose(command, key)
        except TimeoutError:
            raise OutcomeUnknown(
                f"not seen committed within {COMMIT_WAIT_SECONDS:g} s; it may still take effect"
            ) from None
        if isinstance(outcome, Exception):
            raise outcome
        if not isinstance(outcome, kind):
            raise TypeError(f"{type(command).__name__} was answered with {type(outcome).__name__}")
        return outcome

    # reads

    def jobs(self) -> Sequence[JobView]:
        """Every job, by name."""
        return self._catalog.job_views()

    def job(self, name: str) -> JobView:
        """One job. Raises UnknownJob."""
        view = self._catalog.job_view(name)
        if view is None:
            raise UnknownJob(name)
        return view

    def job_name(self, uid: int) -> str:
        """The name of the job an execution belongs to, "" once it is gone."""
        return self._catalog.job_name(uid) or ""

    def executions(
        self, name: str, *, newest_first: bool, offset: int = 0, limit: int = 1000
    ) -> tuple[list[Execution], int]:
        """A page of a job's executions, open and final, and how many there are. Raises UnknownJob."""
        uid = self.job(name).uid
        page = self._tables.executions(uid, newest_first=newest_first, offset=offset, limit=limit)
        return self._with_reasons(page), self._tables.execution_count(uid)

    def execution(self, name: str, public_id: str) -> Execution:
        """One execution of a job by the id people see. Raises UnknownJob, UnknownExecution."""
        found = self._tables.execution(self.job(name).uid, public_id)
        if found is None:
            raise UnknownExecution(public_id)
        return self._with_reasons([found])[0]

    def run(self, run_id: str) -> list[Execution]:
        """All executions of a run, every attempt, oldest first; none while it waits for its turn. Raises
        UnknownExecution."""
        found = self._tables.run_executions(run_id)
        if not found and not self.run_goes_on(run_id):
            raise UnknownExecution(run_id)
        return self._with_reasons(found)

    def run_goes_on(self, run_id: str) -> bool:
        """Whether an execution of a run is open, or another attempt or the run itself is still to be decided."""
        if self._catalog.run_open.get(run_id):
            return True
        return any(owed.run_id == run_id for owed in self._owed())

    def runs(self, name: str) -> dict[str, list[str]]:
        """The runs of a job that go on, and the public ids of what is open of each: oldest first, those that only wait
        at the end. Raises UnknownJob."""
        uid, found = self.job(name).uid, dict[str, list[str]]()
        for execution in sorted(self._catalog.open.values(), key=lambda each: each.index):
            if execution.uid == uid:
                found.setdefault(execution.run_id, []).append(execution.public_id)
        for run_id in sorted({owed.run_id for owed in self._owed() if owed.uid == uid}):
            found.setdefault(run_id, [])
        return found

    def _owed(self) -> Iterator[Owed]:
        return (owed for owed in self._catalog.owed.values() if owed.kind not in START_NOTHING)

    def index(self) -> int:
        """Of the last entry of the log that jobs, tokens and `run_goes_on` are told from."""
        return self._catalog.applied[0]

    def index_on_disk(self) -> int:
        """And of the last one that executions are told from: a write behind, at most."""
        return int(self._tables.meta().get("applied", "0").split()[0])

    def history(self, *, filters: Mapping[str, object], offset: int = 0, limit: int = 100) -> list[Execution]:
        """Executions of all jobs, newest first; `filters`: uid, agent, status, since_wall_us, until_wall_us."""
        return self._with_reasons(self._tables.history(filters=filters, offset=offset, limit=limit))

    def _with_reasons(self, executions: list[Execution]) -> list[Execution]:
        """An armed execution whose time has come and that cannot start yet has the reason: it waits."""
        return [
            replace(each, reason=why)
            if each.status is Status.ARMED and (why := self._cluster.why_waiting(each))
            else each
            for each in executions
        ]

    def output(self, execution: Execution, offset: int, most: int) -> OutputChunk:
        """A piece of an execution's output from the agent that holds it; the recorded tail where that is gone."""
        chunk = self._read_output(execution.id, offset, most)
        if chunk.ended and not chunk.data and offset == 0 and execution.status.final:
            return OutputChunk(execution.output_tail.encode(), len(execution.output_tail.encode()), True)
        return chunk

    def agent(self) -> AgentView:
        """This agent and its place in the cluster."""
        return self._cluster.agent_view()

    def members(self) -> Sequence[MemberView]:
        """Every member, by name."""
        return self._cluster.member_views()

    def leader(self) -> MemberView:
        """The member that leads. Raises NoLeader."""
        for member in self._cluster.member_views():
            if member.leader:
                return member
        raise NoLeader("nobody leads at the moment")

    def why_not_ready(self) -> str | None:
        """None when this agent can take writes, else the reason."""
        return self._cluster.why_not_ready()

    def explain(self, schedule: str, timezone: str = "", name: str = "", count: int = 5) -> Explained:
        """A schedule in words and its next ticks. Raises InvalidSchedule."""
        return self._cluster.explain(schedule, timezone, name, count)

    def tokens(self) -> Sequence[Token]:
        """Every token (never its secret)."""
        return self._catalog.tokens()

    def token_by_hash(self, sha256: str) -> Token | None:
        """The token whose secret has this SHA-256, in hex."""
        return self._catalog.token_by_hash(sha256)
