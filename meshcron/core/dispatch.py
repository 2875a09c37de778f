"""Leader: the orders of open executions, repeated until acknowledged, and the stops (PROTOCOL 6)."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable

from msgspec import Struct

from meshcron import entries
from meshcron.core.clocks import ClusterClock
from meshcron.core.effects import Publish, Send
from meshcron.core.pieces import MESSAGE_ITEMS_BYTES, json_bytes, pieces
from meshcron.core.runner import GRACE_US
from meshcron.core.selector import FACT_PREFIX, tag_value
from meshcron.core.specs import spec_digest, spec_of
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.messages import (
    Fence,
    Order,
    ResultAck,
    ResultItem,
    Run,
    RunAck,
    Stop,
    StopAck,
    StopItem,
)
from meshcron.model import Execution, Job, Spec, Status

RESEND_MIN_US = 50_000
"""First repetition of an order, and the least between two (PROTOCOL 6)."""

RESEND_MAX_US = 5_000_000

ORDERS_PER_MESSAGE = 200
"""Orders grouped into one Run, fewer where they bring Specs or parameters along; and stops, of 100 bytes each, into one
Stop. The answers are no longer than what they answer."""

ORDER_BYTES_MAX = 700
"""Of an order as JSON, with the longest ids and numbers, besides what others write in it."""

ESCAPE_BYTES = 6
"""What JSON makes of one character at the most."""

SLICE = 200
"""Orders and stops together that one turn sends where they may be of all that is open: 1 to 2 ms of its 20 (PROTOCOL 8;
measured with 10,000 open, of which a slice has 50 agents)."""

PUBLISH_MIN = 2
"""Orders of one run for so many agents are published instead of sent to each."""

LAST_US = 1 << 62
"""Added to an instant in microseconds: later than any other."""

ALL = "all"
"""The topic every agent listens to."""


class Pending(Struct):
    """An order or a stop that nobody has answered yet."""

    execution_id: str
    node_id: str
    delay_us: int
    stop: bool
    due_boot_us: int
    """When it is repeated; what else the heap says of it is void."""


def order_bytes(order: Order) -> int:
    """An upper bound of what an order takes in a message. Ten thousand are due in one second: most cost an addition.
    `start_id` is as long as its agent says."""
    env_bytes = json_bytes(order.env) if order.env else 0
    return ORDER_BYTES_MAX + env_bytes + ESCAPE_BYTES * len(order.start_id)


def topic_of(job: Job) -> str:
    """Where a job's orders are published: its first tag in sorted order, else `all` (PROTOCOL 6)."""
    for key, value in sorted((job.tags or {}).items()):
        if not key.startswith(FACT_PREFIX):
            return tag_topic(key, tag_value(value))
    return ALL


def tag_topic(key: str, value: str) -> str:
    """The topic of those that have a tag."""
    return f"{key}={value}"


def _urgency(execution: Execution) -> int:
    """What is armed or to be stopped by its due time, oldest first; then what runs."""
    runs = execution.status is Status.RUNNING and not execution.stop
    return execution.due_cluster_us + (LAST_US if runs else 0)


