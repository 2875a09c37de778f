"""Who belongs to the cluster and who votes: formation, members, roster, hand-over, dissolution, recovery."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from meshcron import entries
from meshcron.core.catalog_members import standing
from meshcron.core.fold import DecideAgain
from meshcron.core.state import State
from meshcron.errors import Conflict, NotFound
from meshcron.model import SECOND_US
from tests.unit.core.book import Book
from tests.unit.core.disk import CLUSTER, NODE, TOKEN, member, second


@pytest.fixture
def book() -> Book:
    """A formed cluster of one, without jobs."""
    return Book()


def test_a_cluster_is_formed_once(book: Book) -> None:
    """A second formation is nothing: the id stays, no member and no token come in."""
    applied = book.apply(entries.Formed("d" * 32, member(2), (replace(TOKEN, id="t2", name="other"),)))
    assert isinstance(applied.outcome, DecideAgain)
    assert book.state.cluster == CLUSTER
    assert list(book.state.members) == [1]
    assert list(book.state.token_map) == ["t1"]


def test_a_member_is_added_and_changed(book: Book) -> None:
    """Its roster number names it; it brings its own token and no vote."""
    token = replace(TOKEN, id="local2", name="local 2", node_id=member(2).node_id)
    added = book.apply(entries.MemberPut(member(2), (token,)))
    assert added.outcome == replace(member(2), voter=False)
    assert book.state.token_by_hash(token.sha256) is not None
    book.apply(entries.MemberPut(replace(member(2), priority=7)))
    assert book.state.members == {1: member(1), 2: replace(member(2), voter=False, priority=7)}
    assert book.state.member_of(member(2).node_id) == book.state.members[2]


def test_a_roster_number_is_given_once(book: Book) -> None:
    """Not even after its holder has left: intents in old copies name it."""
    book.apply(entries.MemberPut(member(2)))
    assert isinstance(book.apply(entries.MemberPut(replace(member(3), number=2))).outcome, DecideAgain)
    book.apply(entries.MemberRemove(2, second(5)))
    assert book.state.last_number == 2
    assert State.load(book.disk.load()).last_number == 2


def test_no_two_members_have_one_key(book: Book) -> None:
    """Whoever has a member's key speaks as that member, and as no other one."""
    book.apply(entries.MemberPut(replace(member(2), public_key="its own")))
    assert isinstance(book.apply(entries.MemberPut(replace(member(3), public_key="its own"))).outcome, Conflict)
    assert 3 not in book.state.members


@pytest.mark.parametrize("change", [{"public_key": "another"}, {"number": 9}])
def test_a_node_id_never_changes_its_key_or_number(book: Book, change: dict[str, Any]) -> None:
    """Who has its data directory has its identity, and nobody else."""
    book.apply(entries.MemberPut(replace(member(2), public_key="its own")))
    changed = entries.MemberPut(replace(member(2), **{"public_key": "its own", **change}))
    assert isinstance(book.apply(changed).outcome, Conflict)
    assert book.state.members[2].public_key == "its own"


def test_a_name_is_taken_over_from_a_silent_member_only(book: Book) -> None:
    """The leader says whom it saw silent: that one is gone with it, and what was open on it is lost (PROTOCOL 1)."""
    token = replace(TOKEN, id="local2", name="local 2", node_id=member(2).node_id)
    book.apply(entries.MemberPut(member(2), (token,)))
    book.put()
    book.launch(1, targets=(1, 2))
    newcomer = replace(member(3), name="agent2")
    assert isinstance(book.apply(entries.MemberPut(newcomer)).outcome, Conflict)
    assert isinstance(book.apply(entries.MemberPut(newcomer, replaces=1)).outcome, Conflict)
    book.apply(entries.MemberPut(newcomer, replaces=2, cluster_us=second(40)))
    assert {one.number: one.node_id for one in book.state.members.values()} == {1: NODE, 3: member(3).node_id}
    assert [one.id for one in book.state.tokens()] == ["t1"]
    assert sorted(book.records) == [(1, "armed", ""), (1, "lost", "its agent was removed")]


def test_a_voter_that_loses_its_name_keeps_its_seat_until_another_one_has_it(book: Book) -> None:
    """Its copies are counted on (PROTOCOL 2); once they are not it is on its way out, however alive."""
    book.apply(entries.MemberPut(member(2)))
    book.apply(entries.Roster((NODE, member(2).node_id)))
    book.apply(entries.MemberPut(replace(member(3), name="agent2"), replaces=2, cluster_us=second(40)))
    assert {one.number: one.name for one in book.state.members.values()} == {1: "agent1", 2: "agent2~2", 3: "agent2"}
    assert standing(book.state.members[2]) == "voter"
    book.apply(entries.Roster((NODE, member(2).node_id, member(3).node_id)))
    book.apply(entries.Roster((NODE, member(3).node_id)))
    assert {number: standing(one) for number, one in book.state.members.items()} == {
        1: "voter",
        2: "leaving",
        3: "voter",
    }
    book.apply(entries.MemberRemove(2, second(50)))
    assert list(book.state.members) == [1, 3]


