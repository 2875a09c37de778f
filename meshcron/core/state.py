"""The committed state of the cluster in memory: jobs, open executions, owed runs, members, tokens, clock, pause.

It only holds and finds; `catalog.py` is the one place that changes it, entry by entry.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from typing import TypeVar

import msgspec

from meshcron.commands import JobView
from meshcron.model import Execution, Job, Member, Status, Token
from meshcron.rows import CallRow, JobRow, JobStateRow, Loaded, OwedRow
from meshcron.vocabulary import FIRST, protocol_of

_job_encoder = msgspec.json.Encoder()
_job_decoder = msgspec.json.Decoder(Job)

Key = TypeVar("Key")


class JobState(msgspec.Struct):
    """A job and what the cluster knows of it. `next_wall_us` 0 = never."""

    job: Job
    uid: int
    revision: int
    created_wall_us: int
    epoch: int
    cursor_wall_us: int
    next_wall_us: int
    success_count: int = 0
    error_count: int = 0
    last_success_wall_us: int = 0
    last_error_wall_us: int = 0
    last_status: str = ""
    recorded: int = 0
    open_ids: set[str] = set()

    def state_row(self) -> JobStateRow:
        """The row of everything but the definition."""
        return JobStateRow(
            self.uid,
            self.epoch,
            self.cursor_wall_us,
            self.next_wall_us,
            self.success_count,
            self.error_count,
            self.last_success_wall_us,
            self.last_error_wall_us,
            self.last_status,
            self.recorded,
        )


def job_row(state: JobState, *, current: bool = True, hidden: bool = False) -> JobRow:
    """The row of a definition at its present revision."""
    definition = _job_encoder.encode(state.job).decode()
    return JobRow(state.uid, state.revision, state.job.name, definition, current, hidden, state.created_wall_us)


def _runs_at_starts(job: Job) -> bool:
    """Whether its schedule is `@reboot`; nothing else has the word in it (schedule.py)."""
    return "@reboot" in job.schedule.lower()


def _one_less(counts: Counter[Key], key: Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


class State:
    """All of it, and the ways to find something in it."""

    def __init__(self) -> None:  # noqa: PLR0915 - one statement a thing that is held, and one for what it is
        self.cluster = ""
        self.applied: tuple[int, int, int] = (0, 0, 0)
        """Index, term and chain CRC of the last applied entry."""
        self.clock: tuple[int, int, int, int] = (0, 0, 0, 0)
        """Cluster time, wall clock and wall offset as last committed, and the clock epoch."""
        self.stepped_us = 0
        """How far the clocks went back when the present epoch began."""
        self.paused = False
        self.pauses: tuple[tuple[int, int], ...] = ()
        """Wall instants of the last pause, and of those before it whose ticks are not all decided: from, until (0
        while it lasts), oldest first."""
        self.recovered: tuple[int, int] = (0, 0)
        """Ticks up to this wall instant, of jobs older than this index, may have run before an operator's `recover`."""
        self.generation = 0
        """The one that the last `recover` opened."""
        self.jobs: dict[int, JobState] = {}
        self.hidden: dict[int, JobState] = {}
        self.uids: dict[str, int] = {}
        self.revisions: dict[tuple[int, int], Job] = {}
        """Older revisions that open executions name."""
        self.children: dict[str, set[int]] = defaultdict(set)
        self.reboots: set[int] = set()
        """Jobs that a start of an agent starts."""
        self.open: dict[str, Execution] = {}
        self.run_open: dict[str, set[str]] = defaultdict(set)
        """The ids of a run's open executions."""
        self.open_on: Counter[str] = Counter()
        """How many executions are open on an agent, by node id; where none is there is no count."""
        self.open_of: Counter[tuple[int, int]] = Counter()
        """The same by what they run: uid and revision."""
        self.owed: dict[str, OwedRow] = {}
        self.owed_of: dict[int, set[str]] = defaultdict(set)
        """The keys of what is owed to a job."""
        self.late: list[tuple[int, str]] = []
        """When the executions that were lost were due, and their rows' keys, oldest first (catalog_late.py)."""
        self.retrying: dict[int, int] = defaultdict(int)
        """How many retries are owed to a job: until they are decided its run is not over."""
        self.retrying_runs: dict[str, int] = defaultdict(int)
        """The same by run."""
        self.members: dict[int, Member] = {}
        self.protocol = FIRST
        """What the cluster speaks."""
        self.roster_index = 0
        """Index of the last entry that changed who is a member or votes."""
        self.last_number = 0
        """The highest roster number ever given: none is given twice."""
        self.hand_over: tuple[int, int] = (0, 0)
        """Cluster time of the last hand-over, and how long there is none after it."""
        self.lived_in = False
        self.dissolved = ""
        """The cluster this one dissolved into."""
        self.token_map: dict[str, Token] = {}
        self.calls: dict[str, CallRow] = {}
        """First answers to calls that may be repeated, in the order of their entries (answers.py)."""
        self.call_bytes = 0

    @property
    def epoch(self) -> int:
        """The clock epoch: rises with each agreed step of the clocks backward."""
        return self.clock[3]

    # reading at start

    @staticmethod
    def load(loaded: Loaded) -> State:
        """The state as the rows on disk hold it, at their applied index."""
        state = State()
        state._load_meta(loaded.meta)
        states = {row.uid: row for row in loaded.job_states}
        for row in loaded.jobs:
            state._load_job(row, states)
        for execution in loaded.open_executions:
            state.add_open(execution)
        for owed in loaded.owed:
            state.add_owed(owed)
        state.members = {member.number: member for member in loaded.members}
        state.token_map = {token.id: token for token in loaded.tokens}
        for call in sorted(loaded.calls, key=lambda row: row.entry_index):
            state.add_call(call)
        return state

    def take(self, loaded: Loaded) -> None:
        """Become what a snapshot holds."""
        self.__dict__.update(State.load(loaded).__dict__)

    def is_virgin(self) -> bool:
        """Whether nobody has used this cluster yet: no job, no token beyond those of its members."""
        return not self.lived_in

    def member_of(self, node_id: str) -> Member | None:
        """A member by its node id."""
        return next((one for one in self.members.values() if one.node_id == node_id), None)

    def _load_meta(self, meta: dict[str, str]) -> None:
        self.protocol = protocol_of(meta)
        self.roster_index = int(meta.get("roster", "0"))
        self.last_number = int(meta.get("number", "0"))
        self.lived_in = "lived_in" in meta
        self.dissolved = meta.get("dissolved", "")
        if "hand_over" in meta:
            last_us, hold_us = meta["hand_over"].split()
            self.hand_over = int(last_us), int(hold_us)
        self.cluster = meta.get("cluster", "")
        until_us, _, index = meta.get("recovered", "0").partition(" ")
        self.recovered = int(until_us), int(index or "0")
        self.generation = int(meta.get("generation", "0"))
        if "applied" in meta:
            index, term, crc = meta["applied"].split()
            self.applied = int(index), int(term), int(crc)
        if "clock" in meta:
            cluster_us, wall_us, offset_us, epoch = meta["clock"].split()
            self.clock = int(cluster_us), int(wall_us), int(offset_us), int(epoch)
        self.stepped_us = int(meta.get("stepped", "0"))
        if "pause" in meta:
            paused, *instants = meta["pause"].split()
            self.paused = paused == "1"
            self.pauses = tuple(zip(map(int, instants[::2]), map(int, instants[1::2]), strict=True))

    def _load_job(self, row: JobRow, states: dict[int, JobStateRow]) -> None:
        job = _job_decoder.decode(row.definition)
        if not row.current:
            self.revisions[row.uid, row.revision] = job
            return
        kept = states[row.uid]
        loaded = JobState(
            job,
            row.uid,
            row.revision,
            row.created_wall_us,
            kept.epoch,
            kept.cursor_wall_us,
            kept.next_wall_us,
            kept.success_count,
            kept.error_count,
            kept.last_success_wall_us,
            kept.last_error_wall_us,
            kept.last_status,
            kept.recorded,
        )
        if row.hidden:
            self.hidden[row.uid] = loaded
        else:
            self.add_job(loaded)

    # small changes that keep the indexes true; called by catalog.py and answers.py

    def add_job(self, state: JobState) -> None:
        """A job becomes visible, or its definition changes."""
        self.remove_job(state.uid)
        self.jobs[state.uid] = state
        self.uids[state.job.name] = state.uid
        for parent in state.job.parent_jobs:
            self.children[parent].add(state.uid)
        if _runs_at_starts(state.job):
            self.reboots.add(state.uid)

    def remove_job(self, uid: int) -> None:
        """A job is no longer visible."""
        state = self.jobs.pop(uid, None)
        if state is None:
            return
        self.uids.pop(state.job.name, None)
        for parent in state.job.parent_jobs:
            self.children[parent].discard(uid)
        self.reboots.discard(uid)

    def add_open(self, execution: Execution) -> None:
        """An execution opens, or an open one changes."""
        if execution.id not in self.open:
            self.run_open[execution.run_id].add(execution.id)
            self.open_on[execution.node_id] += 1
            self.open_of[execution.uid, execution.revision] += 1
            if state := self.job_state(execution.uid):
                state.open_ids.add(execution.id)
        self.open[execution.id] = execution

    def remove_open(self, execution: Execution) -> None:
        """An execution is final."""
        del self.open[execution.id]
        self.run_open[execution.run_id].discard(execution.id)
        if not self.run_open[execution.run_id]:
            del self.run_open[execution.run_id]
        _one_less(self.open_on, execution.node_id)
        _one_less(self.open_of, (execution.uid, execution.revision))
        if state := self.job_state(execution.uid):
            state.open_ids.discard(execution.id)

    def add_owed(self, row: OwedRow) -> None:
        """A run is owed. A row that changes keeps its job, its kind and its time."""
        if row.key not in self.owed:
            self.owed_of[row.uid].add(row.key)
            if row.kind == "retry":
                self.retrying[row.uid] += 1
                self.retrying_runs[row.run_id] += 1
            elif row.kind == "late":
                insort(self.late, (row.scheduled_wall_us, row.key))
        self.owed[row.key] = row

    def remove_owed(self, key: str) -> None:
        """An owed run is decided."""
        row = self.owed.pop(key)
        self.owed_of[row.uid].discard(key)
        if not self.owed_of[row.uid]:
            del self.owed_of[row.uid]
        if row.kind == "late":
            del self.late[bisect_left(self.late, (row.scheduled_wall_us, key))]
        elif row.kind == "retry":
            self.retrying[row.uid] -= 1
            self.retrying_runs[row.run_id] -= 1
            if not self.retrying_runs[row.run_id]:
                del self.retrying_runs[row.run_id]

    def add_call(self, row: CallRow) -> None:
        """A call is answered, and may be repeated."""
        self.calls[row.key] = row
        self.call_bytes += len(row.answer)

    def remove_call(self, key: str) -> None:
        """Its answer is forgotten."""
        self.call_bytes -= len(self.calls.pop(key).answer)

    def is_busy(self, state: JobState) -> bool:
        """Whether a run of a job is not over: something is open, or a retry is owed."""
        return bool(state.open_ids) or self.retrying.get(state.uid, 0) > 0

    # finding

    def owed_to(self, uid: int) -> list[OwedRow]:
        """What is owed to a job, by key."""
        return [self.owed[key] for key in sorted(self.owed_of.get(uid, ()))]

    def job_state(self, uid: int) -> JobState | None:
        """A job by its uid, a deleted one with open executions included."""
        return self.jobs.get(uid) or self.hidden.get(uid)

    def named(self, name: str) -> JobState | None:
        """A visible job by its name."""
        uid = self.uids.get(name)
        return None if uid is None else self.jobs[uid]

    def definition(self, uid: int, revision: int) -> Job | None:
        """What an execution of that revision runs."""
        state = self.job_state(uid)
        if state is not None and state.revision == revision:
            return state.job
        return self.revisions.get((uid, revision))

    def has_owed(self, kind: str, uid: int) -> bool:
        """Whether a run of that kind waits for a job (`queued`, `replace`)."""
        return f"{kind}|{uid}" in self.owed

    # what the service reads

    def view(self, state: JobState) -> JobView:
        """A job as the API shows it."""
        return JobView(
            job=state.job,
            uid=state.uid,
            revision=state.revision,
            created_wall_us=state.created_wall_us,
            next_wall_us=state.next_wall_us or None,
            success_count=state.success_count,
            error_count=state.error_count,
            last_success_wall_us=state.last_success_wall_us,
            last_error_wall_us=state.last_error_wall_us,
            last_status="running" if self._runs(state) else state.last_status,
            open_runs=len({self.open[id_].run_id for id_ in state.open_ids}),
            dependents=tuple(sorted(self.jobs[uid].job.name for uid in self.children.get(state.job.name, ()))),
        )

    def _runs(self, state: JobState) -> bool:
        return any(self.open[id_].status is Status.RUNNING for id_ in state.open_ids)

    def job_view(self, name: str) -> JobView | None:
        """One job by name."""
        state = self.named(name)
        return None if state is None else self.view(state)

    def job_views(self) -> list[JobView]:
        """Every job, by name."""
        return [self.view(self.jobs[self.uids[name]]) for name in sorted(self.uids)]

    def job_name(self, uid: int) -> str | None:
        """The name of a job by its uid."""
        state = self.job_state(uid)
        return None if state is None else state.job.name

    def token_by_hash(self, sha256: str) -> Token | None:
        """The token whose secret has this SHA-256."""
        return next((token for token in self.token_map.values() if token.sha256 == sha256), None)

    def tokens(self) -> list[Token]:
        """Every token, oldest first."""
        return sorted(self.token_map.values(), key=lambda token: (token.created_wall_us, token.id))
