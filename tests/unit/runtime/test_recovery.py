"""When a survivor may go on alone, and what it is told to do instead."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from meshcron.core.settings import NOWHERE
from meshcron.messages import (
    GateMessage,
    MemberInfo,
    Profile,
    Refused,
    Wait,
    Welcome,
    generation_number,
    next_generation,
)
from meshcron.runtime.recovery import Held, held, why_not
from tests.unit.core.disk import CLUSTER, NODE
from tests.unit.core.lab import Lab

FIVE = ("a", "b", "c", "d", "e")
OURS = Held("a", CLUSTER, 0, frozenset(FIVE), (4, 120), {one: f"agent-{one}" for one in FIVE})


def told(who: str, last: tuple[int, int] = (4, 120), **more: object) -> Welcome:
    """What the gate of one of the five says."""
    profile = Profile(node_id=who, name=f"agent-{who}", public_key="", endpoint=NOWHERE, tags={}, facts={}, session=1)
    members = tuple(
        MemberInfo(node_id=one, name=f"agent-{one}", number=at, public_key="", voter=True)
        for at, one in enumerate(FIVE, 1)
    )
    plain = Welcome(
        profile=profile,
        cluster=CLUSTER,
        generation=0,
        roster_index=9,
        members=members,
        leader="",
        last_term=last[0],
        last_index=last[1],
    )
    return replace(plain, **more)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [told("b")],
        [told("b", (4, 119))],
        [told("b", (3, 500))],
        [told("b"), told("b")],
        [told("b"), told("worker")],
        [Wait(told("c").profile, "", "looking for a cluster too")],
        [told("b", cluster="another", leader="b")],
    ],
)
def test_with_a_minority_that_knows_no_more_it_may(answers: list[GateMessage]) -> None:
    """Silence, one other voter, one that asks twice, an agent without a vote, strangers."""
    assert why_not(OURS, answers) == ""


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([told("b", (4, 121))], r"agent-b holds a newer log \(entry 121, here 120\): stop it and run .* there"),
        ([told("b", (5, 7))], "agent-b holds a newer log"),
        ([told("b", leader="c")], "agent-b says that agent-c leads: .*meshcron up"),
        ([told("b"), told("c")], "3 of 5 voters are there: .*meshcron up"),
        ([told("b", generation=next_generation(0, "b"))], r"agent-b says .* recovered \(generation 1\): .*meshcron up"),
        ([Refused("it was removed")], "a member refuses this agent: it was removed"),
    ],
)
def test_it_is_refused_while_others_can_go_on_or_know_more(answers: list[GateMessage], why: str) -> None:
    """Each with its remedy."""
    with pytest.raises(AssertionError, match=why):
        assert not why_not(OURS, answers)
    assert why_not(replace(OURS, cluster=""), []).startswith("this agent holds no copy")
    assert why_not(replace(OURS, voters=frozenset({"a"})), []).startswith("this agent is the only voter")


def test_what_a_disk_holds_is_read_as_the_agent_reads_it() -> None:
    """The members, who votes, how far the log goes, and the generation it lives in."""
    lab = Lab().start(recovering=True)
    lab.advance(2)
    found = held(lab.disk.load(), NODE)
    assert (found.cluster, found.voters, found.names) == (CLUSTER, frozenset({NODE}), {NODE: "one"})
    assert found.last == (lab.agent.ledger.term, lab.agent.ledger.last_index)
    assert found.generation == lab.agent.generation
    assert generation_number(found.next_generation) == generation_number(found.generation) + 1


def test_generations_rise_by_number_and_differ_by_agent() -> None:
    """Two agents that recover one cluster apart never share a generation; the next recovery outranks both."""
    one, two = next_generation(0, "a" * 32), next_generation(0, "b" * 32)
    assert one != two
    assert generation_number(one) == generation_number(two) == 1
    assert min(next_generation(one, "a" * 32), next_generation(one, "c" * 32)) > max(one, two)
    assert next_generation(two, "b" * 32) < 1 << 63
