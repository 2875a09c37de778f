"""Leader: what agents say of their executions, until it is an entry: whose word counts, and how long it may be.

A worker's key lets it into the mesh, so whatever it says is well-formed and no more: it speaks for its own executions
only, and what it says must fit into an entry.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from meshcron import entries
from meshcron.core.clocks import ClusterClock
from meshcron.core.ledger import Ledger
from meshcron.core.pieces import json_bytes
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.messages import Result, ResultItem, StartedItem, StartedReport
from meshcron.model import OUTPUT_TAIL_BYTES

REASON_CHARS_MAX = 1000
"""Of a reason: ours are a sentence. One as long as a message would not fit into an entry (PROTOCOL 5)."""

ID_CHARS_MAX = 64
"""Of an execution's id: ours have 32."""

STARTED_DELAY_US = 100_000
"""How long a Started is held back: most commands end before it, and then their Result says it all."""

RESULTS_BYTES_MAX = 200_000
"""Of one Results entry, below the 256 KiB of an entry."""

STARTED_ITEMS_MAX = 1000
"""In one Started entry: 90 bytes each at most, for all that is an execution's own id and an instant."""


class Reports:
    """One term's outcomes and starts on their way into the log."""

    def __init__(self, node_id: str, state: State, clock: ClusterClock, ledger: Ledger) -> None:
        self._node_id = node_id
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._results: list[tuple[str, ResultItem]] = []
        """Whose outbox waits for the acknowledgement, "" = nobody's."""
        self._started: dict[str, StartedItem] = {}
        self._started_boot_us = 0

    def next_wakeup(self) -> int | None:
        """When held-back starts are due, on the suspend-counting clock."""
        if self._started and not self._ledger.syncing:  # else Persisted will find them
            return self._started_boot_us + STARTED_DELAY_US
        return None

    def conclude(self, items: Iterable[ResultItem]) -> None:
        """Outcomes that no outbox repeats."""
        self._results += [("", item) for item in items]

    def lost(self, items: Iterable[ResultItem]) -> None:
        """Outcomes of agents that are silent: whatever waits already knows more."""
        waiting = {item.execution_id for _, item in self._results}
        self.conclude(item for item in items if item.execution_id not in waiting)

    def started(self, sender: str, message: StartedReport, turn: Turn) -> None:
        """Processes run."""
        if not self._started:
            self._started_boot_us = turn.now.boot_us
        theirs = [one for one in message.items if sender in {self._node_id, owner(self._state, one.execution_id)}]
        self._started.update({item.execution_id: item for item in theirs})

    def result(self, sender: str, message: Result) -> None:
        """Final words from an outbox."""
        theirs = [item for item in message.items if may_report(self._state, sender, self._node_id, item)]
        self._results += [(sender, bounded(item)) for item in theirs]

    def flush(self, turn: Turn) -> None:
        """What is due becomes entries, but not while the log is written: under load one entry carries many."""
        if self._results and not self._ledger.syncing:
            self._flush_results(turn)
        due = turn.now.boot_us >= self._started_boot_us + STARTED_DELAY_US
        if self._started and due and not self._ledger.syncing:
            some = list(self._started.items())[:STARTED_ITEMS_MAX]
            self._ledger.propose(entries.Started(tuple(item for _, item in some)), turn)
            for execution_id, _ in some:
                del self._started[execution_id]

    def _flush_results(self, turn: Turn) -> None:
        sender, size = self._results[0][0], 0
        items: list[ResultItem] = []
        for at, (whose, item) in enumerate(self._results):
            size += json_bytes(item)
            if items and (whose != sender or size > RESULTS_BYTES_MAX):
                del self._results[:at]
                break
            items.append(item)
            self._started.pop(item.execution_id, None)
        else:
            self._results.clear()
        self._ledger.propose(entries.Results(self._clock.cluster_us(turn.now), tuple(items), sender), turn)


def owner(state: State, execution_id: str) -> str:
    """Node id of the agent that an execution was given to, also of one recorded as lost; "" where it is not known."""
    if execution := state.open.get(execution_id):
        return execution.node_id
    late = state.owed.get(f"late|{execution_id}")
    return late.node_id if late else ""


def may_report(state: State, sender: str, own: str, item: ResultItem) -> bool:
    """Whether an outcome is the sender's to tell. The leader, `own`, also tells what an earlier identity of its machine
    ran. What is not known any more anybody may tell: it changes nothing, and must be acknowledged."""
    if len(item.execution_id) > ID_CHARS_MAX:
        return False
    return sender == own or owner(state, item.execution_id) in {"", sender}


def bounded(item: ResultItem) -> ResultItem:
    """The same, no longer than an honest agent makes it."""
    ending = item.ending
    if ending is not None and len(ending.output_tail) > OUTPUT_TAIL_BYTES:
        item = replace(item, ending=replace(ending, output_tail=ending.output_tail[-OUTPUT_TAIL_BYTES:]))
    return replace(item, reason=item.reason[:REASON_CHARS_MAX]) if len(item.reason) > REASON_CHARS_MAX else item
