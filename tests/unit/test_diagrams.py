"""docs/PROTOCOL.md shows the states as the code has them."""

from __future__ import annotations

import pytest

from meshcron.core.timing import LAN
from meshcron.core.voter import Voter
from meshcron.rows import BallotRow
from meshcron.vocabulary import VOCABULARY
from tests import diagrams


def test_the_page_shows_the_tables() -> None:
    """`python -m tests.diagrams` writes it anew."""
    page = diagrams.PAGE.read_text(encoding="utf-8")
    assert diagrams.drawn(page) == page
    assert [found[2] for found in diagrams.BLOCK.finditer(page)] == list(diagrams.TABLES), "each once, and no other"


def test_a_change_of_a_table_changes_the_page() -> None:
    """The text between the marks is made, the rest is left alone."""
    page = "before\n<!-- made from model.STATUS_CHANGES by tests/diagrams.py -->\nold\n<!-- end -->\nafter\n"
    drawn = diagrams.drawn(page)
    assert "old" not in drawn
    assert drawn.startswith("before\n<!-- made")
    assert drawn.endswith("<!-- end -->\nafter\n")
    assert "  armed --> running: Started\n" in drawn


def test_every_state_can_be_reached() -> None:
    """No diagram has an island."""
    for name, changes in diagrams.TABLES.items():
        states = {state for pair in changes for state in pair}
        reached: set[str | None] = {None}
        while more := {new for old, new in changes if old in reached} - reached:
            reached |= more
        assert reached | {None} == states | {None}, name
        assert not [why for why in changes.values() if ":" in why or ";" in why], "mermaid ends a label there"


def test_a_role_that_does_not_follow_ends_the_agent() -> None:
    """A follower never leads without having stood: better no agent than a second leader."""
    voter = Voter("a", LAN, VOCABULARY, BallotRow(0, ""), [], (0, 0, 0))
    voter.become("follower")
    with pytest.raises(AssertionError, match="follower becomes leader"):
        voter.become("leader")
