"""The only voter's wait for a learner's copy: short, not for one that is late, and never where nobody is there."""

from __future__ import annotations

from meshcron.core.second_copy import MISSES_MAX, PATIENCE_US, SecondCopy


def warm() -> SecondCopy:
    """Of a leader whose log ends with entry 10, durable here and at its learner."""
    second = SecondCopy()
    assert second.reaches(10, 10, 10, 0) == 10
    return second


def missed(second: SecondCopy, first: int, count: int = MISSES_MAX) -> int:
    """So many entries that the learner does not get in time; returns the last one."""
    for index in range(first, first + count):
        assert second.reaches(index, 10, index, index * PATIENCE_US) == index - 1
        assert second.reaches(index, 10, index, (index + 1) * PATIENCE_US) == index
    return first + count - 1


def test_an_entry_waits_for_the_learner() -> None:
    """It counts at the learner's word, whenever the own disk has it; nobody is woken for it any more."""
    second = warm()
    assert second.reaches(11, 10, 12, 0) == 10
    assert second.next_wakeup() == PATIENCE_US
    assert second.reaches(11, 11, 12, 3_000) == 11
    assert second.reaches(11, 12, 12, 4_000) == 11, "the own copy is what counts"
    assert second.next_wakeup() is None


def test_each_entry_waits_for_50_ms_at_most() -> None:
    """Each from the moment when it is durable here, however many come after it."""
    second = warm()
    assert second.reaches(11, 10, 12, 0) == 10
    assert second.reaches(12, 10, 12, 40_000) == 10
    assert second.reaches(12, 10, 12, PATIENCE_US - 1) == 10
    assert second.reaches(12, 10, 12, PATIENCE_US) == 11
    assert second.next_wakeup() == 40_000 + PATIENCE_US
    assert second.reaches(12, 11, 12, PATIENCE_US + 1) == 11
    assert second.reaches(12, 12, 12, PATIENCE_US + 2) == 12


def test_after_two_misses_nobody_is_waited_for_until_it_has_caught_up() -> None:
    """What comes meanwhile costs nothing; a part of it is not enough."""
    second = warm()
    last = missed(second, 11)
    assert second.next_wakeup() is None
    assert second.reaches(last + 1, 10, last + 1, 0) == last + 1
    assert second.reaches(last + 2, last, last + 2, 0) == last + 2
    assert second.reaches(last + 2, last + 2, last + 2, 0) == last + 2
    assert second.reaches(last + 3, last + 2, last + 3, 0) == last + 2


def test_one_miss_is_forgiven_by_the_next_entry_that_comes_in_time() -> None:
    """Two in a row are two: a learner that is late now and then is waited for."""
    second = warm()
    missed(second, 11, 1)
    assert second.reaches(12, 10, 13, 0) == 11
    assert second.reaches(12, 12, 13, 1) == 12
    missed_again = second.reaches(13, 12, 13, 2)
    assert (missed_again, second.reaches(13, 12, 13, 2 + PATIENCE_US)) == (12, 13)
    assert second.reaches(14, 12, 14, PATIENCE_US + 3) == 13


def test_a_learner_that_has_the_whole_log_to_get_is_not_waited_for() -> None:
    """Neither a new one nor one that was away."""
    second = SecondCopy()
    assert second.reaches(11, 3, 11, 0) == 11
    second = warm()
    second.forget()
    assert second.reaches(11, 10, 11, 0) == 11
    assert second.next_wakeup() is None
