"""Ticks that nobody could run in time: catch_up none, latest and all; start_deadline; ranges with their counts."""

from __future__ import annotations

from typing import Any

import pytest

from meshcron import commands
from meshcron.core.agent import Agent
from meshcron.core.effects import Effect
from meshcron.core.events import Event
from meshcron.core.schedule import CronSchedule
from meshcron.core.scheduler import SLICE
from meshcron.model import SECOND_US, History, Instant, Job
from tests.unit.core.disk import second
from tests.unit.core.lab import Lab

MINUTE_S = 60
MISSED = "missed: nobody could run it in time"
MADE_UP = "missed: a later tick makes up for it"


def after_down_time(seconds_down: float, **job: object) -> Lab:
    """A job each minute; the agent is away from second 90.7 on, and leads again for 2 s."""
    lab = Lab().start()
    lab.put(**{"schedule": "0 * * * * *", **job})  # type: ignore[arg-type] # as the story says
    lab.advance_to(90.7)
    lab.end_all()
    lab.crash(seconds_down)
    lab.advance(2)
    return lab


def later_records(lab: Lab) -> list[tuple[int, str, str, int]]:
    """What came after the tick of second 60: (first tick, status, reason, count)."""
    return [
        (tick, status, reason, one.count)
        for one, (tick, status, reason) in zip(lab.executions(), lab.records(), strict=True)
        if tick > MINUTE_S
    ]


# ---- what is recent is merely late


@pytest.mark.parametrize("catch_up", ["skip", "latest", "all"])
def test_a_tick_decided_within_ten_seconds_runs_merely_late(catch_up: str) -> None:
    """Whatever the policy: it was not missed (PROTOCOL 7)."""
    lab = after_down_time(38, catch_up=catch_up)
    assert later_records(lab) == [(120, "running", "", 1)]
    assert lab.executions()[-1].trigger == "schedule"


def test_a_tick_missed_by_more_is_a_matter_of_the_policy() -> None:
    """11 s late: skipped under `skip`."""
    lab = after_down_time(41, catch_up="skip")
    assert later_records(lab) == [(120, "skipped", MISSED, 1)]


# ---- the policies


def test_catch_up_skip_records_one_range() -> None:
    """None of them runs; the count is there (P2)."""
    lab = after_down_time(10 * MINUTE_S, catch_up="skip")
    assert later_records(lab) == [(120, "skipped", MISSED, 10)]
    assert lab.executions()[-1].until_wall_us == second(11 * MINUTE_S)


def test_catch_up_latest_runs_the_last_one() -> None:
    """The ones before it are one range; the made-up tick keeps its own time."""
    lab = after_down_time(10 * MINUTE_S + 15, catch_up="latest")
    assert later_records(lab) == [(120, "skipped", MADE_UP, 9), (11 * MINUTE_S, "running", "", 1)]
    assert lab.executions()[-1].trigger == "catch_up"


def test_catch_up_latest_of_one_tick_is_that_tick() -> None:
    """Nothing is left over for a range."""
    lab = after_down_time(50, catch_up="latest")
    assert later_records(lab) == [(120, "running", "", 1)]
    assert lab.executions()[-1].trigger == "catch_up"


def test_catch_up_latest_makes_up_for_nothing_when_one_is_merely_late() -> None:
    """The recent tick is the latest, and runs; the older ones are a range."""
    lab = after_down_time(10 * MINUTE_S - 25, catch_up="latest")
    assert later_records(lab) == [(120, "skipped", MISSED, 9), (11 * MINUTE_S, "running", "", 1)]
    assert lab.executions()[-1].trigger == "schedule"


def test_catch_up_all_runs_each_of_them() -> None:
    """Oldest first."""
    lab = after_down_time(5 * MINUTE_S + 15, catch_up="all")
    assert later_records(lab) == [(tick * MINUTE_S, "running", "", 1) for tick in range(2, 7)]
    assert [one.trigger for one in lab.executions()[1:]] == ["catch_up"] * 5


def test_catch_up_all_makes_up_a_hundred_at_most() -> None:
    """The oldest become a range (API, Jobs)."""
    lab = after_down_time(150 * MINUTE_S + 15, catch_up="all", start_deadline_us=24 * 3600 * SECOND_US)
    records = later_records(lab)
    assert records[0] == (120, "skipped", MADE_UP, 50)
    assert [tick for tick, _, _, _ in records[1:]] == [n * MINUTE_S for n in range(52, 152)]
    assert {one.trigger for one in lab.executions()[2:]} == {"catch_up"}


def test_a_job_that_forbids_overlap_makes_up_one_of_all() -> None:
    """The others fall due while that one is open: each has its record."""
    lab = after_down_time(3 * MINUTE_S + 15, catch_up="all", concurrency="forbid")
    assert [(tick, status) for tick, status, _, _ in later_records(lab)] == [
        (120, "running"),
        (180, "skipped"),
        (240, "skipped"),
    ]