def test_a_member_that_leaves_takes_its_token_and_its_runs_along(book: Book) -> None:
    """What is open on it is lost: nobody can say."""
    token = replace(TOKEN, id="local2", name="local 2", node_id=member(2).node_id)
    book.apply(entries.MemberPut(member(2), (token,)))
    book.put()
    book.launch(1, targets=(1, 2))
    book.apply(entries.MemberRemove(2, second(5)))
    assert list(book.state.members) == [1]
    assert [one.id for one in book.state.tokens()] == ["t1"]
    assert sorted(book.records) == [(1, "armed", ""), (1, "lost", "its agent was removed")]
    assert isinstance(book.apply(entries.MemberRemove(2, second(6))).outcome, NotFound)


def test_a_target_that_has_left_is_passed_over(book: Book) -> None:
    """The others run; with nobody left the leader decides again."""
    book.apply(entries.MemberPut(member(2)))
    book.put()
    book.apply(entries.MemberRemove(2, second(5)))
    assert [one.agent for one in book.launch(1, targets=(1, 2)).opened] == ["agent1"]
    assert isinstance(book.launch(2, targets=(2,)).outcome, DecideAgain)
    assert [tick for tick, _, _ in book.records] == [1]


def test_a_target_that_is_down_has_a_record_of_its_own(book: Book) -> None:
    """Under its own name; the run goes on without it (P2)."""
    book.apply(entries.MemberPut(member(2)))
    book.put()
    intent = replace(book.intent(1, targets=(1,)), down=(2,))
    assert [one.agent for one in book.apply(book.intents(intent)).opened] == ["agent1"]
    book.apply(book.intents(replace(book.intent(2, targets=()), down=(1, 2))))
    shown = sorted((one.agent, one.scheduled_wall_us, one.reason) for one in book.disk.executions())
    assert shown == [
        ("agent1", second(1), ""),
        ("agent1", second(2), "agent down"),
        ("agent2", second(1), "agent down"),
        ("agent2", second(2), "agent down"),
    ]
    assert len({one.id for one in book.disk.executions()}) == 4


def test_targets_that_are_down_and_gone_are_one_record(book: Book) -> None:
    """They were removed between the decision and its commit: the tick has a record all the same (P2)."""
    book.apply(entries.MemberPut(member(2)))
    book.apply(entries.MemberPut(member(3)))
    book.put()
    decided = book.intents(replace(book.intent(1, targets=()), down=(2, 3)))
    book.apply(entries.MemberRemove(2, second(1)))
    book.apply(entries.MemberRemove(3, second(1)))
    book.apply(decided)
    assert [(one.agent, one.reason) for one in book.disk.executions()] == [("", "agent down")]


def test_the_roster_says_who_votes(book: Book) -> None:
    """A voter cannot be removed before it is none any more."""
    book.apply(entries.MemberPut(member(2)))
    nodes = tuple(member(n).node_id for n in (1, 2))
    book.apply(entries.Roster(nodes))
    assert [one.voter for one in book.state.members.values()] == [True, True]
    assert isinstance(book.apply(entries.MemberRemove(2, second(5))).outcome, DecideAgain)
    book.apply(entries.Roster(nodes[:1]))
    assert [one.voter for one in book.state.members.values()] == [True, False]
    book.apply(entries.MemberRemove(2, second(6)))
    assert list(book.state.members) == [1]


def test_a_voter_loses_its_seat_before_its_right_to_one(book: Book) -> None:
    """Its votes and copies are counted on until then; nobody else's are (core/known_members, may_command)."""
    book.apply(entries.MemberPut(member(2)))
    nodes = tuple(member(n).node_id for n in (1, 2))
    book.apply(entries.Roster(nodes))
    worker = entries.MemberPut(replace(member(2), eligible=False))
    assert isinstance(book.apply(worker).outcome, DecideAgain)
    assert book.state.members[2].eligible
    book.apply(entries.Roster(nodes[:1]))
    book.apply(worker)
    assert not book.state.members[2].eligible


def test_who_was_asked_to_go_is_not_called_back(book: Book) -> None:
    """By a word that was on its way: not while it leaves, and not as a new member with its old number."""
    book.apply(entries.MemberPut(member(2)))
    gone = replace(member(2), leaving=True)
    book.apply(entries.MemberPut(gone))
    assert isinstance(book.apply(entries.MemberPut(replace(member(2), priority=7))).outcome, DecideAgain)
    assert book.state.members[2] == replace(gone, voter=False)
    book.apply(entries.MemberRemove(2, second(5)))
    assert isinstance(book.apply(entries.MemberPut(gone)).outcome, DecideAgain)
    assert list(book.state.members) == [1]


