"""Every agent: accept an order once, start it at its time, report until acknowledged (PROTOCOL 6, Runner).

At most one process starts for an execution id (P1): an id is written down before it is acknowledged, `starting` is
durable before the spawn, and a row is forgotten only when its result is acknowledged and no copy of its order can be
accepted any more (start_by <= the durable mark of cluster time).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice
from typing import Literal

from meshcron.core.clocks import ClusterClock
from meshcron.core.effects import AdoptProcess, ForgetProcess, Send, SignalProcess, StartProcess
from meshcron.core.events import ProcessEnded, ProcessLost, ProcessNotStarted, ProcessStarted
from meshcron.core.pieces import MESSAGE_ITEMS_BYTES, json_bytes, pieces
from meshcron.core.seen import DEAD, SEEN_CHANGES, Seen
from meshcron.core.specs import Specs, launch_of, spec_digest
from meshcron.core.turn import Turn
from meshcron.messages import (
    Ack,
    Fence,
    Order,
    Result,
    ResultAck,
    ResultItem,
    Run,
    RunAck,
    StartedItem,
    StartedReport,
    Stop,
    StopAck,
    StopAckItem,
)
from meshcron.model import SECOND_US, Spec
from meshcron.rows import Drop, Loaded, MarkRow

GRACE_US = 10 * SECOND_US
"""Between TERM and KILL (PROTOCOL 6)."""

STARTS_PER_TURN = 64
"""How many processes one event may start, so that no turn of the loop takes over 20 ms (PROTOCOL 8)."""

GIVEN_UP_PER_TURN = 200
"""How many executions that have waited for too long end in one turn, for the same reason."""

RESEND_US = SECOND_US
"""How long an outcome waits for its acknowledgement before it is sent again."""

FORGET_EVERY_US = SECOND_US
"""How often acknowledged rows are looked through for those that may be forgotten."""

DEAD_DEADLINES_MAX = 64
"""Deadlines of executions that have ended are looked for once there are so many, beside four for each that runs; two
each are the most that may still come true."""

TICKS_PER_SECOND = 100
"""The kernel's unit of a process's start time (USER_HZ, fixed at 100 on Linux for user space)."""


class Runner:
    """The executions of this agent."""

    def __init__(self, node_id: str, agent: str, session: int, slots: int, loaded: Loaded, clock: ClusterClock) -> None:
        self._node_id = node_id
        self._agent = agent
        self._session = session
        self.start_id = ""
        """Of this start; an order for another one is not ours."""
        self._slots = slots
        self._specs = Specs(loaded.specs)
        self._seen = {row.execution_id: Seen.from_row(row) for row in loaded.seen}
        self._fence = Fence(loaded.mark.generation, loaded.mark.term)
        self._mark_cluster_us = loaded.mark.cluster_us
        self._cluster = loaded.mark.cluster
        self._clock = clock
        self.leader = ""
        """Whom results go to; the agent keeps it current."""
        self._due: list[tuple[int, str]] = []
        self._unconfirmed: set[str] = set()
        """Accepted by an earlier session: a copy of this directory may hold them, too, so they fire only once a leader
        has ordered them of this start; at their start_by it is too late."""
        self._waiting: OrderedDict[str, int] = OrderedDict()
        """Due, and without a slot yet, in the order of their due times: since when, in cluster time."""
        self._given_up: list[tuple[int, str]] = []
        """Until when each of them waits, in cluster time."""
        self._busy = 0
        self._deadlines: list[tuple[int, str, bool]] = []
        self._outbox: dict[str, Seen] = {}
        self._outbox_boot_us = 0
        self._forgettable: list[tuple[int, str]] = []
        self._forgot_boot_us = 0
        self.more = False

    def resume(self, turn: Turn, *, disown: bool = False) -> None:
        """Take up what earlier sessions left: adopt processes, wait for a leader's word with the rest. `disown`: what
        has not started is dropped, because the cluster is about to record it as lost (recover, --adopt-data-dir)."""
        if disown:
            dropped = tuple(id_ for id_, seen in self._seen.items() if seen.state == "accepted")
            for execution_id in dropped:
                del self._seen[execution_id]
            turn.write(Drop("seen", dropped))
        for seen in self._seen.values():
            if seen.state in ("starting", "running"):
                self._busy += 1
                turn.at_once(AdoptProcess(seen.execution_id, seen.pid, seen.process_start))
            elif seen.state == "accepted" and seen.order:
                self._unconfirmed.add(seen.execution_id)
                heapq.heappush(self._due, (seen.start_by_cluster_us, seen.execution_id))
            elif seen.result and not seen.acknowledged:
                self._outbox[seen.execution_id] = seen
            elif seen.acknowledged:
                heapq.heappush(self._forgettable, (seen.start_by_cluster_us, seen.execution_id))

    # time

    def next_wakeup(self) -> int | None:
        """On the suspend-counting clock: the next fire time, deadline or resend."""
        wishes: list[int] = []
        if self._clock.running and self._due:
            wishes.append(self._clock.boot_us(self._due[0][0]))
        while self._given_up and self._given_up[0][1] not in self._waiting:
            heapq.heappop(self._given_up)
        if self._clock.running and self._given_up:
            wishes.append(self._clock.boot_us(self._given_up[0][0]))
        if self._deadlines:
            wishes.append(self._deadlines[0][0])
        if self._outbox and self.leader:
            wishes.append(self._outbox_boot_us + RESEND_US)
        if self._clock.running and self._forgettable:
            forgettable_boot_us = self._clock.boot_us(self._forgettable[0][0])
            wishes.append(max(forgettable_boot_us, self._forgot_boot_us + FORGET_EVERY_US))
        if self.more:
            wishes.append(0)
        return min(wishes, default=None)

    def woke(self, turn: Turn) -> None:
        """Whatever is due by now."""
        self.more = False
        self._fire(turn)
        self._pass_deadlines(turn)
        if self._outbox and turn.now.boot_us >= self._outbox_boot_us + RESEND_US:
            self._send_outbox(turn)
        self._forget_old(turn)
        self._specs.woke((seen.order.digest for seen in self._seen.values() if seen.order), turn)

    # orders

    def run(self, sender: str, message: Run, turn: Turn) -> None:
        """Orders from a leader: write each down, then acknowledge."""
        if message.fence < self._fence:
            stale = tuple(
                Ack(execution_id=order.execution_id, state="stale")
                for order in message.orders
                if order.node_id == self._node_id
            )
            turn.after_writes(Send(sender, RunAck(self._fence, stale)))
            return
        self._obey(message.fence, turn)
        self._clock.hear(turn.now, message.cluster_us)
        given = {spec_digest(spec): spec for spec in message.specs}
        ours = [order for order in message.orders if order.node_id == self._node_id]
        if ours:
            acks = tuple(self._accept(order, given, turn) for order in ours)
            turn.after_writes(Send(sender, RunAck(self._fence, acks)))
            self._fire(turn)

    def enter(self, cluster: str, generation: int, turn: Turn) -> None:
        """Orders of lower generations are stale from here on, also after a restart. Fence and mark are those of a
        cluster: in another one than before they begin anew (PROTOCOL 6); copies of the old one's orders name an earlier
        start of this agent, which alone keeps them from being obeyed."""
        if cluster not in ("", self._cluster):
            if self._cluster:
                self._fence, self._mark_cluster_us = Fence(), 0
            self._cluster = cluster
            turn.write(self._mark_row())
        self._obey(Fence(generation, 0), turn)

    def _obey(self, fence: Fence, turn: Turn) -> None:
        if fence > self._fence:
            self._fence = fence
            turn.write(self._mark_row())

    def _mark_row(self) -> MarkRow:
        return MarkRow(self._mark_cluster_us, self._fence.generation, self._fence.term, self._cluster)

    def _accept(self, order: Order, given: dict[str, Spec], turn: Turn) -> Ack:
        seen = self._seen.get(order.execution_id)
        if seen is not None and (seen.state != "accepted" or self._is_confirmed(order)):
            return Ack(execution_id=order.execution_id, state="known", known=seen.state)
        if seen is not None or order.start_id not in ("", self.start_id):
            return Ack(execution_id=order.execution_id, state="not_now")
        if order.start_by_cluster_us <= self._mark_cluster_us:
            return self._decline(order, turn)
        if order.start_by_cluster_us <= self._clock.cluster_us(turn.now):
            return self._decline(order, turn)
        if order.digest not in self._specs:
            if order.digest not in given:
                return Ack(execution_id=order.execution_id, state="need_spec")
            self._specs.keep(order.digest, given[order.digest], turn)
        self._remember(
            Seen(order.execution_id, "accepted", self._session, order.start_by_cluster_us, order=order), turn
        )
        heapq.heappush(self._due, (order.due_cluster_us, order.execution_id))
        return Ack(execution_id=order.execution_id, state="accepted")

    def _is_confirmed(self, order: Order) -> bool:
        """Whether an accepted order holds in this session: given in it, or ordered again of this very start."""
        if order.execution_id not in self._unconfirmed:
            return True
        if order.start_id != self.start_id:
            return False
        self._unconfirmed.discard(order.execution_id)
        heapq.heappush(self._due, (order.due_cluster_us, order.execution_id))
        return True

    def _decline(self, order: Order, turn: Turn) -> Ack:
        """Too late for it, for good: a copy that comes later is answered alike."""
        self._remember(
            Seen(order.execution_id, "late", self._session, order.start_by_cluster_us, acknowledged=True), turn
        )
        heapq.heappush(self._forgettable, (order.start_by_cluster_us, order.execution_id))
        return Ack(execution_id=order.execution_id, state="late")

    def _remember(self, seen: Seen, turn: Turn) -> None:
        known = self._seen.get(seen.execution_id)
        old = known.state if known else None
        assert (old, seen.state) in SEEN_CHANGES, f"{seen.execution_id}: {old} becomes {seen.state}"
        self._seen[seen.execution_id] = seen
        turn.write(seen.row())

    # starting

    def _fire(self, turn: Turn) -> None:
        """Start what is due, as many as there are slots; the rest waits in the order of its due times."""
        if not self._clock.running:
            return
        cluster_us = self._clock.cluster_us(turn.now)
        while self._due and self._due[0][0] <= cluster_us:
            self._wait(heapq.heappop(self._due)[1], cluster_us)
        self._give_up(cluster_us, turn)
        if self._given_up and self._given_up[0][0] <= cluster_us:
            self.more = True  # too many for one turn, and none of them may start
            return
        started = 0
        while self._waiting and self._busy < self._slots and started < STARTS_PER_TURN:
            seen = self._seen.get(self._waiting.popitem(last=False)[0])
            if seen is None or seen.state != "accepted" or seen.order is None:
                continue
            self._start(seen, seen.order, turn)
            started += 1
        self.more = bool(self._waiting) and self._busy < self._slots

    def _wait(self, execution_id: str, cluster_us: int) -> None:
        """It is due. After a restart start_by holds again; in the session that accepted it an execution may wait for a
        slot."""
        seen = self._seen.get(execution_id)
        if seen is None or seen.state != "accepted" or seen.order is None:
            return
        until = seen.order.start_by_cluster_us
        if seen.session == self._session:
            until = max(until, seen.order.wait_until_cluster_us)
        self._waiting[execution_id] = cluster_us
        heapq.heappush(self._given_up, (until, execution_id))

    def _give_up(self, cluster_us: int, turn: Turn) -> None:
        """Whatever has waited for too long does not run, whether or not a slot is free by now."""
        for _ in range(GIVEN_UP_PER_TURN):
            if not self._given_up or self._given_up[0][0] > cluster_us:
                return
            until, execution_id = heapq.heappop(self._given_up)
            seen = self._seen.get(execution_id)
            if seen is None or execution_id not in self._waiting:
                continue
            waited_here = self._waiting.pop(execution_id) <= until and seen.session == self._session
            if seen.state == "accepted":
                why = "late: no free slot in time" if waited_here else "late: the agent was away"
                self._finish(seen, ResultItem(execution_id=execution_id, kind="skipped", reason=why), turn)

    def _start(self, seen: Seen, order: Order, turn: Turn) -> None:
        seen.become("starting")
        self._busy += 1
        turn.write(seen.row())
        turn.after_writes(StartProcess(launch_of(order, self._specs[order.digest], self._agent)))

    # what processes do

    def process(self, event: ProcessStarted | ProcessNotStarted | ProcessEnded | ProcessLost, turn: Turn) -> None:
        """Something happened to one."""
        match event:
            case ProcessStarted():
                self.process_started(event, turn)
            case ProcessNotStarted():
                self.process_not_started(event, turn)
            case ProcessEnded():
                self.process_ended(event, turn)
            case ProcessLost():
                self.process_lost(event, turn)

    def process_started(self, event: ProcessStarted, turn: Turn) -> None:
        """Write the pid down, so that a restarted agent finds the process; tell the leader, waiting for nothing."""
        seen = self._seen.get(event.execution_id)
        if seen is None or seen.state not in ("starting", "running"):
            return
        seen.become("running")
        seen.pid, seen.process_start = event.pid, event.process_start
        seen.started_wall_us = seen.started_wall_us or event.started_wall_us
        turn.write(seen.row())
        if seen.ending_as:  # asked for while it was on its way
            self._terminate(seen, seen.ending_as, turn)
        if seen.order and seen.order.timeout_us:
            started_boot_us = min(turn.now.boot_us, event.process_start * SECOND_US // TICKS_PER_SECOND)
            self._limit(started_boot_us + seen.order.timeout_us, seen.execution_id, force=False)
        if self.leader:
            report = StartedReport((StartedItem(seen.execution_id, seen.started_wall_us),))
            turn.at_once(Send(self.leader, report))

    def process_not_started(self, event: ProcessNotStarted, turn: Turn) -> None:
        """Nothing ran, for certain."""
        self._ended(
            event.execution_id, ResultItem(execution_id=event.execution_id, kind="failed", reason=event.why), turn
        )

    def process_ended(self, event: ProcessEnded, turn: Turn) -> None:
        """Judge how it ended."""
        seen = self._seen.get(event.execution_id)
        if seen is None or seen.order is None:
            return
        seen.started_wall_us = seen.started_wall_us or event.started_wall_us
        codes = self._specs[seen.order.digest].success_exit_codes
        success = event.ending.exit_code is not None and event.ending.exit_code in codes
        item = ResultItem(
            execution_id=event.execution_id,
            kind=seen.ending_as or "ended",
            reason="" if seen.ending_as or success else _why_failed(event),
            started_wall_us=seen.started_wall_us,
            success=success and not seen.ending_as,
            ending=event.ending,
        )
        self._ended(event.execution_id, item, turn)

    def process_lost(self, event: ProcessLost, turn: Turn) -> None:
        """No process and no status: its fate is unknown."""
        self._ended(
            event.execution_id, ResultItem(execution_id=event.execution_id, kind="lost", reason=event.why), turn
        )

    def _ended(self, execution_id: str, item: ResultItem, turn: Turn) -> None:
        seen = self._seen.get(execution_id)
        if seen is None or seen.state in DEAD:
            return
        self._busy -= 1
        self._finish(seen, item, turn)
        self._prune_deadlines()
        self._fire(turn)

    def _finish(self, seen: Seen, item: ResultItem, turn: Turn) -> None:
        """Into the durable outbox, then to the leader."""
        seen.become("ended")
        seen.result = item
        turn.write(seen.row())
        self._outbox[seen.execution_id] = seen
        if self.leader:
            if len(self._outbox) == 1:
                self._outbox_boot_us = turn.now.boot_us
            turn.after_writes(Send(self.leader, Result((item,))))

    def _send_outbox(self, turn: Turn) -> None:
        self._outbox_boot_us = turn.now.boot_us
        if self.leader:
            oldest = islice(self._outbox.values(), STARTS_PER_TURN)
            items = [seen.result for seen in oldest if seen.result]
            for some in pieces(items, json_bytes, MESSAGE_ITEMS_BYTES):
                turn.after_writes(Send(self.leader, Result(tuple(some))))

    def result_ack(self, message: ResultAck, turn: Turn) -> None:
        """Committed: the outbox forgets, the row stays until no copy of its order can be accepted."""
        self._clock.hear(turn.now, message.cluster_us)
        for execution_id in message.execution_ids:
            seen = self._seen.get(execution_id)
            if seen is None or seen.acknowledged:
                continue
            self._outbox.pop(execution_id, None)
            seen.acknowledged = True
            seen.result = None
            seen.order = None
            turn.write(seen.row())
            turn.after_writes(ForgetProcess(execution_id))
            heapq.heappush(self._forgettable, (seen.start_by_cluster_us, execution_id))

    def _forget_old(self, turn: Turn) -> None:
        if not self._forgettable or not self._clock.running:
            return
        cluster_us = self._clock.cluster_us(turn.now)
        if self._forgettable[0][0] > cluster_us:
            return
        if turn.now.boot_us < self._forgot_boot_us + FORGET_EVERY_US:
            return
        self._forgot_boot_us = turn.now.boot_us
        old: list[str] = []
        while self._forgettable and self._forgettable[0][0] <= cluster_us:
            old.append(heapq.heappop(self._forgettable)[1])
            self._seen.pop(old[-1], None)
        # The mark goes into the same transaction: what is forgotten can never be accepted again (P1).
        self._mark_cluster_us = max(self._mark_cluster_us, cluster_us)
        turn.write(self._mark_row(), Drop("seen", tuple(old)))

    # stopping

    def stop(self, sender: str, message: Stop, turn: Turn) -> None:
        """Stop or kill; an unknown id is written down first, so that a later Run is answered known(stopped)."""
        if message.fence < self._fence:
            return
        self._obey(message.fence, turn)
        self._clock.hear(turn.now, message.cluster_us)
        items = tuple(
            StopAckItem(item.execution_id, self._stop_one(item.execution_id, item.start_by_cluster_us, item.kill, turn))
            for item in message.items
        )
        turn.after_writes(Send(sender, StopAck(items)))

    def _stop_one(
        self, execution_id: str, start_by_cluster_us: int, kill: bool, turn: Turn
    ) -> Literal["not_started", "running", "ended"]:
        seen = self._seen.get(execution_id)
        if seen is None or seen.state in ("accepted", "stopped", "late"):
            if seen is None or seen.state == "accepted":
                stopped = Seen(execution_id, "stopped", self._session, start_by_cluster_us, acknowledged=True)
                self._remember(stopped, turn)
                heapq.heappush(self._forgettable, (start_by_cluster_us, execution_id))
            return "not_started"
        if seen.state in DEAD:
            return "ended"
        if kill and not seen.ending_as:
            self._terminate(seen, "killed", turn)
        return "running"

    def _terminate(self, seen: Seen, ending_as: Literal["timeout", "killed"], turn: Turn) -> None:
        seen.ending_as = ending_as
        if seen.state == "starting":
            return  # nobody is there to hear it yet
        turn.at_once(SignalProcess(seen.execution_id, force=False))
        self._limit(turn.now.boot_us + GRACE_US, seen.execution_id, force=True)

    def _limit(self, boot_us: int, execution_id: str, *, force: bool) -> None:
        """TERM, or KILL, at that time, if it runs then."""
        heapq.heappush(self._deadlines, (boot_us, execution_id, force))
        self._prune_deadlines()

    def _prune_deadlines(self) -> None:
        """A job of every second with a timeout of a day leaves 86,400 behind otherwise. It costs little: at least half
        of what is looked through goes."""
        if len(self._deadlines) <= self._deadlines_max:
            return
        self._deadlines = [one for one in self._deadlines if self._runs(one[1])]
        heapq.heapify(self._deadlines)

    @property
    def _deadlines_max(self) -> int:
        return DEAD_DEADLINES_MAX + 4 * self._busy

    def _runs(self, execution_id: str) -> bool:
        seen = self._seen.get(execution_id)
        return seen is not None and seen.state == "running"

    def _pass_deadlines(self, turn: Turn) -> None:
        while self._deadlines and self._deadlines[0][0] <= turn.now.boot_us:
            _, execution_id, force = heapq.heappop(self._deadlines)
            seen = self._seen.get(execution_id)
            if seen is None or seen.state != "running":
                continue
            if force:
                turn.at_once(SignalProcess(execution_id, force=True))
            elif not seen.ending_as:
                self._terminate(seen, "timeout", turn)

    # what the status page and the tests ask

    @property
    def cluster(self) -> str:
        """Whose orders it obeys, or obeyed before this start; "" = nobody's yet."""
        return self._cluster

    @property
    def mark_cluster_us(self) -> int:
        """The durable high-water mark of cluster time: nothing that had to start by then is accepted any more."""
        return self._mark_cluster_us

    @property
    def fence(self) -> Fence:
        """The highest fence obeyed."""
        return self._fence

    @property
    def running(self) -> int:
        """Processes that hold a slot."""
        return self._busy

    def check(self) -> None:
        """The runner's own invariants; raises AssertionError with what does not hold."""
        active = [seen for seen in self._seen.values() if seen.state in ("starting", "running")]
        assert len(active) == self._busy, f"{len(active)} executions hold a slot, {self._busy} are counted"
        ours = sum(seen.session == self._session for seen in active)  # there may be more that were adopted
        assert ours <= self._slots, f"{ours} executions of this session in {self._slots} slots"
        deadlines = len(self._deadlines)
        assert deadlines <= self._deadlines_max, f"{deadlines} deadlines of {self._busy} executions"
        for seen in self._outbox.values():
            assert seen.result is not None, f"{seen.execution_id} waits in the outbox without a result"


def _why_failed(event: ProcessEnded) -> str:
    if event.ending.signal is not None:
        return f"killed by signal {event.ending.signal}"
    return f"exit code {event.ending.exit_code}"
