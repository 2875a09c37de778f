"""Leader: what somebody asks, on its way through the log and back as an answer, once (PROTOCOL 6, Identity)."""

from __future__ import annotations

from msgspec import Struct

from meshcron import commands, entries
from meshcron.core.answers import first_answer, outcome_of
from meshcron.core.clocks import ClusterClock
from meshcron.core.effects import Answer
from meshcron.core.fold import DecideAgain
from meshcron.core.ledger import Ledger
from meshcron.core.proposals import Proposals
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.errors import MeshcronError, NoLeader, OutcomeUnknown
from meshcron.model import SECOND_US

PATIENCE_US = 4 * SECOND_US
"""So long a call waits for the ticks that come before it, or is decided anew because the state moved on meanwhile."""


class Asked(Struct):
    """A command that somebody waits for."""

    call_id: str
    command: commands.Command
    key: str = ""
    asked_boot_us: int = 0


class Calls:
    """One term's calls."""

    def __init__(self, state: State, clock: ClusterClock, ledger: Ledger, proposals: Proposals) -> None:
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._proposals = proposals
        self._in_log: dict[int, Asked] = {}
        """By the index of the entry that answers it."""
        self._again: list[Asked] = []
        self.stepping = False
        """A step of the clocks is on its way: the cursor of a job put now would be of the old time."""

    def end(self, turn: Turn) -> None:
        """The term is over: calls that stand in the log may take effect or not."""
        for call in self._in_log.values():
            turn.at_once(Answer(call.call_id, OutcomeUnknown("the leader changed; the write may still take effect")))
        for call in self._again:
            turn.at_once(Answer(call.call_id, NoLeader("this agent does not lead any more")))

    def propose(self, call: Asked, turn: Turn) -> None:
        """A command: into the log, or refused. Only once the term's first entry is applied."""
        if not self._ledger.can_propose(turn.now.boot_us):
            turn.at_once(Answer(call.call_id, NoLeader("the leader is only beginning; try again")))
            return
        if self._state.dissolved:
            turn.at_once(Answer(call.call_id, NoLeader("this cluster goes over to another one; try again")))
            return
        call.asked_boot_us = call.asked_boot_us or turn.now.boot_us
        once = entries.Once(call.key, self._clock.cluster_us(turn.now)) if call.key else None
        if once is not None and (known := first_answer(self._state, once)):
            self._say(call, outcome_of(known), turn)
            return
        stepping = self.stepping and isinstance(call.command, commands.PutJob)
        if stepping or self._proposals.undecided_tick(call.command, turn.now):
            self._take_up_again(call, turn)
            return
        try:
            wanted = self._proposals.entries_for(call.command, turn.now, call.call_id, once)
            index = self._ledger.propose_all(wanted, turn)
        except MeshcronError as refused:
            turn.after_writes(Answer(call.call_id, refused))
            return
        for entry in wanted:
            self._proposals.proposed(entry)
        self._in_log[index] = call

    def _take_up_again(self, call: Asked, turn: Turn) -> None:
        """Its turn comes again with the next applied entry, within PATIENCE_US."""
        if turn.now.boot_us - call.asked_boot_us > PATIENCE_US:
            turn.after_writes(Answer(call.call_id, NoLeader("the job's ticks are being decided; try again")))
        else:
            self._again.append(call)

    def retry(self, turn: Turn) -> None:
        """Take up again what had to wait."""
        again, self._again = self._again, []
        for call in again:
            self.propose(call, turn)

    def applied(self, index: int, outcome: object, turn: Turn) -> None:
        """The entry at this index is applied: whoever waits for it is answered."""
        call = self._in_log.pop(index, None)
        if call is None:
            return
        if isinstance(outcome, DecideAgain):
            self._take_up_again(call, turn)
            return
        self._say(call, outcome, turn)

    def _say(self, call: Asked, outcome: object, turn: Turn) -> None:
        """The answer, and the run that a put may have asked for: repeated, too, for a leader may have died between."""
        turn.after_writes(Answer(call.call_id, outcome))
        put = call.command
        if isinstance(put, commands.PutJob) and put.run_on_create and isinstance(outcome, commands.JobAnswer):
            key = f"{call.key}+run" if call.key else ""
            self.propose(Asked(f"{call.call_id}+run", commands.RunJob(put.job.name), key), turn)