def test_nor_is_a_voter_that_was_asked_to_go(book: Book) -> None:
    """What it said of itself stood in the log behind the request: it still gives up its seat, and goes."""
    book.apply(entries.MemberPut(member(2)))
    book.apply(entries.Roster((member(1).node_id, member(2).node_id)))
    book.apply(entries.MemberPut(replace(member(2), leaving=True)))
    assert isinstance(book.apply(entries.MemberPut(replace(member(2), priority=7))).outcome, DecideAgain)
    assert standing(book.state.members[2]) == "leaving voter"


def test_every_change_of_the_members_is_numbered(book: Book) -> None:
    """Those who hold no log ask for what is newer than they have."""
    indexes = [book.state.roster_index]
    for entry in (
        entries.MemberPut(member(2)),
        entries.Roster((member(1).node_id, member(2).node_id)),
        entries.Roster((member(1).node_id,)),
        entries.MemberRemove(2, second(5)),
    ):
        book.apply(entry)
        indexes.append(book.state.roster_index)
    assert indexes == [1, 2, 3, 4, 5]
    book.put()
    assert book.state.roster_index == 5


def test_hand_overs_are_held_down(book: Book) -> None:
    """One in five minutes; on a relapse the wait doubles, up to an hour (PROTOCOL 4)."""
    minute = 60
    entry = entries.HandOver(member(2).node_id, second(0))
    assert book.apply(entry).outcome is None
    assert isinstance(book.apply(replace(entry, cluster_us=second(4 * minute))).outcome, DecideAgain)
    assert book.apply(replace(entry, cluster_us=second(6 * minute))).outcome is None
    assert isinstance(book.apply(replace(entry, cluster_us=second(15 * minute))).outcome, DecideAgain)
    assert book.apply(replace(entry, cluster_us=second(17 * minute))).outcome is None
    assert book.state.hand_over == (second(17 * minute), 20 * minute * SECOND_US)
    assert book.apply(replace(entry, cluster_us=second(600 * minute))).outcome is None
    assert book.state.hand_over == (second(600 * minute), 5 * minute * SECOND_US)


def test_a_virgin_cluster_dissolves_into_another(book: Book) -> None:
    """After that every entry applies as nothing."""
    book.apply(entries.TokenPut(replace(TOKEN, id="local2", name="l2", node_id=member(2).node_id)))
    assert book.state.is_virgin()
    assert book.apply(entries.Dissolve("e" * 32)).outcome is None
    assert book.state.dissolved == "e" * 32
    assert isinstance(book.put().outcome, DecideAgain)
    assert book.state.job_views() == []


@pytest.mark.parametrize("by", ["job", "token"])
def test_a_cluster_that_was_used_does_not_dissolve(book: Book, by: str) -> None:
    """A job, or a person's token; also when they are gone again."""
    if by == "job":
        book.put()
        book.apply(entries.JobDelete(2, 2))
    else:
        book.apply(entries.TokenPut(replace(TOKEN, id="t2", name="ci")))
        book.apply(entries.TokenRevoke("t2"))
    assert not book.state.is_virgin()
    assert isinstance(book.apply(entries.Dissolve("e" * 32)).outcome, DecideAgain)
    assert book.state.dissolved == ""


def test_after_a_recovery_what_was_open_is_lost(book: Book) -> None:
    """And ticks up to the given instant may have run (PROTOCOL 2, recover)."""
    book.put()
    book.launch(1)
    book.launch(2)
    book.apply(entries.Started(()))
    book.apply(entries.Recovered(member(1), second(9)))
    assert book.records == [(1, "lost", "recovered"), (2, "lost", "recovered")]
    assert book.state.recovered[0] == second(9)
    assert not book.state.open


def test_19_after_a_recovery_the_roster_is_this_member_alone() -> None:
    """In memory and on the disk: an old voter that comes back finds nobody who counts it, and its token opens nothing.
    Whoever holds no log stays."""
    book = Book(members=3)
    token = replace(TOKEN, id="local2", name="local 2", node_id=member(2).node_id)
    worker = replace(member(4), eligible=False, voter=False)
    book.apply(entries.MemberPut(member(2), (token,)))
    book.apply(entries.MemberPut(worker))
    book.apply(entries.Recovered(replace(member(1), number=9), second(9), 5 << 32))
    assert book.state.members == {1: member(1), 4: worker}
    assert {one.number: one for one in book.disk.load().members} == book.state.members
    assert "local2" not in book.state.token_map
    assert State.load(book.disk.load()).generation == book.state.generation == 5 << 32


def test_a_salvaged_agent_takes_the_place_of_its_former_self() -> None:
    """It has another node id, and so another number: intents in old copies name the old one."""
    book = Book(members=2)
    alone = replace(member(1), node_id="f" * 32)
    book.apply(entries.Recovered(alone, second(9)))
    assert book.state.members == {3: replace(alone, number=3)}
    assert book.disk.load().members == [replace(alone, number=3)]
    assert State.load(book.disk.load()).last_number == 3
