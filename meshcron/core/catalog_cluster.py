"""The cluster itself: formed, recovered, dissolved; its tokens, its pauses, its clock epoch."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron import entries
from meshcron.core.catalog_outcomes import Outcomes
from meshcron.core.fold import DecideAgain, Fold
from meshcron.errors import Conflict, NotFound
from meshcron.messages import ResultItem
from meshcron.model import Member, Status
from meshcron.rows import Drop, MemberRow, MetaRow, OwedRow, TokenRow

PAUSES_MAX = 100
"""So many pauses may follow each other before the ticks of the first are decided, which takes a second or two."""

FAR_WALL_US = 1 << 62
"""Later than any tick."""


class Cluster:
    """All that belongs to no job and no member."""

    def __init__(self, fold: Fold, outcomes: Outcomes) -> None:
        self._fold = fold
        self._outcomes = outcomes
        self._state = fold.state

    def formed(self, entry: entries.Formed) -> object:
        """The first entry."""
        if self._state.cluster:
            raise DecideAgain("the cluster is formed")
        self._state.cluster = entry.cluster
        self._state.members[entry.member.number] = entry.member
        self._state.token_map.update({token.id: token for token in entry.tokens})
        self._fold.rows += [MetaRow("cluster", entry.cluster), MemberRow(entry.member)]
        self._fold.rows += [TokenRow(token) for token in entry.tokens]
        self._state.last_number = entry.member.number
        self._fold.rows.append(MetaRow("number", str(entry.member.number)))
        self._fold.roster_changed()
        return None

    def dissolve(self, entry: entries.Dissolve) -> object:
        """It ends, and its members join another one; not once it is lived in."""
        if not self._state.is_virgin():
            raise DecideAgain("the cluster is lived in")
        self._state.dissolved = entry.into
        self._fold.rows.append(MetaRow("dissolved", entry.into))
        return None

    def config(self, entry: entries.Config) -> object:
        """The protocol that all speak from here on; it never falls."""
        if entry.protocol <= self._state.protocol:
            raise DecideAgain("the cluster speaks that already")
        self._state.protocol = entry.protocol
        self._fold.rows.append(MetaRow("protocol", str(entry.protocol)))
        return None

    def recovered(self, entry: entries.Recovered) -> object:
        """An operator's word: one member is left, and what was open is lost."""
        for row in [row for _, row in sorted(self._state.owed.items()) if row.kind not in ("join", "late")]:
            self._lose_owed(row)  # while those that go are members: its record names them
        self._alone(entry.member)
        self._state.recovered, self._state.generation = (entry.until_wall_us, self._fold.index), entry.generation
        self._fold.rows.append(MetaRow("recovered", f"{entry.until_wall_us} {self._fold.index}"))
        self._fold.rows.append(MetaRow("generation", str(entry.generation)))
        items = tuple(ResultItem(execution_id=id_, kind="lost", reason="recovered") for id_ in sorted(self._state.open))
        return self._outcomes.results(entries.Results(self._state.clock[0], items))

    def _alone(self, member: Member) -> None:
        """One voter; of the others those stay that hold no log: they have nothing that could differ."""
        old = self._state.member_of(member.node_id)
        number, started = (old.number, old.started) if old else (self._state.last_number + 1, 0)
        member = replace(member, number=number, started=started)
        self._state.last_number = max(self._state.last_number, member.number)
        others = [one for one in self._state.members.values() if one.node_id != member.node_id]
        gone = tuple(sorted(one.node_id for one in others if one.eligible or one.name == member.name))
        self._state.members = {one.number: one for one in [member, *others] if one.node_id not in gone}
        self._fold.rows += [MemberRow(member), MetaRow("number", str(self._state.last_number)), Drop("members", gone)]
        self._fold.drop_tokens_of(frozenset(gone))
        self._fold.roster_changed()

    def _lose_owed(self, row: OwedRow) -> None:
        """A run that waited may have been decided in the part of the log that is gone: whether it ran is unknown."""
        self._fold.drop_owed(row.key)
        state = self._state.jobs.get(row.uid)
        if state is None:
            return
        if row.kind == "retry":
            self._fold.count_failed(state, row)
        self._fold.record_owed(state, row, "recovered", Status.LOST)
        self._fold.rows.append(state.state_row())

    def token_put(self, entry: entries.TokenPut) -> object:
        """A token is added. Raises Conflict where its name is in use."""
        clash = next((old for old in self._state.token_map.values() if old.name == entry.token.name), None)
        if clash is not None and clash.id != entry.token.id:
            raise Conflict("name", f"a token named {entry.token.name!r} exists", "choose another name or revoke it")
        self._state.token_map[entry.token.id] = entry.token
        self._fold.rows.append(TokenRow(entry.token))
        if not entry.token.node_id:
            self._fold.lived_in()  # a person's token; an agent's own local one says nothing
        return entry.token

    def token_revoke(self, entry: entries.TokenRevoke) -> object:
        """A token goes. Raises NotFound."""
        token = self._state.token_map.pop(entry.id, None)
        if token is None:
            raise NotFound("token", entry.id)
        self._fold.rows.append(Drop("tokens", (entry.id,)))
        return token

    def pause(self, entry: entries.Pause) -> bool:
        """Scheduling stops, or goes on: what is armed is stopped, what runs is left."""
        if entry.paused and not self._state.paused:
            self._state.paused = True
            self._state.pauses = (*self._undecided_pauses(), (entry.wall_us, 0))
            for execution in list(self._state.open.values()):
                if execution.status is Status.ARMED and execution.trigger != "manual":
                    self._fold.ask_stop(execution, kill=False)
        elif not entry.paused and self._state.paused:
            self._state.paused = False
            *before, (since, _) = self._state.pauses
            self._state.pauses = (*before, (since, entry.wall_us))
        self._write_pauses()
        self._fold.applied.touched |= set(self._state.jobs)
        return self._state.paused

    def _undecided_pauses(self) -> tuple[tuple[int, int], ...]:
        """Pauses that have swallowed ticks which nobody has decided yet."""
        if not self._state.pauses:
            return ()
        first = min((job.next_wall_us for job in self._state.jobs.values() if job.next_wall_us), default=FAR_WALL_US)
        return tuple(one for one in self._state.pauses if one[1] >= first)[-PAUSES_MAX:]

    def _write_pauses(self) -> None:
        instants = " ".join(f"{since} {until}" for since, until in self._state.pauses)
        self._fold.rows.append(MetaRow("pause", f"{int(self._state.paused)} {instants}".rstrip()))

    def clock_step(self, entry: entries.ClockStep) -> object:
        """Wall time steps; backward it opens an epoch."""
        backward = entry.to_offset_us < entry.from_offset_us
        self._state.clock = entry.cluster_us, entry.wall_us, entry.to_offset_us, self._state.epoch + backward
        self._fold.write_clock()
        if backward:
            self._state.stepped_us = entry.from_offset_us - entry.to_offset_us
            self._fold.rows.append(MetaRow("stepped", str(self._state.stepped_us)))
        if backward and self._state.pauses:
            # The same wall time comes again: what was paused then is not now, but for a pause that goes on.
            now_us = entry.cluster_us + entry.to_offset_us
            self._state.pauses = ((min(self._state.pauses[-1][0], now_us), 0),) if self._state.paused else ()
            self._write_pauses()
        return None
