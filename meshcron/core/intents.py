"""Leader: the decision to launch, as an entry: who runs it, from when, until when it may still start (PROTOCOL 6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from meshcron import entries
from meshcron.core.clocks import ClusterClock
from meshcron.core.selector import Candidate, Selected, matches, select
from meshcron.core.state import JobState, State
from meshcron.entries import UNCHANGED, Intent
from meshcron.model import SECOND_US, Instant, Trigger

START_WINDOW_US = 120 * SECOND_US
"""How long after its commit an intent may still be accepted (PROTOCOL 6, start_by)."""

INTENTS_BYTES_MAX = 200_000
"""Of one Intents entry, below the 256 KiB of an entry. One intent alone fits: what a person adds to the environment is
16 KiB, twice that as JSON; of the members, some 2,600 at most (one Welcome names all), each takes 8 bytes."""

NO_MATCH = "no agent matches its tags"
NO_MEMBER = "its agent is no member any more"


class Intents:
    """Builds intents out of who is there now."""

    def __init__(self, state: State, clock: ClusterClock) -> None:
        self._state = state
        self._clock = clock
        self.candidates: list[Candidate] = []
        """The live members; whoever leads keeps it current."""
        self.failed: frozenset[str] = frozenset()
        """Node ids by the ring's verdict, those of members this leader has never heard among them."""
        self._decided: Counter[int] = Counter()
        """Executions by roster number that are decided, and whose entry is not applied yet."""

    def decided(self, intents: Iterable[Intent]) -> None:
        """These are in the log, or will be by the end of this turn: their targets have so much more to do. Ticks that
        are due together are spread like this; the state tells of them only once they are applied."""
        self._decided.update(number for intent in intents for number in intent.targets)

    def applied(self, intents: Iterable[Intent]) -> None:
        """Of these, decided before, the state tells now."""
        self._decided.subtract(number for intent in intents for number in intent.targets)
        self._decided = +self._decided  # no zeros: roster numbers are never given again

    def _load(self, one: Candidate) -> int:
        """Executions of a member that are open or will be: armed ones, too. How many hold a slot its beat tells, but
        as of a quarter of a second ago; its slots nobody knows."""
        return self._state.open_on[one.node_id] + self._decided[one.number]

    def entry(self, now: Instant, intents: list[Intent], call: str = "") -> entries.Intents:
        """Intents stamped with the clocks."""
        return entries.Intents(self._clock.cluster_us(now), now.wall_us, self._clock.offset_us, tuple(intents), call)

    def build(
        self,
        state: JobState,
        now: Instant,
        *,
        tick_wall_us: int,
        due_cluster_us: int,
        trigger: Trigger,
        attempt: int = 1,
        next_wall_us: int = UNCHANGED,
        run_id: str = "",
        owed_key: str = "",
        env: dict[str, str] | None = None,
        node_id: str = "",
    ) -> Intent:
        """An intent with its targets and its start_by. `node_id`: of the agent that the attempt before it ran on, or
        whose start it is for."""
        targets, down = self._selected(state, trigger, attempt, node_id)
        window_us = max(due_cluster_us, self._clock.cluster_us(now)) + START_WINDOW_US
        scheduled = trigger in ("schedule", "catch_up")
        start_by = min(due_cluster_us + state.job.start_deadline_us, window_us) if scheduled else window_us
        nobody = NO_MEMBER if trigger == "reboot" else NO_MATCH
        return Intent(
            state.uid,
            state.revision,
            state.epoch,
            tick_wall_us,
            attempt,
            trigger,
            due_cluster_us,
            start_by,
            targets,
            next_wall_us,
            run_id,
            owed_key,
            "" if targets or down else nobody,
            env,
            down,
        )

    def _selected(self, state: JobState, trigger: Trigger, attempt: int, node_id: str) -> Selected:
        if attempt > 1:
            return self._for_retry(state, node_id)
        if trigger == "reboot":
            # It has just started, whatever the ring says: a new leader's verdict may be older than that.
            return Selected(tuple(one.number for one in self._alone(node_id)), ())
        return select(state.job.tags, self.candidates, self._load)

    def _alone(self, node_id: str) -> list[Candidate]:
        """One member by its node id; none where it is no member any more."""
        found = [one for one in self.candidates if one.node_id == node_id]
        member = self._state.member_of(node_id)
        if member is not None and not found:
            # Not heard yet is not dead, unless it has been waited for long enough.
            return [Candidate(member.number, {}, {}, failed=node_id in self.failed, node_id=node_id)]
        return found

    def _for_retry(self, state: JobState, node_id: str) -> Selected:
        """Where a retry runs: on the same agent, or where `retry_on` says so (or the agent is no member any more, or
        matches no more) on the least busy other one that matches."""
        same = self._alone(node_id)
        if same and same[0] in self.candidates and not matches(state.job.tags, same[0]):
            same = []  # its tags or the job's were changed since; of one that is not heard nobody knows them
        others = [one for one in self.candidates if one.node_id != node_id and not one.failed]
        if same and state.job.retry_on == "same":
            return select(None, same, self._load)
        selected = select(state.job.tags, others, self._load, at_most=1)
        return selected if selected.targets or not same else select(None, same, self._load)
