"""Members and voters: who they are, and when the last hand-over was."""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from meshcron import entries
from meshcron.core.catalog_outcomes import Outcomes
from meshcron.core.fold import DecideAgain, Fold
from meshcron.core.state import JobState
from meshcron.errors import Conflict, NotFound
from meshcron.messages import ResultItem
from meshcron.model import SECOND_US, Member
from meshcron.rows import Drop, MemberRow, MetaRow, OwedRow, TokenRow

Standing = Literal["member", "voter", "leaving", "leaving voter"]

STANDING_CHANGES: dict[tuple[Standing | None, Standing | None], str] = {
    (None, "voter"): "Formed, or Recovered under a new node id",
    (None, "member"): "MemberPut (it knocked, the leader let it in)",
    ("member", "voter"): "Roster (stable, caught up), or Recovered by it",
    ("voter", "member"): "Roster (silent for 10 min, one too many, or it wants no vote)",
    ("member", "leaving"): "MemberPut (asked to go)",
    ("voter", "leaving voter"): "MemberPut (asked to go)",
    ("voter", "leaving"): "Roster (another one has its seat, and its name)",
    ("leaving voter", "leaving"): "Roster (another one has its seat, or it is one too many)",
    ("leaving", None): "MemberRemove, MemberPut (a newcomer has its name), or Recovered without it",
    ("member", None): "MemberPut (a newcomer has its name), or Recovered without it",
    ("voter", None): "Recovered without it",
    ("leaving voter", None): "Recovered without it",
    ("leaving", "voter"): "Recovered by it",
    ("leaving voter", "voter"): "Recovered by it",
}
"""Every change of a member's standing, by the entry that makes it; None = no member. docs/PROTOCOL.md shows it. A
MemberPut that asks for another one applies as nothing: nobody who was asked to go is called back by an older word."""


def standing(member: Member | None) -> Standing | None:
    """Where a member stands."""
    if member is None:
        return None
    if member.leaving:
        return "leaving voter" if member.voter else "leaving"
    return "voter" if member.voter else "member"


NAME_TAKEN = "~"
"""Stands in the name of a member that has lost its own, and in no other one (values.agent_name)."""

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
        if any(one.public_key == member.public_key != "" for one in self._state.members.values() if one is not by_node):
            raise Conflict("public_key", "another member has this key", "start with an empty data directory")
        member = replace(member, voter=old.voter if old else False, started=old.started if old else 0)
        was, becomes = standing(old), standing(member)
        called_back = old is not None and old.leaving and not member.leaving  # a voter that goes: by Recovered alone
        if called_back or (was != becomes and (was, becomes) not in STANDING_CHANGES):
            raise DecideAgain("it is on its way out")
        if old and old.voter and old.eligible and not member.eligible:
            raise DecideAgain("a voter gives up its seat first")
        if named and named.node_id != member.node_id:
            self._replace_silent(named, entry)
        self._state.members[member.number] = member
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

    def _replace_silent(self, old: Member, entry: entries.MemberPut) -> None:
        """A silent member loses its name to a newcomer and is gone; an old voter keeps its seat until a learner takes
        it, and goes then (`roster`)."""
        if entry.replaces != old.number:
            raise Conflict("name", f"a member named {old.name!r} is there", "choose another name with --name")
        if not old.voter:
            self._drop(old, entry.cluster_us)
            return
        renamed = replace(old, name=f"{old.name}{NAME_TAKEN}{old.number}")
        self._state.members[old.number] = renamed
        self._fold.rows.append(MemberRow(renamed))

    def started(self, entry: entries.MemberStarted) -> object:
        """It runs anew: what that owes to `@reboot` jobs. Raises DecideAgain."""
        member = self._state.members.get(entry.number)
        if member is None or entry.start <= member.started:
            raise DecideAgain("that start is known")
        self._state.members[entry.number] = replace(member, started=entry.start)
        self._fold.rows.append(MemberRow(self._state.members[entry.number]))
        for uid in entry.uids:
            job = self._state.jobs.get(uid)
            if job is not None and not job.job.disabled:
                self._owe_start(job, member, entry)
        return None

    def _owe_start(self, job: JobState, member: Member, entry: entries.MemberStarted) -> None:
        key = f"reboot|{job.uid}|{member.number}"
        if before := self._state.owed.get(key):
            self._fold.record_owed(job, before, "its agent has started anew")
            self._fold.rows.append(job.state_row())
        run_id = f"{job.uid}-b{member.number}-{entry.start}"
        tick_us = entry.wall_us // SECOND_US * SECOND_US
        self._fold.owe(
            OwedRow(key, job.uid, "reboot", run_id, 1, "reboot", tick_us, entry.cluster_us, member.node_id, "")
        )

    def remove(self, entry: entries.MemberRemove) -> Member:
        """It leaves, its tokens too; what was open on it is lost."""
        member = self._state.members.get(entry.number)
        if member is None:
            raise NotFound("member", str(entry.number))
        if member.voter:
            raise DecideAgain("a voter leaves in two steps")
        self._drop(member, entry.cluster_us)
        return member

    def _drop(self, member: Member, cluster_us: int) -> None:
        del self._state.members[member.number]
        self._fold.rows.append(Drop("members", (member.node_id,)))
        self._fold.drop_tokens_of(frozenset({member.node_id}))
        self._fold.roster_changed()
        open_there = sorted(id_ for id_, one in self._state.open.items() if one.node_id == member.node_id)
        items = tuple(ResultItem(execution_id=id_, kind="lost", reason="its agent was removed") for id_ in open_there)
        self._outcomes.results(entries.Results(cluster_us, items))

    def roster(self, entry: entries.Roster) -> object:
        """Who votes from here on. Who has lost its name, and now its seat, is on its way out."""
        for number, member in self._state.members.items():
            votes = member.node_id in entry.voters
            if votes != member.voter:
                goes = member.leaving or (not votes and NAME_TAKEN in member.name)
                self._state.members[number] = replace(member, voter=votes, leaving=goes)
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
