"""One turn: what is written, and what may leave when."""

from __future__ import annotations

from meshcron.core.effects import Alarm, Answer, Persist, SignalProcess
from meshcron.core.turn import Turn
from meshcron.model import Instant
from meshcron.rows import BallotRow, LogCut

NOW = Instant(1, 2)
ROW = BallotRow(1, "a")
ALARM = Alarm("full", "the disk is full")


def test_a_turn_that_asks_for_nothing_is_nothing() -> None:
    """No rows, no Persist; the count stays."""
    assert Turn(NOW).close(7) == (7, [])


def test_rows_become_one_persist_with_the_next_number() -> None:
    """In the order in which they were written."""
    turn = Turn(NOW)
    turn.write(ROW)
    turn.write_all([LogCut(1), LogCut(2)])
    assert turn.close(7) == (8, [Persist(8, (ROW, LogCut(1), LogCut(2)))])


def test_effects_wait_for_rows_written_after_them_too() -> None:
    """`after_writes` means the whole turn; `at_once` waits for nothing; both keep their order."""
    turn = Turn(NOW)
    turn.after_writes(Answer("first", True))
    turn.at_once(ALARM)
    turn.write(ROW)
    turn.after_writes(Answer("second", True))
    turn.at_once(SignalProcess("x", False))
    persists, effects = turn.close(0)
    assert persists == 1
    assert effects == [
        Persist(1, (ROW,)),
        Answer("first", True, after=1),
        ALARM,
        Answer("second", True, after=1),
        SignalProcess("x", False),
    ]


def test_without_rows_an_effect_waits_for_all_earlier_turns() -> None:
    """A turn that only answers may not overtake what an earlier turn is still writing."""
    turn = Turn(NOW)
    turn.after_writes(Answer("call", True))
    assert turn.close(3) == (3, [Answer("call", True, after=3)])


def test_before_anything_was_written_nothing_waits() -> None:
    """There is nothing to wait for."""
    turn = Turn(NOW)
    turn.after_writes(Answer("call", True))
    assert turn.close(0) == (0, [Answer("call", True, after=0)])
