"""Who is let in at a gate."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from meshcron.core import events
from meshcron.core.gate import LETTERS_MAX
from meshcron.messages import Endpoint, Hello, Profile, Refused, Wait
from tests.unit.core.disk import TOKEN
from tests.unit.core.lab import Lab

NEWCOMER = Profile(
    node_id="b" * 32, name="another", public_key="k" * 40, endpoint=Endpoint("", 0, 0, 0), tags={}, facts={}, session=1
)

LONG = "x" * 300_000


def test_a_newcomer_whose_name_is_as_long_as_may_be_is_let_in() -> None:
    lab = Lab().start()
    hello = Hello(replace(NEWCOMER, name="x" * LETTERS_MAX), "", 0, token=TOKEN)
    assert isinstance(lab.agent.answer(hello, lab.now()), Wait)
    lab.give(events.HelloHeard(hello))
    assert [one.name for one in lab.agent.state.members.values()] == ["one", "x" * LETTERS_MAX]


@pytest.mark.parametrize(
    "hello",
    [
        *(Hello(replace(NEWCOMER, **{field: LONG}), "", 0) for field in ("node_id", "name", "public_key")),
        Hello(NEWCOMER, "", 0, token=replace(TOKEN, sha256=LONG)),
    ],
    ids=["node_id", "name", "public_key", "token"],
)
def test_a_newcomer_that_would_not_fit_into_an_entry_is_refused(hello: Hello) -> None:
    """It has the cluster key, and is no build of ours; the leader goes on."""
    lab = Lab().start()
    lab.give(events.HelloHeard(hello))  # without the rule TooLarge escapes from Agent.handle, and ends the leader
    assert [one.name for one in lab.agent.state.members.values()] == ["one"]
    assert isinstance(lab.agent.answer(hello, lab.now()), Refused)