class Dispatch:
    """What the leader still waits for an answer to. Lost with the leadership: a new leader sends all again."""

    def __init__(
        self, node_id: str, state: State, clock: ClusterClock, lost_us: int, start_of: Callable[[str], str]
    ) -> None:
        """`start_of`: node id -> the newest start of that agent that was heard, "" = none."""
        self._start_of = start_of
        self._node_id = node_id
        self._lost_us = lost_us
        self._state = state
        self._clock = clock
        self._fence = Fence()
        self._pending: dict[tuple[str, bool], Pending] = {}
        self._resend: list[tuple[int, str, bool]] = []
        self._unsent: deque[str] = deque()
        """What is to be ordered or stopped in the next turns, the most urgent first: whatever it is by then."""
        self._specs: dict[tuple[int, int], tuple[str, Spec]] = {}
        """With their digests, by uid and revision: of what is open, and of nothing else."""

    def lead(self, fence: Fence, turn: Turn) -> None:
        """Take over: every open execution is ordered again, by its id at most one process starts. A slice a turn: what
        is armed by its due time, the oldest first, then what runs, of which agents only say that they know it."""
        self._fence = fence
        self._pending.clear()
        self._resend.clear()
        self._unsent = deque(one.id for one in sorted(self._state.open.values(), key=_urgency))
        self.woke(turn)

    # what was committed

    def opened(self, executions: list[Execution], turn: Turn) -> None:
        """Order new executions at once: the intent is committed. What several agents run goes out on PUB, by the tag
        that it selects; whatever is not acknowledged follows by ROUTER."""
        wanted = [execution for execution in executions if not execution.stop]
        for execution in wanted:
            self._expect(execution, stop=False, turn=turn)
        by_run: dict[str, list[Execution]] = defaultdict(list)
        for execution in wanted:
            by_run[execution.run_id].append(execution)
        published: dict[str, list[Execution]] = defaultdict(list)
        direct: list[Execution] = []
        for theirs in by_run.values():
            if len(theirs) < PUBLISH_MIN or theirs[0].env:  # a person's parameters may be secret: not on PUB
                direct += theirs
            else:
                published[topic_of(self._job(theirs[0]))] += theirs
        self._send_orders(direct, turn, with_specs=False)
        for topic, some in sorted(published.items()):
            self._publish_orders(topic, some, turn)

    def stopping(self, executions: list[Execution], turn: Turn) -> None:
        """Ask the agents to stop or kill, a slice at once; the order of the same execution is not repeated any more."""
        for execution in executions:
            self._pending.pop((execution.id, False), None)
        at_once = executions[:SLICE]
        for execution in at_once:
            self._expect(execution, stop=True, turn=turn)
        self._send_stops(at_once, turn)
        self._unsent.extend(execution.id for execution in executions[SLICE:])

    def closed(self, executions: list[Execution]) -> None:
        """Final: nothing more to wait for."""
        for execution in executions:
            self._pending.pop((execution.id, False), None)
            self._pending.pop((execution.id, True), None)
            if (execution.uid, execution.revision) not in self._state.open_of:
                self._specs.pop((execution.uid, execution.revision), None)

    def _expect(self, execution: Execution, *, stop: bool, turn: Turn) -> None:
        to_due_us = self._clock.boot_us(execution.due_cluster_us) - turn.now.boot_us
        delay_us = max(RESEND_MIN_US, min(RESEND_MAX_US, to_due_us // 4))
        self._await(Pending(execution.id, execution.node_id, delay_us, stop, turn.now.boot_us + delay_us))

    def _await(self, pending: Pending) -> None:
        self._pending[pending.execution_id, pending.stop] = pending
        heapq.heappush(self._resend, (pending.due_boot_us, pending.execution_id, pending.stop))

    # messages out

    def _publish_orders(self, topic: str, executions: list[Execution], turn: Turn) -> None:
        cluster_us = self._clock.cluster_us(turn.now)
        orders = [self._order(execution) for execution in executions]
        for some in pieces(orders, order_bytes, MESSAGE_ITEMS_BYTES, ORDERS_PER_MESSAGE):
            message = Run(self._fence, cluster_us, tuple(some))
            turn.at_once(Publish(topic, message))
            if any(order.node_id == self._node_id for order in some):
                turn.at_once(Send(self._node_id, message))

    def _send_orders(self, executions: list[Execution], turn: Turn, *, with_specs: bool) -> None:
        by_node: dict[str, list[Order]] = defaultdict(list)
        for execution in executions:
            by_node[execution.node_id].append(self._order(execution))
        cluster_us = self._clock.cluster_us(turn.now)
        bytes_of = self._bytes_with_spec if with_specs else order_bytes
        for node_id, theirs in by_node.items():
            for some in pieces(theirs, bytes_of, MESSAGE_ITEMS_BYTES, ORDERS_PER_MESSAGE):
                specs = {one.digest: self._specs[one.uid, one.revision][1] for one in some} if with_specs else {}
                turn.at_once(Send(node_id, Run(self._fence, cluster_us, tuple(some), tuple(specs.values()))))

    def _bytes_with_spec(self, order: Order) -> int:
        """Orders of one job share its Spec; counted each time it makes a message too many, and none too large."""
        return order_bytes(order) + json_bytes(self._specs[order.uid, order.revision][1])

    def _order(self, execution: Execution) -> Order:
        job = self._job(execution)
        return Order(
            execution_id=execution.id,
            node_id=execution.node_id,
            uid=execution.uid,
            revision=execution.revision,
            digest=self._spec(execution)[0],
            run_id=execution.run_id,
            attempt=execution.attempt,
            scheduled_wall_us=execution.scheduled_wall_us,
            due_cluster_us=execution.due_cluster_us,
            start_by_cluster_us=execution.start_by_cluster_us,
            wait_until_cluster_us=execution.due_cluster_us + job.start_deadline_us,
            timeout_us=job.timeout_us,
            env=execution.env,
            start_id=self._start_of(execution.node_id),
        )

    def _job(self, execution: Execution) -> Job:
        job = self._state.definition(execution.uid, execution.revision)
        assert job is not None, f"no definition for open execution {execution.id}"  # the catalog keeps them
        return job

    def _spec(self, execution: Execution) -> tuple[str, Spec]:
        key = execution.uid, execution.revision
        if key not in self._specs:
            spec = spec_of(self._job(execution), *key)
            self._specs[key] = spec_digest(spec), spec
        return self._specs[key]

    def _send_stops(self, executions: list[Execution], turn: Turn) -> None:
        by_node: dict[str, list[StopItem]] = defaultdict(list)
        for execution in executions:
            by_node[execution.node_id].append(
                StopItem(
                    execution_id=execution.id,
                    kill=execution.stop == "kill",
                    start_by_cluster_us=execution.start_by_cluster_us,
                )
            )
        for node_id, items in by_node.items():
            for at in range(0, len(items), ORDERS_PER_MESSAGE):
                some = tuple(items[at : at + ORDERS_PER_MESSAGE])
                turn.at_once(Send(node_id, Stop(self._fence, self._clock.cluster_us(turn.now), some)))

    # answers

    def run_ack(self, sender: str, message: RunAck, turn: Turn) -> list[ResultItem]:
        """An agent's answers about its own executions. Returns the outcomes that they decide."""
        decided: list[ResultItem] = []
        need_spec: list[Execution] = []
        for ack in message.acks:
            execution = self._state.open.get(ack.execution_id)
            if execution is None or execution.node_id != sender or ack.state in ("stale", "not_now"):
                continue
            if ack.state == "need_spec":
                need_spec.append(execution)
                continue
            self._pending.pop((ack.execution_id, False), None)
            if ack.state == "late" or (ack.state == "known" and ack.known == "late"):
                decided.append(ResultItem(execution_id=ack.execution_id, kind="skipped", reason="late"))
            elif ack.state == "known" and ack.known == "stopped":
                decided.append(ResultItem(execution_id=ack.execution_id, kind="skipped", reason="stopped"))
        self._send_orders(need_spec, turn, with_specs=True)
        return decided

    def stop_ack(self, sender: str, message: StopAck) -> list[ResultItem]:
        """What stops met at the agent whose executions they are: what had not started is `skipped: stopped`; of the
        rest the outbox will tell."""
        decided: list[ResultItem] = []
        for item in message.items:
            execution = self._state.open.get(item.execution_id)
            if execution is not None and execution.node_id != sender:
                continue
            # A kill is repeated until its agent says that it has ended: it may have restarted since it took it.
            if not (execution and execution.stop == "kill" and item.state == "running"):
                self._pending.pop((item.execution_id, True), None)
            if item.state == "not_started" and item.execution_id in self._state.open:
                decided.append(ResultItem(execution_id=item.execution_id, kind="skipped", reason="stopped"))
        return decided

    def results_applied(self, entry: entries.Results, turn: Turn) -> None:
        """Outcomes are committed: the outbox they came from may forget them."""
        if entry.sender:
            ids = tuple(item.execution_id for item in entry.items)
            turn.after_writes(Send(entry.sender, ResultAck(ids, self._clock.cluster_us(turn.now))))

    # the fate of what is open on agents that vanished

    def lost(self, silent_us: Callable[[str], int], turn: Turn) -> list[ResultItem]:
        """Executions whose agent has been silent so long that nobody can say what became of them."""
        cluster_us = self._clock.cluster_us(turn.now)
        away = {execution.node_id for execution in self._state.open.values()}
        away = {node_id for node_id in away if silent_us(node_id) > self._lost_us}
        found: list[ResultItem] = []
        for execution in self._state.open.values():
            if execution.node_id not in away or cluster_us <= execution.start_by_cluster_us:
                continue
            timeout_us = self._job(execution).timeout_us
            if timeout_us and cluster_us <= execution.due_cluster_us + timeout_us + GRACE_US + self._lost_us:
                continue
            found.append(ResultItem(execution_id=execution.id, kind="lost", reason="its agent is gone"))
        return found[:ORDERS_PER_MESSAGE]

    # repetition

    def next_wakeup(self) -> int | None:
        """On the suspend-counting clock: the next repetition; 0 = at once."""
        if self._unsent:
            return 0
        while self._resend and not self._is_awaited(self._resend[0]):
            heapq.heappop(self._resend)
        return self._resend[0][0] if self._resend else None

    def _is_awaited(self, repetition: tuple[int, str, bool]) -> bool:
        due_boot_us, execution_id, stop = repetition
        pending = self._pending.get((execution_id, stop))
        return pending is not None and pending.due_boot_us == due_boot_us

    def heard_again(self, node_id: str, turn: Turn, *, anew: bool) -> None:
        """An agent is back: what it has not answered is repeated now, and as often as at first. `anew`: it has started
        anew, and fires what its last start has accepted only when it is asked once more."""
        if anew:
            for execution in self._state.open.values():
                armed = execution.status is Status.ARMED and not execution.stop
                if armed and execution.node_id == node_id and (execution.id, False) not in self._pending:
                    self._expect(execution, stop=False, turn=turn)
        for pending in self._pending.values():
            if pending.node_id == node_id and pending.due_boot_us > turn.now.boot_us:
                pending.delay_us, pending.due_boot_us = RESEND_MIN_US, turn.now.boot_us
                self._await(pending)

    def woke(self, turn: Turn) -> None:
        """Send what is unsent, and repeat what nobody answered, each time after twice as long: a slice in all."""
        some = self._first_time(turn)
        some += self._once_more(turn, SLICE - len(some))
        self._send_orders([execution for execution in some if not execution.stop], turn, with_specs=False)
        self._send_stops([execution for execution in some if execution.stop], turn)

    def _first_time(self, turn: Turn) -> list[Execution]:
        found: list[Execution] = []
        while self._unsent and len(found) < SLICE:
            execution = self._state.open.get(self._unsent.popleft())
            if execution is None or (execution.id, bool(execution.stop)) in self._pending:
                continue
            self._expect(execution, stop=bool(execution.stop), turn=turn)
            found.append(execution)
        return found

    def _once_more(self, turn: Turn, at_most: int) -> list[Execution]:
        found: list[Execution] = []
        while self._resend and self._resend[0][0] <= turn.now.boot_us and len(found) < at_most:
            repetition = heapq.heappop(self._resend)
            _, execution_id, stop = repetition
            execution = self._state.open.get(execution_id)
            if execution is None or not self._is_awaited(repetition):
                continue
            pending = self._pending[execution_id, stop]
            pending.delay_us = min(RESEND_MAX_US, pending.delay_us * 2)
            pending.due_boot_us = turn.now.boot_us + pending.delay_us
            self._await(pending)
            found.append(execution)
        return found

    def check(self) -> None:
        """Whatever is waited for is open, and nothing open has ended well; raises AssertionError."""
        for execution_id, _ in self._pending:
            assert execution_id in self._state.open, f"{execution_id} is waited for and not open"
        assert all(execution.status is not Status.SUCCESS for execution in self._state.open.values())