@pytest.mark.parametrize("steps_first", [0, 1, 2, 3])
def test_an_edit_during_a_long_catch_up_loses_no_tick(steps_first: int) -> None:
    """It comes while a hundred missed ticks are being decided one by one, on a slow disk (P2)."""
    job = Job(name="job", schedule="* * * * * *", command="true", catch_up="all", history=History(runs=10_000))
    lab = Lab().start()
    lab.ask(commands.PutJob(job))
    lab.advance(0.5)
    lab.disk_answers = False
    lab.crash(seconds_down=100)
    while not lab.agent.leading:
        lab.sync(1)
    for _ in range(steps_first):
        lab.sync(1)
    lab.ask(commands.PutJob(job))
    for _ in range(300):
        lab.sync(1)
    lab.disk_answers = True
    lab.sync()
    lab.advance(5)
    recorded: set[int] = set()
    for one in lab.executions():
        last = max(one.until_wall_us, one.scheduled_wall_us)
        recorded |= set(range(one.scheduled_wall_us // SECOND_US, last // SECOND_US + 1))
    assert set(range(second(1) // SECOND_US, second(100) // SECOND_US)) <= recorded


# ---- start_deadline


@pytest.mark.parametrize(
    ("deadline_s", "records"),
    [
        (200, [(120, "skipped", MADE_UP, 9), (660, "running", "", 1)]),
        (20, [(120, "skipped", MISSED, 10)]),
        (5, [(120, "skipped", MISSED, 10)]),
    ],
)
def test_past_its_start_deadline_nothing_is_made_up(deadline_s: int, records: list[tuple[int, str, str, int]]) -> None:
    """The agent is back 45 s after the last tick."""
    lab = after_down_time(10 * MINUTE_S + 15, start_deadline_us=deadline_s * SECOND_US)
    assert later_records(lab) == records


def test_all_makes_up_for_those_within_the_deadline_only() -> None:
    """Older ones are a range."""
    lab = after_down_time(5 * MINUTE_S + 15, catch_up="all", start_deadline_us=150 * SECOND_US)
    assert later_records(lab) == [
        (120, "skipped", MADE_UP, 3),
        (300, "running", "", 1),
        (360, "running", "", 1),
    ]


def test_a_short_deadline_makes_a_late_tick_a_missed_one() -> None:
    """8 s late, 5 s allowed: neither late nor made up."""
    lab = after_down_time(38, start_deadline_us=5 * SECOND_US)
    assert later_records(lab) == [(120, "skipped", MISSED, 1)]


def test_an_instant_missed_by_less_than_the_deadline_runs() -> None:
    """`@at`, the agent down at the time (API, Schedules)."""
    lab = after_down_time(30 * MINUTE_S, schedule="@at 2027-01-15T08:05:00Z")
    assert later_records(lab) == [(300, "running", "", 1)]
    late = after_down_time(90 * MINUTE_S, schedule="@at 2027-01-15T08:05:00Z")
    assert later_records(late) == [(300, "skipped", MISSED, 1)]


# ---- ranges


def test_a_long_gap_is_one_record_however_many_ticks_it_has() -> None:
    """A month of seconds is not walked: counting stops, the range is exact (PROTOCOL 6)."""
    lab = after_down_time(30 * 24 * 3600, schedule="* * * * * *", catch_up="skip")
    (missed,) = [one for one in lab.executions() if one.reason == MISSED]
    assert missed.count == 0
    assert missed.scheduled_wall_us == second(94)
    assert second(90 + 30 * 24 * 3600 - 12) <= missed.until_wall_us <= second(90 + 30 * 24 * 3600)


def test_missed_ticks_are_counted_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty jobs of each minute, five days away: no turn looks for more ticks than a slice has (PROTOCOL 8). It took
    seconds, and an agent with voters beside it lost its lease again and again."""
    lab = Lab().start()
    for n in range(20):
        lab.put(f"job{n:02}", "* * * * *", catch_up=("latest", "skip")[n % 2])
    searches = [0]
    for name in ("next_after", "latest_before"):
        plain = getattr(CronSchedule, name)

        def counted(self: CronSchedule, *instants: int, plain: Any = plain) -> int | None:
            searches[-1] += 1
            return plain(self, *instants)  # type: ignore[no-any-return]

        monkeypatch.setattr(CronSchedule, name, counted)
    handle = Agent.handle

    def turn(self: Agent, event: Event, now: Instant) -> list[Effect]:
        searches.append(0)
        return handle(self, event, now)

    monkeypatch.setattr(Agent, "handle", turn)
    lab.crash(seconds_down=5 * 86_400)
    lab.advance(5)
    assert max(searches) <= 3 * SLICE, "a slice, and the last job of it with its count and its next tick"
    assert all(lab.records(f"job{n:02}") for n in range(20))


def test_expired_ticks_are_not_missed() -> None:
    """The range ends with the job's expires_at; nothing comes after it."""
    lab = after_down_time(10 * MINUTE_S, catch_up="skip", expires_at_wall_us=second(5 * MINUTE_S))
    assert later_records(lab) == [(120, "skipped", MISSED, 4)]
    assert lab.view().next_wall_us is None


def test_what_was_armed_before_the_crash_is_not_a_missed_tick() -> None:
    """Armed at second 118, back at 125: it starts late, in its own record (start_by holds)."""
    lab = Lab().start()
    lab.put(schedule="0 * * * * *", catch_up="skip")
    lab.advance_to(118)
    lab.end_all()
    lab.crash(seconds_down=7)
    lab.advance(1)
    assert later_records(lab) == [(120, "running", "", 1)]


def test_what_was_armed_long_before_is_late() -> None:
    """Back after its start_by: it never started, and says so."""
    lab = Lab().start()
    lab.put(schedule="0 * * * * *", catch_up="skip")
    lab.advance_to(118)
    lab.end_all()
    lab.crash(seconds_down=150)
    lab.advance(1)
    assert later_records(lab) == [(120, "skipped", "late: the agent was away", 1), (180, "skipped", MISSED, 2)]
