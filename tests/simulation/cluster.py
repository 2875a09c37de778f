"""Many agents in virtual time: a network that delays, loses, repeats and cuts, machines that crash, pause and drift.

Everything random comes from one seed; a crash may fall between any two effects. The invariants of PROTOCOL 10 that can
be seen from outside are checked as things happen.
"""

from __future__ import annotations

import copy
import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

from msgspec import Struct

from meshcron import commands, entries, messages
from meshcron.core import catalog_members, effects, events
from meshcron.core.admission import KNOCK_TAKES_US
from meshcron.core.agent import Agent
from meshcron.core.beats import HEARTBEATS
from meshcron.core.catalog import Catalog
from meshcron.core.catalog_members import HOLD_DOWN_MAX_US
from meshcron.core.catalog_outcomes import RERUNS_MAX
from meshcron.core.dispatch import ALL, tag_topic
from meshcron.core.effects import Effect
from meshcron.core.events import Event
from meshcron.core.replication import IN_FLIGHT_MAX
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.timing import Timing
from meshcron.core.voter import Committed, Voter
from meshcron.messages import Endpoint
from meshcron.model import SECOND_US, Ending, Execution, Instant, Member, Status
from meshcron.rows import BallotRow, DropHistory, ExecutionRow, Loaded, MarkRow, MetaRow, Row, SeenRow
from tests.fits import assert_fits
from tests.simulation.world import START_WALL_US, Disk

BOOT_US = 1_000_000_000
NEVER_US = 1 << 62

WAITING_MAX = 1_000
"""17: so many effects, groups of rows, results, orders and whatever else may wait at an agent: ten times what the worst
of the first fifty seeds has, and soon reached by what is repeated and never taken away."""

SAMPLE_EVERY = 1_000
"""Events between two looks at whole logs and states (PROTOCOL 10)."""

STALLED_US = 10 * SECOND_US
"""A snapshot is sent once a second until it gets through, and given up after so long (runtime/snapshots.py)."""

SAMPLED_ENTRIES = 200
"""So many of the last entries of each log are looked at then; at the end all."""

BACKLOG_MAX = 5_000
"""17: the same for what arrives while a machine stands still."""

SHORT = Timing(stable_us=2 * SECOND_US, lost_us=5 * SECOND_US)
"""The long times of the protocol made short, so that a seed sees them in a minute."""


def own_dice(seed: int, what: str) -> random.Random:
    """Dice of a seed for one thing only: whoever asks for more of them changes nothing else of what the seed is."""
    return random.Random(f"{seed} {what}")


def _durable_index(disk: Disk) -> int:
    applied = disk.tables["meta"].get("applied")
    installed = int(applied.value.split()[0]) if isinstance(applied, MetaRow) else 0
    return max(int(disk.last_index), installed)


def _holds(disk: Disk, index: int, term: int) -> bool:
    row = disk.log.get(index)
    if row is not None:
        return bool(row.term == term)
    return index <= _durable_index(disk) and bool(disk.last_index) and index not in disk.log


def unlike(one: State, other: State) -> list[str]:
    """In what two states differ. An index may keep an empty entry of what is over, which no disk has."""

    def whole(state: State) -> dict[str, object]:
        held = {name: _filled(value) if isinstance(value, dict) else value for name, value in vars(state).items()}
        return held | {"calls": list(state.calls.items())}  # in their order

    ours, theirs = whole(one), whole(other)
    return [name for name in ours if ours[name] != theirs[name]]


def _filled(some: dict[object, object]) -> dict[object, object]:
    return {key: value for key, value in some.items() if value}


