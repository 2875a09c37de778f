"""Cluster time never steps and never falls; wall time follows the machine's clock by slewing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron import commands
from meshcron.core.clocks import AGREE_US, WRONG_LOOKS, ClusterClock, WrongClocks, agreed_wall_us
from meshcron.core.events import Woke
from meshcron.model import SECOND_US, Instant, Job
from tests.unit.core.disk import BOOT_US, START_WALL_US, second
from tests.unit.core.lab import Lab

HOUR_S = 3600


def at(boot_s: float, ahead_s: float = 0) -> Instant:
    """A reading `boot_s` after the start, the wall clock `ahead_s` ahead of it."""
    boot_us = int(boot_s * SECOND_US)
    return Instant(BOOT_US + boot_us, START_WALL_US + boot_us + int(ahead_s * SECOND_US))


COMMITTED = (START_WALL_US + 5, START_WALL_US, -5)
"""The last committed reading: cluster time, wall clock and offset."""


def leading() -> ClusterClock:
    """Leads since the start, with cluster time = wall time."""
    clock = ClusterClock()
    clock.lead(at(0), (START_WALL_US, START_WALL_US, 0), (), START_WALL_US)
    return clock


# ---- leading


def test_a_new_cluster_begins_with_the_wall_clock() -> None:
    """Cluster time = wall time, no offset."""
    clock = ClusterClock()
    assert not clock.running
    clock.lead(at(0), (0, 0, 0), (), START_WALL_US)
    assert (clock.running, clock.leads) == (True, True)
    assert (clock.cluster_us(at(0)), clock.wall_us(at(0)), clock.offset_us) == (START_WALL_US, START_WALL_US, 0)


@pytest.mark.parametrize(("down_s", "moved_s"), [(3600, 3600), (0, 0), (-20, 0)])
def test_after_a_cold_start_it_goes_on_from_the_last_committed_instant(down_s: int, moved_s: int) -> None:
    """By as much as the wall clock moved forward since; never back."""
    clock = ClusterClock()
    clock.lead(at(0), COMMITTED, (), at(0, down_s).wall_us)
    assert clock.cluster_us(at(0)) == START_WALL_US + 5 + moved_s * SECOND_US
    assert clock.offset_us == -5


def test_who_has_heard_a_leader_goes_on_from_its_stamps() -> None:
    """Whatever the wall clocks did meanwhile."""
    clock = ClusterClock()
    clock.hear(at(0), second(7))
    clock.lead(at(10), COMMITTED, (), at(10, 7200).wall_us)
    assert clock.cluster_us(at(10)) == second(17)


def test_a_new_leader_is_never_below_what_a_voter_has_seen() -> None:
    """Their marks come with their votes: below them nothing would be accepted."""
    clock = ClusterClock()
    clock.lead(at(0), COMMITTED, (second(3), second(99), second(50)), START_WALL_US)
    assert clock.cluster_us(at(0)) == second(99)


def test_nor_below_what_is_committed() -> None:
    """Though the stamps it heard were slow."""
    clock = ClusterClock()
    clock.hear(at(0), second(-30))
    clock.lead(at(0), COMMITTED, (), START_WALL_US)
    assert clock.cluster_us(at(0)) == START_WALL_US + 5


def test_cluster_time_is_what_the_suspend_counting_clock_says() -> None:
    """Whatever the wall clock does."""
    clock = leading()
    assert clock.cluster_us(at(90, ahead_s=-4000)) == second(90)
    assert clock.boot_us(second(90)) == at(90).boot_us


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(-(10**10), 10**10)), min_size=1))
def test_cluster_time_never_falls_while_leading(readings: list[tuple[int, int]]) -> None:
    """Over rising boot times, with any wall clock, slewing or stepping; and `boot_us` is its mirror."""
    clock, boot_us, last = leading(), BOOT_US, 0
    for passed_us, wall_us in readings:
        boot_us += passed_us
        now = Instant(boot_us, wall_us)
        step_us = clock.slew(now, wall_us)
        if step_us:
            clock.step(now, clock.offset_us + step_us)
        assert clock.cluster_us(now) >= last
        last = clock.cluster_us(now)
        assert clock.boot_us(last) == boot_us


# ---- following


def test_the_fastest_stamp_tells_the_time() -> None:
    """Delays only make a stamp late."""
    clock = ClusterClock()
    clock.hear(at(0), second(-0.050))
    assert clock.cluster_us(at(0)) == second(-0.050)
    clock.hear(at(1), second(0.999))
    clock.hear(at(2), second(1.5))
    assert clock.cluster_us(at(3)) == second(2.999)


def test_a_leader_hears_nobody() -> None:
    """A stamp of the one before it may still be under way; nor does an agent that leads nobody's stamp say 0."""
    clock = leading()
    clock.hear(at(1), second(500))
    assert clock.cluster_us(at(1)) == second(1)
    clock.follow(at(1))
    clock.hear(at(2), 0)
    assert clock.cluster_us(at(2)) == second(2)
    clock.hear(at(2), second(2.5))
    assert clock.cluster_us(at(2)) == second(2.5)


