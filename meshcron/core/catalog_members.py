"""Members and voters: who they are, and when the last hand-over was."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron import entries
from meshcron.core.catalog_outcomes import Outcomes
from meshcron.core.fold import DecideAgain, Fold
from meshcron.errors import Conflict, NotFound
from meshcron.messages import ResultItem
from meshcron.model import SECOND_US, Member
from meshcron.rows import Drop, MemberRow, MetaRow, TokenRow

HOLD_DOWN_US = 300 * SECOND_US
"""After a hand-over there is none for so long; on a relapse twice as long each time (PROTOCOL 4)."""

HOLD_DOWN_MAX_US = 3600 * SECOND_US


class Members:
    """The roster."""

    def __init__(self, fold: Fold, outcomes: Outcomes) -> None:
        self._fold = fold
        self._outcomes = outcomes
        self._state = fold.state

    def put(self, entry: entries.MemberPut) -> Member:
        """Added, or changed. Raises Conflict, DecideAgain."""
        member = entry.member
        old = self._state.members.get(member.number)
        by_node = next((one for one in self._state.members.values() if one.node_id == member.node_id), None)
        named = next((one for one in self._state.members.values() if one.name == member.name), None)
        if self._state.dissolved or (old and old.node_id != member.node_id):
            raise DecideAgain("the number is taken")
        if by_node and (by_node.number != member.number or by_node.public_key != member.public_key):
            raise Conflict("node_id", "a node id never changes its number or key", "start with an empty data directory")
        if named and named.node_id != member.node_id:
            self._rename_silent(named, entry.replaces)
        self._state.members[member.number] = replace(member, voter=old.voter if old else False)
        self._state.last_number = max(self._state.last_number, member.number)
        self._fold.rows += [
            MemberRow(self._state.members[member.number]),
            MetaRow("number", str(self._state.last_number)),
        ]
        for token in entry.tokens:
            self._state.token_map[token.id] = token
            self._fold.rows.append(TokenRow(token))
        self._fold.roster_changed()
        return self._state.members[member.number]

    def _rename_silent(self, old: Member, replaced: int) -> None:
        """A silent member loses its name to a newcomer; an old voter keeps its seat until a learner takes it."""
        if replaced != old.number:
            raise Conflict("name", f"a member named {old.name!r} is there", "choose another name with --name")
        renamed = replace(old, name=f"{old.name}~{old.number}")
        self._state.members[old.number] = renamed
        self._fold.rows.append(MemberRow(renamed))

    def remove(self, entry: entries.MemberRemove) -> Member:
        """It leaves, its tokens too; what was open on it is lost."""
        member = self._state.members.get(entry.number)
        if member is None:
            raise NotFound("member", str(entry.number))
        if member.voter:
            raise DecideAgain("a voter leaves in two steps")
        del self._state.members[entry.number]
        self._fold.rows.append(Drop("members", (member.node_id,)))
        self._fold.drop_tokens_of(frozenset({member.node_id}))
        self._fold.roster_changed()
        open_there = sorted(id_ for id_, one in self._state.open.items() if one.node_id == member.node_id)
        items = tuple(ResultItem(execution_id=id_, kind="lost", reason="its agent was removed") for id_ in open_there)
        self._outcomes.results(entries.Results(entry.cluster_us, items))
        return member

    def roster(self, entry: entries.Roster) -> object:
        """Who votes from here on."""
        for number, member in self._state.members.items():
            votes = member.node_id in entry.voters
            if votes != member.voter:
                self._state.members[number] = replace(member, voter=votes)
                self._fold.rows.append(MemberRow(self._state.members[number]))
        self._fold.roster_changed()
        return None

    def hand_over(self, entry: entries.HandOver) -> object:
        """The leader makes way. Raises DecideAgain within the hold-down."""
        last_us, hold_us = self._state.hand_over
        if entry.cluster_us < last_us + hold_us:
            raise DecideAgain("the last hand-over was too short ago")
        relapse = bool(last_us) and entry.cluster_us < last_us + 2 * hold_us
        hold_us = min(HOLD_DOWN_MAX_US, 2 * hold_us) if relapse else HOLD_DOWN_US
        self._state.hand_over = entry.cluster_us, hold_us
        self._fold.rows.append(MetaRow("hand_over", f"{entry.cluster_us} {hold_us}"))
        return None