class Weather(Struct):
    """What the network does to a message. Chances in 0..1, delays in microseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_us: tuple[int, int] = (80, 500)
    straggle: float = 0.0
    """Chance that a message arrives much later than the others."""
    straggle_us: int = 3_600 * SECOND_US


class Process(Struct):
    """A command that runs on a host."""

    pid: int
    run: str


class Host:
    """One machine: its disk and its processes outlive its agent."""

    def __init__(self, world: Cluster, number: int, tags: dict[str, str], *, eligible: bool, priority: int) -> None:
        self.world = world
        self.number = number
        self.node_id = f"{world.random.getrandbits(128):032x}"
        self.name = f"host{number}"
        self.tags = tags
        self.eligible = eligible
        self.priority = priority
        self.slots = 8
        self.expect = 0
        """So many agents must be seen before it forms a cluster."""
        self.disk = Disk()
        self._agent: Agent | None = None
        self.build: Callable[[Settings, Loaded], Agent] = Agent
        """Which version of the agent is installed; holds from its next start on."""
        self.session = 0
        """Of the agent: counts starts and ends, so that what belonged to an earlier one is void."""
        self.starts_taken = 0
        self.boot_shift_us = world.random.randrange(1, 10**6) * 1_000_000
        self.wall_shift_us = world.random.randrange(-20_000, 20_000)
        self.drift_ppm = 2 * world.random.randrange(-50, 50)
        """Two clocks differ by 200 ppm at most, the worst that PROTOCOL 7 expects."""
        self.wall_drift_ppm = 0
        """How much faster than that the wall clock runs."""
        self.paused_until_us = 0
        self.backlog: list[Event] = []
        self.durable = 0
        self.held: list[Effect] = []
        self.unwritten: list[tuple[int, Callable[[], None]]] = []
        self.writing = False
        self.slow_disk = False
        self.hanging_disk = False
        self.processes: dict[str, Process] = {}
        self.holding: set[str] = set()
        """Executions that this session has started or adopted: while they run, each has a slot."""
        self.ended: dict[str, Ending] = {}
        self.connected: effects.Connect | None = None
        self.known: dict[str, Endpoint | None] = {}
        """The members that it is connected to, and where it takes them to be."""
        self.arrived: events.SnapshotArrived | None = None
        self.wake_us = 0
        """When it wants to be woken."""
        self.waking_us = NEVER_US
        """The instant for which a wake stands in the queue; it may come too early, never too late."""
        self.is_copy = False
        """Its disk is a copy of another machine's, under whose node id it starts."""
        self.recovers = False
        """An operator has had the agent's directory recovered: the next start goes on alone."""
        self.checked_index = 0
        self.checked_commit = 0
        self.checked_roster = 0, 0
        """Term and index of the last roster in its log when it led and was looked at."""

    @property
    def is_up(self) -> bool:
        """Whether its agent runs."""
        return self._agent is not None

    @property
    def agent(self) -> Agent:
        """The one that runs; there has to be one."""
        assert self._agent is not None, f"the agent of {self.name} is down"
        return self._agent

    def now(self) -> Instant:
        passed = self.world.now_us - BOOT_US
        boot_us = self.boot_shift_us + self.world.now_us + passed * self.drift_ppm // 1_000_000
        wall_us = START_WALL_US + passed + passed * self.wall_drift_ppm // 1_000_000
        return Instant(boot_us, wall_us + self.wall_shift_us)

    def turn_clock(self, by_us: int) -> None:
        """Somebody sets this machine's wall clock."""
        self.wall_shift_us += by_us
        self.world.clocks_turned = True

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"host{self.number}", 1000 + self.session, 2000 + self.session, 3000 + self.session)

    # life of the agent

    def start(self) -> None:
        """Have its agent run; one whose disk is damaged refuses (DamagedStore)."""
        if not self.disk.is_whole():
            return
        self.session += 1
        self.starts_taken += 1
        self.durable, self.held, self.holding = 0, [], set()
        self.unwritten, self.writing = [], False
        self.connected, self.known = None, {}
        self.waking_us = NEVER_US
        self.checked_index = 0
        settings = Settings(
            node_id=self.node_id,
            name=self.name,
            session=self.starts_taken,
            start_id=f"start{self.number}.{self.session}",
            tags=self.tags,
            facts={},
            slots=self.slots,
            horizon_us=3 * SECOND_US,
            cluster=f"{self.world.random.getrandbits(128):032x}",
            tokens=(),
            public_key=f"key-{self.node_id}",
            endpoint=self.endpoint,
            priority=self.priority,
            eligible=self.eligible,
            form_at_once=False,
            expect=self.expect,
            timing=self.world.timing,
            generation=messages.next_generation(self.disk.mark.generation, self.node_id) if self.recovers else 0,
        )
        self.recovers = False
        if not self.is_copy:
            self.world.tags[self.node_id] = self.tags
        self._agent = self.build(settings, self.disk.load())
        self.checked_commit = self.agent.ledger.commit_index
        self.perform(self.agent.start(self.now()))
        self.set_wake()
        self.world.announce(self)

    def crash(self) -> None:
        """All that was not persisted is gone; processes run on; the others see its connections close, or nothing."""
        self._agent = None
        self.session += 1
        self.backlog.clear()
        self.paused_until_us = 0
        silent = self.world.deaths.random() < self.world.silent_chance
        self.world.happened["silent death"] += silent
        for other in self.world.hosts:
            if other is not self and other.connected and self.node_id in other.connected.dial:
                delay = self.world.random.randrange(20_000, 60_000)
                if not silent:
                    other.later(delay, lambda o=other: self._seen_gone(o))  # type: ignore[misc]

    def roll_back(self, disk: Disk) -> None:
        """The machine comes back with the disk as it once was, and its agent believes it."""
        self.crash()
        self.world.rolled_back = True
        self.disk = copy.deepcopy(disk)
        self.start()

    def copy_of(self, other: Host) -> None:
        """This machine has a copy of another one's data directory, as it now is."""
        self.world.rolled_back = self.is_copy = True
        self.disk = copy.deepcopy(other.disk)
        self.node_id, self.name, self.starts_taken = other.node_id, other.name, other.starts_taken

    def wipe(self) -> None:
        """A new disk in the machine: whoever starts on it is somebody else with the same name."""
        assert self._agent is None
        if not self.is_copy:
            self.world.lost_disks[self.node_id] = self.disk
        self.is_copy = False
        self.disk = Disk()
        self.node_id = f"{self.world.random.getrandbits(128):032x}"
        self.starts_taken = 0

    def _seen_gone(self, other: Host) -> None:
        if self._agent is None and (self, other) not in self.world.cuts and (other, self) not in self.world.cuts:
            other.give(events.PeerGone(self.node_id))

    def pause(self, for_us: int) -> None:
        """SIGSTOP: what arrives meanwhile waits in the sockets."""
        self.paused_until_us = self.world.now_us + for_us
        self.world.later(for_us, self._go_on)

    def _go_on(self) -> None:
        if not self.paused_until_us or self.world.now_us < self.paused_until_us:
            return
        self.paused_until_us = 0
        backlog, self.backlog = self.backlog, []
        for event in backlog:
            self.give(event)
        self.give(events.Woke())

    def wake_up(self) -> None:
        """SIGCONT, before the pause would be over."""
        self.paused_until_us = min(self.paused_until_us, self.world.now_us)
        self._go_on()

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """Have something happen while this session of the agent lives."""
        session = self.session

        def if_alive() -> None:
            if self.session == session:
                act()

        self.world.later(delay_us, if_alive)

    # events and effects

    def give(self, event: Event) -> None:
        if self._agent is None:
            return
        if self.paused_until_us:
            self.backlog.append(event)
            assert len(self.backlog) <= BACKLOG_MAX, f"17: {len(self.backlog)} events wait at {self.name}"
            return
        self.world.events += 1
        fence = self.agent.runner.fence
        wanted = self.agent.handle(event, self.now())
        self.world.watch(self)
        for effect in wanted:
            if isinstance(effect, effects.Persist):
                self.world.check_rows(self.agent, effect.rows)
            elif isinstance(effect, effects.Answer):
                self.world.made_from[effect.call_id] = self.agent.state.applied[0]
        if self.world.events % SAMPLE_EVERY == 0:
            self.world.check_samples()
        self.world.check_fence(event, fence, wanted)
        self.perform(wanted)
        if isinstance(event, events.Persisted) and self._agent is not None:
            self.durable = max(self.durable, event.n)
            ready = [one for one in self.held if getattr(one, "after", 0) <= self.durable]
            self.held = [one for one in self.held if getattr(one, "after", 0) > self.durable]
            self.perform(ready)
        self._check_queues()
        self.set_wake()

    def _check_queues(self) -> None:
        """17: whatever waits here is bounded."""
        if self._agent is None:
            return
        runner, ours = self.agent.runner, self.agent.leadership.ours
        waiting = {
            "effects": len(self.held),
            "groups of rows": len(self.unwritten),
            "results": len(runner._outbox),
            "deadlines": len(runner._deadlines),
            "due times": len(runner._due),
            "remembered": len(runner._seen),
            "to be forgotten": len(runner._forgettable),
        }
        if ours is not None:
            waiting["orders"] = len(ours._dispatch._pending)
            waiting["repetitions"] = len(ours._dispatch._resend)
            waiting["unsent"] = len(ours._dispatch._unsent)
        assert max(waiting.values()) <= WAITING_MAX, f"17: at {self.name} wait {waiting}"
        if self.agent.ledger.leads:
            for one in self.agent.ledger._replication._progress.values():
                assert len(one.in_flight) <= IN_FLIGHT_MAX, f"17: {len(one.in_flight)} appends are on their way"
        if ours is not None:
            specs = ours._dispatch._specs.keys()
            assert specs <= self.agent.state.open_of.keys(), f"17: the leader keeps Specs of what is over: {specs}"

    def set_wake(self) -> None:
        if self._agent is None or self.paused_until_us:
            return
        now = self.now()
        self.wake_us = self.world.now_us + max(20, self.agent.next_wakeup(now) - now.boot_us)
        if self.wake_us < self.waking_us:
            self._queue_wake()

    def _queue_wake(self) -> None:
        due_us = self.waking_us = self.wake_us

        def wake() -> None:
            if self.waking_us != due_us:
                return  # one that comes earlier was asked for meanwhile
            self.waking_us = NEVER_US
            if self.paused_until_us:
                return  # it is given one when it goes on
            if self.wake_us > due_us:
                self._queue_wake()
            else:
                self.give(events.Woke())

        self.later(due_us - self.world.now_us, wake)

    def perform(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            if self._agent is None:
                return
            if self.world.crash_chance and self.world.random.random() < self.world.crash_chance:
                self.world.crashes += 1
                self.crash()
                return
            if getattr(effect, "after", 0) > self.durable:
                self.held.append(effect)
            else:
                self.do(effect)

    def do(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - one arm a kind of effect
        world = self.world
        if world.tap is not None and world.tap(self, effect):
            return
        match effect:
            case effects.Persist():
                # What one entry opens the next of the same turn may close, where a member goes: nobody sees it open.
                world.intended.update(row.execution.id for row in effect.rows if isinstance(row, ExecutionRow))
                self._persist(effect.n, lambda: self.disk.write(effect.rows))
            case effects.InstallSnapshot():
                assert self.arrived is not None
                snapshot, offered = self.arrived, self.disk.offered

                def install() -> None:
                    world.happened["snapshot"] += 1
                    self.disk.offered = offered  # another one may have arrived since
                    self.disk.install(snapshot)

                self._persist(effect.n, install)
            case effects.Send():
                world.send(self, effect.to, effect.message)
            case effects.Publish():
                world.publish(self, effect.topic, effect.message)
            case effects.SendSnapshot():
                world.send_snapshot(self, effect)
            case effects.Knock():
                world.knock(self, effect)
            case effects.Connect():
                self.connected = effect
                self.known = {one.node_id: one.endpoint for one in effect.members}
            case effects.StartOver():
                self._agent = None
                self.wipe()  # set aside (set_aside.py); under the old id it must not vote again without its memory
                self.session += 1
                self.later(100_000, self.start)
            case effects.Answer():
                world.answers[effect.call_id] = effect.outcome
                world.check_answer(self, effect.call_id, effect.outcome)
            case effects.StartProcess():
                self.spawn(effect.launch.execution_id, effect.launch.env)
            case effects.AdoptProcess():
                self.later(50, lambda: self.adopt(effect.execution_id))
            case effects.SignalProcess():
                world.later(1000, lambda: self.end(effect.execution_id, None, 15))
            case effects.Alarm():
                assert effect.code != "amnesia" or world.rolled_back, f"a disk is accused that forgot nothing: {effect}"
                assert effect.code != "clock_wrong" or world.clocks_turned, f"a right clock is called wrong: {effect}"
                assert effect.code != "rows_differ" or world.differ, f"5: like rows are said to differ: {effect}"
                world.alarms[effect.code] += 1
            case effects.ForgetProcess():
                pass
            case effects.Halt():
                assert self._agent is not None
                if self.agent.is_copy:
                    assert world.rolled_back, f"an agent is taken for a copy: {effect.why}"
                else:
                    assert world.halts is not None, effect.why
                    world.halts[self.name] = effect.why
                self.crash()

    def _persist(self, n: int, write: Callable[[], None]) -> None:
        """One writer, in order: whatever has gathered while it wrote is its next group."""
        self.unwritten.append((n, write))
        if not self.writing:
            self._commit()

    def _commit(self) -> None:
        group, self.unwritten = self.unwritten, []
        self.writing = True
        delay = self.world.random.choice((150, 200, 400, 3_000))
        if self.slow_disk:
            delay = self.world.random.choice((50_000, 400_000, 1_500_000))
        if self.hanging_disk:
            delay = self.world.random.randrange(2 * SECOND_US, 5 * SECOND_US)

        def durable() -> None:
            self.writing = False
            for _, write in group:
                write()
            if self.world.crash_chance and self.world.random.random() < self.world.crash_chance:
                self.crash()  # durable, and nobody was told
                return
            if self.unwritten:
                self._commit()
            self.give(events.Persisted(group[-1][0]))

        self.later(delay, durable)

    # processes

    def spawn(self, execution_id: str, env: dict[str, str] | None) -> None:
        world = self.world
        world.starts[execution_id] += 1
        assert world.starts[execution_id] == 1, f"6: {execution_id} started twice"
        assert self.disk.says_of(execution_id) == "starting", "8: a start that was not written down as one"
        world.check_start(self, execution_id, env or {})
        world.pids += 1
        self.processes[execution_id] = Process(world.pids, (env or {}).get("MESHCRON_RUN", ""))
        self.holding.add(execution_id)
        busy = len(self.holding & self.processes.keys())
        assert busy <= self.slots, f"17: {busy} processes of {self.name} in {self.slots} slots"
        pid = world.pids
        self.later(
            300,
            lambda: self.give(
                events.ProcessStarted(execution_id, pid, self.now().boot_us // 10_000, self.now().wall_us)
            ),
        )
        code, lasts = 0, world.lasts_us
        if not lasts:
            code = 0 if world.random.random() < 0.8 else 1
            lasts = world.random.choice((500, 2_000, 800_000, 4 * SECOND_US))
        world.later(lasts, lambda: self.end(execution_id, code, None))

    def end(self, execution_id: str, code: int | None, signal: int | None) -> None:
        if self.processes.pop(execution_id, None) is None:
            return
        ending = Ending(
            exit_code=code,
            signal=signal,
            finished_wall_us=self.now().wall_us,
            output_tail=self.world.says,
            output_bytes=len(self.world.says),
            output_truncated=False,
        )
        self.ended[execution_id] = ending
        self.later(400, lambda: self.give(events.ProcessEnded(execution_id, ending)))

    def adopt(self, execution_id: str) -> None:
        if execution_id in self.processes:
            self.holding.add(execution_id)
            pid = self.processes[execution_id].pid
            self.give(events.ProcessStarted(execution_id, pid, self.now().boot_us // 10_000, self.now().wall_us))
        elif execution_id in self.ended:
            self.give(events.ProcessEnded(execution_id, self.ended[execution_id], self.now().wall_us))
        else:
            self.give(events.ProcessLost(execution_id, "no process and no status"))


class Cluster:
    """A seed's whole run."""

    def __init__(self, seed: int, timing: Timing = SHORT) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.happened: Counter[str] = Counter()
        """How often what seeds are to contain; a test looks that they do."""
        self.timing = timing
        self.now_us = BOOT_US
        self.hosts: list[Host] = []
        self.weather = Weather()
        self.cuts: set[tuple[Host, Host]] = set()
        """Directed: messages from the one to the other vanish."""
        self.crash_chance = 0.0
        self.crashes = 0
        self.silent_chance = 0.0
        """How likely nobody sees a connection close when a machine crashes: its power fails, and what is sent to it is
        not even refused."""
        self.deaths = own_dice(seed, "deaths")
        self.events = 0
        self.pids = 100
        self.starts: Counter[str] = Counter()
        self.answers: dict[str, object] = {}
        self.alarms: Counter[str] = Counter()
        self.clocks_turned = False
        self.halts: dict[str, str] | None = None
        """Why agents stopped for good, by host; None = none may."""
        self.intended: set[str] = set()
        """Executions that some agent has applied the intent of."""
        self.leaders: dict[tuple[str, int, int], str] = {}
        self.committed: dict[tuple[str, int, int], tuple[int, int]] = {}
        """By cluster, generation and term or index."""
        self.digests: dict[tuple[str, int, int], int] = {}
        """Of the rows that the first to apply an entry came to."""
        self.differ = False
        """A story has somebody come to other rows."""
        self.newest: dict[tuple[str, int], int] = {}
        """The last entry that anybody has applied, by cluster and generation."""
        self.voting: dict[str, frozenset[str]] = {}
        """Who votes in each cluster and generation, as its leader has it."""
        self.cursors: dict[tuple[str, int], tuple[int, int]] = {}
        """Clock epoch and cursor of each job, by cluster."""
        self.hand_overs: dict[str, tuple[int, int]] = {}
        """The last hand-over of each cluster and how long it holds down the next."""
        self.taken_over: dict[str, int] = {}
        """When the last hand-over was decided whose heir was told, by cluster."""
        self.tags: dict[str, dict[str, str]] = {}
        """Of every agent there ever was, by node id."""
        self.folded: dict[tuple[str, int], int] = {}
        """The last entry whose records were looked at, by cluster and generation."""
        self.records: dict[tuple[str, str, int], dict[str, Execution]] = {}
        """Executions by cluster, run and attempt, then by id, as the entries told of them, the newest word on each."""
        self.followed: defaultdict[tuple[str, str, int], set[str]] = defaultdict(set)
        """Ids by cluster, run and attempt, of those after which another attempt may follow: as they first ended, for
        what a lost one turns out to be decides nothing any more."""
        self.told: dict[str, Execution] = {}
        """The newest word on each execution, by id."""
        self.alone: set[str] = set()
        """Ids of executions that may not overlap what was decided before them: their job forbids it, has them wait, or
        has them take its place."""
        self.pruned: set[int] = set()
        """Uids of jobs of which somebody has dropped records."""
        self.chains: dict[tuple[str, int, int, int], int] = {}
        """Chain CRC of each entry that was looked at, by cluster, generation, index and term."""
        self.folds: dict[tuple[str, int], tuple[Catalog, State]] = {}
        """By cluster and generation: what the entries come to, folded in once more."""
        self.acknowledged: dict[tuple[str, int], int] = {}
        """The newest revision of each job that somebody was told is written."""
        self.deletable: set[str] = set()
        """Names of jobs that somebody may have deleted."""
        self.asked: dict[str, commands.Command] = {}
        """By the id of the call."""
        self.pausing = ""
        """The last call to pause or to go on."""
        self.leavers: set[str] = set()
        """Node ids of members of which somebody was told that they go."""
        self.answered: dict[tuple[str, int, str], int] = {}
        """By cluster, generation and node id: what this agent had applied when it made the last answer that it gave.
        Whoever has heard that reads no older state there."""
        self.made_from: dict[str, int] = {}
        """What was applied when an answer was made, by the id of its call: it leaves once that is durable, and what was
        applied meanwhile may be lost again."""
        self.healed_us = self.healed_steps = 0
        self.settled_wall_us = 0
        """By the leader's clock when all was calm: what was due until then is decided, and over."""
        """The beginning of the quiet, and how often the clocks had stepped by then."""
        self.votes: dict[tuple[str, str, int], str] = {}
        """Whom a voter has told that it votes for it, by cluster and term: a restart does not make it another one."""
        self.late_us: dict[str, int] = {}
        """How long after its tick an execution started, by a clock that is always right."""
        self.rolled_back = False
        self.again_max: dict[int, tuple[int, int]] = {}
        """By uid: up to which attempt one that fails is followed by another, and one that is lost: the most that any
        definition of the job has allowed."""
        self.lost_disks: dict[str, Disk] = {}
        """By node id: what was on disks that are no more. They may have acknowledged an entry just before."""
        self.home = ""
        """The cluster that people ask once it is lived in. A newcomer that nobody answers forms one of its own, and
        joins this one when it can; whoever asked that one would have two that never merge."""
        """A script put an older disk into some machine: nobody accuses a follower of that otherwise."""
        self.lasts_us = 0
        """How long every process runs, and then ends well; 0 = the seed decides."""
        self.says = ""
        """What every process writes."""
        self.tap: Callable[[Host, Effect], bool] | None = None
        """A script sees every effect at the moment it leaves; True = it does not leave."""
        self.hold: Callable[[Host, Host, messages.Message], bool] | None = None
        """A script keeps messages back: they hang in `hung` until `release`."""
        self.hung: list[Callable[[], None]] = []
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._nodes: dict[str, Host] = {}

    # building

    def add(self, tags: dict[str, str] | None = None, *, eligible: bool = True, priority: int = 100) -> Host:
        host = Host(self, len(self.hosts), tags or {"role": "web"}, eligible=eligible, priority=priority)
        self.hosts.append(host)
        return host

    def by_node(self, node_id: str) -> Host | None:
        known = self._nodes.get(node_id)
        if known is None or known.node_id != node_id:  # a wiped machine is somebody else from then on
            self._nodes = {host.node_id: host for host in self.hosts if not host.is_copy}
            known = self._nodes.get(node_id)
        return known

    def leader(self) -> Host | None:
        """The leader of the highest generation and term, of the cluster that is lived in where one is."""
        leading = [
            (host, host.agent)
            for host in self.hosts
            if host.is_up and host.agent.leading and host.agent.cluster == (self.home or host.agent.cluster)
        ]
        best = max(leading, key=lambda one: (one[1].generation, one[1].ledger.term), default=(None, None))
        return best[0]

    # time

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._order, act))

    def run_for(self, seconds: float) -> None:
        until = self.now_us + int(seconds * SECOND_US)
        while self._queue and self._queue[0][0] <= until:
            self.now_us, _, act = heapq.heappop(self._queue)
            act()
        self.now_us = until

    def run_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        until = self.now_us + int(seconds * SECOND_US)
        while self.now_us < until:
            if condition():
                return True
            self.run_for(0.05)
        return condition()

    # network

    def _delay_us(self) -> int:
        if self.weather.straggle and self.random.random() < self.weather.straggle:
            return self.random.randrange(1, self.weather.straggle_us)
        return self.random.randrange(*self.weather.delay_us)

    def _passes(self, source: Host, target: Host) -> bool:
        return (source, target) not in self.cuts and self.random.random() >= self.weather.loss

    def _carry(self, source: Host, target: Host, message: messages.Message) -> None:
        cluster = source.connected.cluster if source.connected else ""
        generation = source.connected.generation if source.connected else 0
        sender, receiver = source.node_id, target.node_id
        copies = 2 if self.weather.duplicate and self.random.random() < self.weather.duplicate else 1
        for _ in range(copies):
            if not self._passes(source, target):
                continue

            def arrive() -> None:
                if not target.is_up or target.connected is None or target.connected.cluster != cluster:
                    return  # each message names its cluster: those of another one are dropped
                if target.node_id != receiver or sender not in target.known:
                    return  # a machine with a new disk has new keys
                if generation == target.connected.generation:
                    target.give(events.MessageReceived(sender, message))
                elif generation > target.connected.generation:
                    target.give(events.HigherGeneration(sender, generation))

            if self.hold is not None and self.hold(source, target, message):
                self.hung.append(arrive)
            else:
                self.later(self._delay_us(), arrive)

    def release(self) -> None:
        """What hung in a queue arrives after all, whoever listens there by now."""
        hung, self.hung = self.hung, []
        for at, arrive in enumerate(hung):
            self.later(100 + at, arrive)

    def send(self, source: Host, to: str, message: messages.Message) -> None:
        named = [host for host in self.hosts if host.node_id == to]
        target = next((host for host in named if host is source or self._dials(source, host)), None)
        self.check_message(source, to, message)
        if target is source:
            source.later(5, lambda: source.give(events.MessageReceived(source.node_id, message)))
        elif target is not None:
            self._carry(source, target, message)

    def publish(self, source: Host, topic: str, message: messages.Message) -> None:
        self.check_message(source, "", message)
        self.check_published(message)
        for target in self.hosts:
            if target is source or not target.is_up or target.connected is None:
                continue
            if source.node_id not in target.connected.dial or not self._knows_endpoint(target, source):
                continue
            if topic in {HEARTBEATS, ALL} or topic in {tag_topic(*tag) for tag in target.agent.tags.items()}:
                self._carry(source, target, message)

    def _dials(self, source: Host, target: Host) -> bool:
        return source.connected is not None and self._knows_endpoint(source, target)

    def _knows_endpoint(self, subscriber: Host, source: Host) -> bool:
        return source.node_id in subscriber.known and subscriber.known[source.node_id] == source.endpoint

    def announce(self, host: Host) -> None:
        """mDNS: each learns of the other, after a while."""
        for other in self.hosts:
            if other is host or not other.is_up:
                continue
            for one, another in ((host, other), (other, host)):
                endpoint = another.endpoint

                self._until_found(one, another, endpoint, self.random.randrange(1_000, 300_000))

    def _until_found(self, one: Host, another: Host, endpoint: Endpoint, delay_us: int) -> None:
        """A browser asks again until it hears the answer."""

        def hear() -> None:
            if not another.is_up or another.endpoint != endpoint:
                return
            if (another, one) in self.cuts or (one, another) in self.cuts:
                self._until_found(one, another, endpoint, 2 * SECOND_US)
            else:
                one.give(events.Found(endpoint.host, endpoint.gate_port, another.node_id))

        one.later(delay_us, hear)

    def knock(self, source: Host, effect: effects.Knock) -> None:
        """A connection of its own each time, with a handshake, which is given up after KNOCK_TAKES_US."""

        def at_gate() -> None:
            target = next(
                (
                    host
                    for host in self.hosts
                    if host.is_up and (host.endpoint.host, host.endpoint.gate_port) == (effect.host, effect.port)
                ),
                None,
            )
            if target is None or not target.is_up or target.paused_until_us or not self._passes(source, target):
                return
            answer = target.agent.answer(effect.hello, target.now())
            target.give(events.HelloHeard(effect.hello))

            def back() -> None:
                if self._passes(target, source):
                    source.give(events.KnockAnswered(effect.host, effect.port, answer))

            if (delay_us := self._delay_us()) < KNOCK_TAKES_US:
                source.later(delay_us, back)

        if (delay_us := self._delay_us()) < KNOCK_TAKES_US:
            source.later(delay_us, at_gate)

    def send_snapshot(self, source: Host, effect: effects.SendSnapshot) -> None:
        target = self.by_node(effect.to)
        loaded = source.disk.load()
        begun_us = self.now_us

        def done(arrived: bool) -> None:
            source.give(events.SnapshotSent(effect.to, arrived))

        def arrive() -> None:
            index, term, crc = (int(part) for part in loaded.meta["applied"].split())
            if target is None or not target.is_up or not self._passes(source, target):
                if self.now_us - begun_us > STALLED_US:
                    done(arrived=False)
                else:
                    source.later(SECOND_US, arrive)
                return
            catalog = Loaded(
                ballot=BallotRow(0, ""),
                log=[],
                meta=loaded.meta,
                jobs=loaded.jobs,
                job_states=loaded.job_states,
                open_executions=loaded.open_executions,
                owed=loaded.owed,
                members=loaded.members,
                tokens=loaded.tokens,
                calls=loaded.calls,
                seen=[],
                specs=[],
                mark=MarkRow(0, 0, 0),
            )
            snapshot = events.SnapshotArrived(source.node_id, effect.term, index, term, crc, catalog)
            target.arrived = snapshot
            target.disk.offered = dict(executions), index
            target.give(snapshot)
            source.later(1000, lambda: done(arrived=True))

        executions = dict(source.disk.executions)
        source.later(self.random.randrange(2_000, 50_000), arrive)

    def split(self, *groups: list[Host]) -> None:
        """Cut every link between hosts of different groups."""
        for group in groups:
            for host in group:
                for other in self.hosts:
                    if other not in group and other is not host:
                        self.cuts |= {(host, other), (other, host)}

    def split_around(self, bridge: list[Host], one: list[Host], other: list[Host]) -> None:
        """Partitions that intersect: the two sides do not hear each other, whoever is the bridge hears both."""
        assert not set(bridge) & {*one, *other}
        for near in one:
            for far in other:
                self.cuts |= {(near, far), (far, near)}

    def heal(self) -> None:
        self.cuts.clear()
        self.weather = Weather()
        self.crash_chance = 0.0
        for host in self.hosts:
            host.slow_disk = host.hanging_disk = False

    # people

    def ask(self, command: commands.Command, call_id: str = "", key: str = "") -> str:
        """Ask the leader, where there is one. Returns the call's id."""
        self._order += 1
        call_id = call_id or f"call-{self._order}"
        self.asked[call_id] = command
        if isinstance(command, commands.SetPaused):
            self.pausing = call_id
        leader = self.leader()
        if leader is not None:
            leader.give(events.Proposed(call_id, command, key))
        return call_id

    # invariants

    def watch(self, host: Host) -> None:
        """What must hold after each event of a host."""
        agent = host.agent
        assert agent is not None
        if agent.ledger.leads and agent.cluster:
            key = agent.cluster, agent.generation, agent.ledger.term
            assert self.leaders.setdefault(key, host.node_id) == host.node_id, f"1: two leaders in term {key[2]}"
            voter = agent.ledger._voter
            if (voter.term, voter.rosters[-1][0]) > host.checked_roster:
                self._check_rosters(voter, host.checked_roster)
                host.checked_roster = voter.term, voter.rosters[-1][0]
        applied = agent.state.applied
        if applied[0] != host.checked_index and agent.cluster:
            host.checked_index = applied[0]
            life = agent.cluster, agent.generation
            self._check_read(host)
            first = applied[0] > self.newest.get(life, 0)
            known = self.committed.setdefault((*life, applied[0]), applied[1:])
            if first:
                self.newest[life] = applied[0]
                self._watch_state(agent)
            self.intended.update(agent.state.open)
            assert known == applied[1:], f"4: entry {applied[0]} was committed twice, differently"
            digest = agent.digest.at(applied[0])
            same = not digest or self.digests.setdefault((*life, applied[0]), digest) == digest
            assert same or self.differ, f"5: entry {applied[0]} came to other rows on {host.name}"
            agent.check()
            if agent.ledger.leads:
                self._check_copies(agent, *applied[:2])
        if agent.ledger.commit_index > host.checked_commit:
            if agent.ledger.leads:
                self._check_copies(agent, agent.ledger.commit_index, agent.ledger.term)
            host.checked_commit = agent.ledger.commit_index

    @staticmethod
    def _check_rosters(voter: Voter, checked: tuple[int, int]) -> None:
        """13: a leader changes one voter, behind a committed entry of its term and a committed roster. Looked at when
        it proposes: a roster that is overwritten is in no log at the end."""
        for before, (index, after) in pairwise(voter.rosters):
            if index < voter.first_index or (voter.term, index) <= checked:
                continue
            if not isinstance(entries.decode(voter.log.row(index).body), entries.Roster):
                continue  # a cluster is formed, or recovered
            assert voter.commit_index >= voter.first_index, f"13: no entry of term {voter.term} is committed"
            assert before[0] <= voter.commit_index, "13: who votes changes before the last change is committed"
            assert len(before[1] ^ after) == 1, "13: more than one voter changed at once"

    def _watch_state(self, agent: Agent) -> None:
        """What holds between a state and the ones before it; asked of whoever applies an entry first."""
        state, cluster = agent.state, f"{agent.cluster} {agent.generation}"
        if agent.ledger.leads:
            voted, self.voting[cluster] = self.voting.get(cluster, frozenset()), agent.ledger.voters
            for gone in voted - agent.ledger.voters:
                host, member = self.by_node(gone), state.member_of(gone)
                dead = host is not None and not host.is_up and member is not None and not member.leaving
                self.happened["dead voter replaced"] += dead
        if state.hand_over != self.hand_overs.get(cluster, (0, 0)):
            last_us, hold_us = self.hand_overs.get(cluster, (0, 0))
            assert state.hand_over[0] >= last_us + hold_us, "15: two hand-overs within the hold-down"
            self.hand_overs[cluster] = state.hand_over
        for uid, job in state.jobs.items():
            cursor = job.epoch, job.cursor_wall_us
            before = self.cursors.get((cluster, uid), cursor)
            assert cursor >= before, f"10: the cursor of job {job.job.name} fell from {before} to {cursor}"
            self.cursors[cluster, uid] = cursor
            retries, reruns = self.again_max.get(uid, (0, 0))
            again = RERUNS_MAX if job.job.on_lost == "rerun" else 0
            self.again_max[uid] = max(job.job.retries, retries), max(again, reruns)

    def check_rows(self, agent: Agent, rows: tuple[Row, ...]) -> None:
        """What entries record of executions, entry by entry; asked of whoever applies each first."""
        life, some = (agent.cluster, agent.generation), []
        for row in rows:
            if isinstance(row, ExecutionRow):
                some.append(row.execution)
            elif isinstance(row, DropHistory):
                self.pruned.add(row.uid)
            elif isinstance(row, MetaRow) and row.key == "applied":
                index, found, some = int(row.value.split()[0]), some, []
                if index > self.folded.get(life, 0):
                    self.folded[life] = index
                    for execution in found:
                        self._check_record(agent, execution)

    def _stays(self, agent: Agent, told: Execution) -> bool:
        """Whether an attempt is where the one before it was, by a leader that has not heard that agent and so knows no
        tags of it: the job may have been edited in between."""
        before = self.records.get((agent.cluster, told.run_id, told.attempt - 1), {}).values()
        edited = any(one.node_id == told.node_id and one.revision != told.revision for one in before)
        leads = agent.leadership.ours
        return edited and not (leads and any(one.node_id == told.node_id for one in leads._intents.candidates))

    def _check_record(self, agent: Agent, told: Execution) -> None:
        """Who may run it, and whether its attempt has its turn."""
        known = self.records.setdefault((agent.cluster, told.run_id, told.attempt), {})
        opens = told.id not in known and not told.status.final
        ends = told.status.final and (told.id not in known or not known[told.id].status.final)
        known[told.id] = self.told[told.id] = told
        most_attempts = self.again_max.get(told.uid, (1 << 62, 1 << 62))[told.status is Status.LOST]
        badly = told.status in {Status.FAILED, Status.TIMEOUT, Status.LOST} and told.stop != "kill"
        if ends and badly and told.attempt <= most_attempts:
            self.followed[agent.cluster, told.run_id, told.attempt].add(told.id)
        if not opens:
            return
        job = agent.state.definition(told.uid, told.revision)
        if job is not None and job.concurrency != "allow":
            self.alone.add(told.id)
        for key, value in ((job.tags if job is not None else None) or {}).items():
            wanted, _, most = value.partition(":")
            assert self.tags[told.node_id].get(key) == wanted or self._stays(agent, told), (
                f"7: {told.run_id} runs on {told.agent}, no {key}={wanted}"
            )
            targets = {one.node_id for one in known.values()}
            enough = not most or told.attempt > 1 or len(targets) <= int(most)
            assert enough, f"7: {told.run_id} is for {len(targets)} agents, wanted are {most}"
        if told.attempt == 1:
            return
        over = len(self.followed[agent.cluster, told.run_id, told.attempt - 1])
        begun = sum(one.due_cluster_us > 0 for one in known.values())
        assert begun <= over, f"12: {begun} times attempt {told.attempt} of {told.run_id}, {over} before it allow one"

    def check_samples(self) -> None:
        """Now and then: logs agree with all that was ever seen in one, and states are what the entries come to."""
        holders = [(host, host.agent) for host in self.hosts if host.is_up and host.agent.holds_log]
        for host, agent in sorted(holders, key=lambda one: one[1].state.applied[0]):
            life, rows = (agent.cluster, agent.generation), host.disk.log
            for index in range(max(1, host.disk.last_index - SAMPLED_ENTRIES), host.disk.last_index + 1):
                if index in rows:
                    crc = self.chains.setdefault((*life, index, rows[index].term), rows[index].crc)
                    assert crc == rows[index].crc, f"3: entry {index} of term {rows[index].term} differs on {host.name}"
            if host.build is Agent:
                self._check_fold(agent, life)

    def _check_fold(self, agent: Agent, life: tuple[str, int]) -> None:
        log, state = agent.ledger._voter.log, agent.state
        if life not in self.folds and log.base_index == 0:
            self.folds[life] = Catalog(fresh := State.load(Disk().load())), fresh
        if life not in self.folds:
            return
        catalog, ours = self.folds[life]
        if not log.base_index <= ours.applied[0] <= state.applied[0]:
            return
        for index in range(ours.applied[0] + 1, state.applied[0] + 1):
            row = log.row(index)
            catalog.apply(Committed(index, row.term, row.crc, entries.decode(row.body)))
        other = unlike(ours, state)
        assert not other or self.differ, f"5: up to entry {state.applied[0]} the log comes to other {other}"

    def _check_copies(self, agent: Agent, index: int, term: int) -> None:
        """What a leader calls committed, or has acted on, lies on the disks of a majority, now."""
        voters = agent.ledger.voters
        disks = [
            *self.lost_disks.items(),
            *((host.node_id, host.disk) for host in self.hosts),
        ]  # a copy has the same id
        holders = {node_id for node_id, disk in disks if node_id in voters and _holds(disk, index, term)}
        assert 2 * len(holders) > len(voters), f"4: entry {index} is committed, {len(holders)} disks hold it"

    def check_answer(self, host: Host, call_id: str, outcome: object) -> None:
        """Whoever says that something is written reads it from then on."""
        assert host.is_up
        if isinstance(outcome, Exception):
            return
        agent = host.agent
        self.answered[agent.cluster, agent.generation, host.node_id] = self.made_from[call_id]
        going = {outcome.node_id} if isinstance(outcome, Member) else set()
        self.leavers |= going
        self.check_people(host, call_id, going)
        if not isinstance(outcome, commands.JobAnswer) or outcome.view.job.name in self.deletable:
            return
        uid, revision = outcome.view.uid, outcome.view.revision
        held = agent.state.jobs.get(uid)
        assert held is not None, f"14: {host.name} says that job {outcome.view.job.name} is written"
        assert held.revision >= revision, f"14: {host.name} says that revision {revision} is written"
        key = outcome.view.job.name, uid
        self.acknowledged[key] = max(revision, self.acknowledged.get(key, 0))

    def check_people(self, host: Host, call_id: str, going: set[str]) -> None:
        """14: what was answered is so: a pause, where nobody has asked for another since, and who is to go."""
        state, asked = host.agent.state, self.asked.get(call_id)
        if isinstance(asked, commands.SetPaused) and call_id == self.pausing:
            assert state.paused == asked.paused, f"14: {host.name} says that paused={asked.paused} is written"
        stay = [one.name for one in state.members.values() if one.node_id in going and not one.leaving]
        assert not stay, f"14: {host.name} says that {stay} are on their way out"

    def _check_read(self, host: Host) -> None:
        """Whoever reads here reads all that was answered here before, whatever became of the agent meanwhile. (One
        whose disk went back is no agent that anybody may believe.)"""
        agent = host.agent
        least = self.answered.get((agent.cluster, agent.generation, host.node_id), 0)
        here = agent.state.applied[0]
        assert here >= least or self.rolled_back, f"14: {host.name} reads {here}, and has answered for {least}"

    def check_message(self, source: Host, to: str, message: messages.Message) -> None:
        """Nobody says what is not so, or not durable, or more than fits."""
        agent = source.agent
        assert_fits(message)
        assert agent is not None
        match message:
            case messages.Vote():
                self._vote(source, message.term, source.node_id)
            case messages.VoteReply(granted=True):
                self._vote(source, message.term, to)
            case messages.Appended(ok=True):
                held = max(_durable_index(source.disk), source.disk.left.get(message.term, 0))
                assert message.match_index <= held, f"{source.name} acknowledges {message.match_index}, holds {held}"
            case messages.RunAck():
                taken = {ack.execution_id for ack in message.acks if ack.state == "accepted"}
                assert taken <= source.disk.taken, f"{source.name} accepts before it is written down"
            case messages.TakeOver():
                self._check_hand_over(agent, source.node_id)
            case messages.Run():
                for order in message.orders:
                    assert order.execution_id in self.intended, f"8: {order.execution_id} is ordered before its commit"
            case _:
                pass

    @staticmethod
    def check_published(message: messages.Message) -> None:
        """Whoever listens to every topic learns ids only."""
        if isinstance(message, messages.Run):
            assert not any(order.env for order in message.orders), "a run's parameters are published"
            assert not message.specs, "a job's command is published"

    def _check_hand_over(self, agent: Agent, leader: str) -> None:
        """Each follows from an entry of its own, and those keep their distance, unless the leader must not stay."""
        member = agent.state.member_of(leader)
        if member is None or member.leaving or not member.eligible or not agent._settings.eligible:
            return
        at_us, last_us = agent.state.hand_over[0], self.taken_over.get(agent.cluster, -HOLD_DOWN_MAX_US)
        assert at_us, "15: an heir is told, and nothing was decided"
        assert at_us >= last_us + catalog_members.HOLD_DOWN_US, "15: heirs are told twice within a hold-down"
        self.taken_over[agent.cluster] = at_us

    def _vote(self, source: Host, term: int, to: str) -> None:
        assert source.is_up
        voted = self.votes.setdefault((source.agent.cluster, source.node_id, term), to)
        assert voted == to, f"2: {source.name} votes twice in term {term}"
        ballot = source.disk.ballot
        durable = ballot.term > term or (ballot.term == term and ballot.voted_for == to)
        assert durable, f"2: {source.name} votes in term {term} before the vote is durable"

    @staticmethod
    def check_fence(event: Event, fence: messages.Fence, wanted: list[Effect]) -> None:
        """An order of an old leader changes nothing: nothing is accepted or stopped, nor what runs killed."""
        if not isinstance(event, events.MessageReceived):
            return
        if not isinstance(event.message, messages.Run | messages.Stop) or event.message.fence >= fence:
            return
        written = [row for one in wanted if isinstance(one, effects.Persist) for row in one.rows]
        obeyed = [one for one in (*written, *wanted) if isinstance(one, SeenRow | effects.SignalProcess)]
        assert not obeyed, f"9: an order of {event.message.fence} is obeyed"

    def check_start(self, host: Host, execution_id: str, env: dict[str, str]) -> None:
        """A start needs a committed intent, and no other run that it may not overlap."""
        assert execution_id in self.intended, f"8: {execution_id} starts without a committed intent"
        told = self.record(execution_id)
        assert told is None or told.status is not Status.SKIPPED, f"P2: {execution_id} was {told.reason} and starts"
        if "MESHCRON_SCHEDULED_AT" in env:
            scheduled = datetime.fromisoformat(env["MESHCRON_SCHEDULED_AT"]).timestamp()
            self.late_us[execution_id] = START_WALL_US + self.now_us - BOOT_US - int(scheduled) * SECOND_US
        running = [self.told[other_id] for other in self.hosts for other_id in other.processes]
        for other_run in running:
            self.check_overlap(self.told[execution_id], other_run)

    def check_overlap(self, one: Execution, other: Execution) -> None:
        """16: a run is decided while nothing of its job is open (unless its definition allows that); so two run at once
        only where the one decided first was recorded as lost, and nobody could know that it runs or still waits for
        its slot."""
        first, second = sorted((one, other), key=lambda told: told.index)
        if first.uid != second.uid or first.run_id == second.run_id or second.id not in self.alone:
            return
        assert first.status is Status.LOST, f"16: {second.run_id} overlaps {first.run_id}, which is {first.status}"

    def record(self, execution_id: str) -> Execution | None:
        """The newest record of an execution that anybody has applied."""
        best: tuple[int, Execution] | None = None
        for host in self.hosts:
            found = None
            index = 0
            if host.is_up:
                index = host.agent.state.applied[0]
                found = host.agent.state.open.get(execution_id)
            written = host.disk.executions.get(execution_id)
            if found is None and written is not None and (not host.is_up or written.status.final):
                found = written  # an open one that its agent has closed is an older row: the newer one is on its way
            if found is not None and (best is None or index > best[0]):
                best = index, found
        return best[1] if best else None

    def describe(self) -> str:
        lines = []
        for host in self.hosts:
            if not host.is_up:
                lines.append(f"{host.name} {host.node_id[:4]} down")
            else:
                agent = host.agent
                lines.append(
                    f"{host.name} {host.node_id[:4]} {agent.ledger.role} term {agent.ledger.term} "
                    f"commit {agent.ledger.commit_index}/{agent.ledger.last_index} voters "
                    f"{sorted(one[:4] for one in agent.ledger.voters)} cluster {agent.cluster[:4]} "
                    f"leader {agent.leader[:4]} failed {[one[:4] for one in agent.membership.failed]}"
                )
        return "\n".join(lines)