def test_clocks_of_different_speed_do_not_drift_apart() -> None:
    """Ours is fast by 100 ppm: after an hour the stamps still hold us to the leader's time, within a millisecond or
    so for each window."""
    clock = ClusterClock()
    for n in range(3600):
        clock.hear(at(n * 1.0001), second(n) - 500)
    assert abs(clock.cluster_us(at(3599 * 1.0001)) - second(3599)) < 4_000


@given(st.lists(st.tuples(st.integers(1_000, 2_000_000), st.integers(0, 300_000)), min_size=1, max_size=60))
def test_followed_time_rises_too(stamps: list[tuple[int, int]]) -> None:
    """With any delays: what was due stays due, and the leader's time is never overtaken."""
    clock, boot_us, last = ClusterClock(), BOOT_US, 0
    for passed_us, delay_us in stamps:
        boot_us += passed_us
        now = Instant(boot_us, 0)
        truth_us = boot_us + START_WALL_US
        clock.hear(now, truth_us - delay_us)
        assert last <= clock.cluster_us(now) <= truth_us
        last = clock.cluster_us(now)


# ---- slewing


@pytest.mark.parametrize(
    ("ahead_s", "per_second_us"),
    [(0.9, 500), (-0.9, -500), (1.5, 50_000), (-25, -50_000), (30, 50_000), (0.0001, 100), (0, 0)],
)
def test_a_difference_is_slewed_at_its_rate(ahead_s: float, per_second_us: int) -> None:
    """Under 1 s: 0.5 ms a second; above: 50 ms a second; never past the target (PROTOCOL 7)."""
    clock = leading()
    assert clock.slew(at(1), at(1, ahead_s).wall_us) == 0
    assert clock.offset_us == per_second_us
    clock.slew(at(2), at(2, ahead_s).wall_us)
    assert clock.offset_us == (2 * per_second_us if abs(ahead_s) > 0.001 else per_second_us)


def test_twenty_seconds_are_absorbed_in_seven_minutes() -> None:
    """To within the second below which it slows down."""
    clock = leading()
    for n in range(1, 7 * 60):
        assert clock.slew(at(n), at(n, 20).wall_us) == 0
    assert abs(at(420, 20).wall_us - clock.wall_us(at(420))) <= SECOND_US


@given(st.integers(-30 * SECOND_US, 30 * SECOND_US), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_slewing_never_overshoots_and_never_goes_away(difference_us: int, waits_s: list[int]) -> None:
    """The difference shrinks towards zero and keeps its sign."""
    clock, passed_s, left = leading(), 0, difference_us
    for wait_s in waits_s:
        passed_s += wait_s
        wall_us = at(passed_s).wall_us + difference_us
        assert clock.slew(at(passed_s), wall_us) == 0
        now_left = wall_us - clock.wall_us(at(passed_s))
        assert abs(now_left) <= abs(left)
        assert now_left * left >= 0
        left = now_left


@pytest.mark.parametrize("ahead_s", [30.001, -30.001, 7200, -7200])
def test_more_than_thirty_seconds_is_a_step(ahead_s: float) -> None:
    """It is reported, and nothing is slewed: the step is for the log to decide."""
    clock = leading()
    assert clock.slew(at(1), at(1, ahead_s).wall_us) == int(ahead_s * SECOND_US)
    assert clock.offset_us == 0
    clock.step(at(1), int(ahead_s * SECOND_US))
    assert clock.wall_us(at(1)) == at(1, ahead_s).wall_us
    assert clock.slew(at(2), at(2, ahead_s).wall_us) == 0


# ---- what the voters' wall clocks say together


@pytest.mark.parametrize(
    ("walls_s", "voters", "agreed_s"),
    [
        ((10,), 1, 10),
        ((10, 11), 3, 10),
        ((10, 11, 12), 3, 11),
        ((10, 11, 3600), 3, 11),
        ((-3600, 10, 11), 3, 10),
        ((10, 3600), 3, None),
        ((10, 20, 30), 3, None),
        ((10,), 3, None),
        ((), 1, None),
        ((10, 11), 2, 10),
        ((10, 3600), 2, None),
        ((8, 9, 10, 11, 99), 5, 10),
        ((8, 9, 10), 5, 9),
        ((1, 9, 10), 5, None),
    ],
)
def test_the_median_counts_where_a_majority_agrees(walls_s: tuple[int, ...], voters: int, agreed_s: int | None) -> None:
    """Within 2 s, of the whole roster; never a mean: of two clocks one may be an hour off (PROTOCOL 7)."""
    agreed = agreed_wall_us([second(one) for one in reversed(walls_s)], voters)
    assert agreed == (None if agreed_s is None else second(agreed_s))


@pytest.mark.parametrize("ahead_us", [AGREE_US + 1, -AGREE_US - 1])
def test_a_wrong_clock_is_named_once(ahead_us: int) -> None:
    """And again after it was right."""
    clocks = WrongClocks()
    wrong, right = {"a": ahead_us, "b": AGREE_US}, {"a": AGREE_US, "b": -AGREE_US}
    for _ in range(2):
        assert [clocks.look(wrong) for _ in range(WRONG_LOOKS + 2)] == [[]] * (WRONG_LOOKS - 1) + [["a"], [], []]
        assert clocks.look(right) == []
    clocks.look(wrong)
    clocks.look(right)
    assert not any(clocks.look(wrong) for _ in range(WRONG_LOOKS - 1))


def test_late_heartbeats_make_no_clock_wrong() -> None:
    """Each is late by another time; a clock that is wrong is so by the same at each look."""
    clocks = WrongClocks()
    assert not any(clocks.look({"a": -late * (AGREE_US + 1)}) for late in range(1, 10))
    assert [clocks.look({"a": 20 * AGREE_US}) for _ in range(WRONG_LOOKS)] == [[]] * (WRONG_LOOKS - 1) + [["a"]]


# ---- steps as a whole agent takes them


def test_a_small_step_opens_no_epoch() -> None:
    """20 s back: slewed. Each tick runs once, none is skipped."""
    lab = Lab().start()
    lab.put(schedule="*/5 * * * * *")
    lab.wall_shift_us -= 20 * SECOND_US
    lab.advance(30)
    assert lab.agent.state.epoch == 0
    ticks = [tick for tick, _, _ in lab.records()]
    assert ticks == sorted(set(ticks))
    assert {status for _, status, _ in lab.records()} <= {"armed", "running"}


def test_a_step_back_opens_an_epoch_and_a_wildcard_job_goes_on_from_the_new_time() -> None:
    """An hour back: the job runs again within the minute, under ids of the new epoch (PROTOCOL 7)."""
    lab = Lab().start()
    lab.put(schedule="*/10 * * * * *")
    lab.advance_to(30.5)
    lab.end_all()
    before = {one.run_id for one in lab.executions()}
    lab.wall_shift_us -= HOUR_S * SECOND_US
    lab.advance(12)
    assert lab.agent.state.epoch == 1
    assert lab.alarms == ["clock_step"]
    fresh = [one for one in lab.executions() if one.run_id not in before]
    assert [(one.scheduled_wall_us - second(-HOUR_S)) // SECOND_US for one in fresh] == [40]


def test_a_step_back_keeps_the_cursor_of_a_fixed_time_job() -> None:
    """08:00 ran; at 08:05 the clock goes back to 07:05: at the second 08:00 it does not run again."""
    lab = Lab().start()
    lab.put(schedule="2 8 * * *")
    lab.advance_to(5 * 60)
    assert [tick for tick, _, _ in lab.records()] == [120]
    lab.end_all()
    lab.wall_shift_us -= HOUR_S * SECOND_US
    lab.advance(2 * HOUR_S)
    assert lab.agent.state.epoch == 1
    assert [tick for tick, _, _ in lab.records()] == [120]
    assert lab.view().next_wall_us == second(24 * HOUR_S + 120)


def test_a_fixed_time_job_goes_on_from_the_new_time_after_three_hours() -> None:
    """As above, but four hours back: 08:02 comes again, and is run again."""
    lab = Lab().start()
    lab.put(schedule="2 8 * * *")
    lab.advance_to(5 * 60)
    lab.end_all()
    lab.wall_shift_us -= 4 * HOUR_S * SECOND_US
    lab.advance(5 * HOUR_S)
    assert [(tick, status) for tick, status, _ in lab.records()] == [(120, "success"), (120, "running")]
    assert len({one.run_id for one in lab.executions()}) == 2


@pytest.mark.parametrize(("hours", "runs"), [(2, 1), (4, 2)])
def test_the_step_decides_and_not_how_far_ahead_the_last_tick_lies(hours: int, runs: int) -> None:
    """11:00 ran; at 14:00 the clock goes back, and 11:00 is an hour ago or an hour ahead: only after a step of more
    than three hours does it run again (PROTOCOL 7)."""
    lab = Lab().start()
    lab.put(schedule="0 11 * * *")
    lab.advance_to(6 * HOUR_S)
    lab.end_all()
    lab.wall_shift_us -= hours * HOUR_S * SECOND_US
    lab.advance(3 * HOUR_S)
    assert [tick for tick, _, _ in lab.records()] == [3 * HOUR_S] * runs


@pytest.mark.parametrize("known", [True, False])
def test_a_job_put_while_a_step_back_is_on_its_way_goes_on_from_the_new_time(known: bool) -> None:
    """The disk is slow in the moment of the step: the call is answered once that is over, with a cursor of the new
    time. It had one of the old time, and was silent for an hour."""
    lab = Lab().start()
    if known:
        lab.put(schedule="0 * * * * *")
    lab.wall_shift_us -= HOUR_S * SECOND_US
    lab.disk_answers = False
    lab.advance(2)
    assert lab.ask(commands.PutJob(Job(name="job", schedule="*/10 * * * * *", command="true"))) is None
    call = lab.last_call
    lab.disk_answers = True
    lab.sync()
    lab.advance(1)
    assert isinstance(lab.answers[call], commands.JobAnswer)
    lab.advance(60)
    assert len([tick for tick, _, _ in lab.records() if tick < 0]) >= 6


def test_a_step_forward_is_a_gap_for_the_catch_up_policy() -> None:
    """An hour ahead: one range, one run that makes up for it, never a storm; the epoch stays."""
    lab = Lab().start()
    lab.put(schedule="0 * * * * *", start_deadline_us=2 * HOUR_S * SECOND_US)
    lab.advance_to(90)
    lab.end_all()
    lab.wall_shift_us += HOUR_S * SECOND_US
    lab.advance(5)
    assert lab.agent.state.epoch == 0
    (one,) = [one for one in lab.executions() if one.count > 1]
    assert (one.scheduled_wall_us, one.until_wall_us, one.count) == (second(120), second(HOUR_S), 59)
    assert [one.trigger for one in lab.executions()] == ["schedule", "schedule", "catch_up"]


def test_a_step_that_was_on_its_way_at_a_crash_is_taken_once() -> None:
    """It is in the log: the next session starts with its offset, and proposes no second one."""
    lab = Lab().start()
    lab.put(schedule="*/10 * * * * *")
    lab.advance_to(31)
    lab.end_all()
    lab.disk_answers = False
    lab.wall_shift_us -= HOUR_S * SECOND_US
    lab.advance(1.1)
    lab.write_untold()
    lab.disk_answers = True
    lab.crash()
    lab.advance(8)
    assert lab.agent.state.epoch == 1
    assert lab.executions()[-1].scheduled_wall_us == second(40 - HOUR_S)
    assert abs(lab.agent.clock.wall_us(lab.now()) - lab.now().wall_us) < SECOND_US


def test_nobody_is_woken_while_a_step_is_on_its_way() -> None:
    """A tick is due by the old time, and nothing is decided before the step is committed: the agent sleeps."""
    lab = Lab().start()
    lab.put(schedule="*/10 * * * * *")
    lab.advance_to(8.5)
    lab.disk_answers = False
    lab.wall_shift_us -= HOUR_S * SECOND_US
    lab.advance(2)
    wakes = lab.wakes
    lab.advance(10)
    assert lab.wakes - wakes <= 11


def test_cluster_time_goes_on_from_the_last_entry_of_the_log() -> None:
    """Also from one that nobody has applied yet, and though the wall clock was put back meanwhile."""
    lab = Lab().start()
    lab.put(schedule="@manually")
    lab.advance_to(100)
    lab.disk_answers = False
    lab.ask(commands.RunJob("job"))
    lab.write_untold()
    lab.disk_answers = True
    lab.wall_shift_us -= 20 * SECOND_US
    lab.crash()
    assert lab.agent.clock.cluster_us(lab.now()) >= second(100)
    assert lab.only().due_cluster_us == second(100)


def test_what_is_armed_stays_armed_over_a_step() -> None:
    """due and start_by are cluster time: an armed run fires when it would have."""
    lab = Lab().start()
    lab.put(schedule="@at 2027-01-15T08:00:10Z")
    lab.advance_to(8.2)
    assert lab.only().status == "armed"
    lab.wall_shift_us -= HOUR_S * SECOND_US
    lab.give(Woke())
    lab.advance(1.7)
    assert not lab.launches
    lab.advance(0.2)
    assert list(lab.launches) == [lab.only().id]
