"""The checker finds each kind of fault in stories made by hand, and none in a clean one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.checker import Down, Job, Record, Start, check, read_records, read_starts, settled

SECOND = 1_000_000
TICKS = range(100 * SECOND, 103 * SECOND, SECOND)
UNTIL = TICKS.stop
BOTH = Job("j", frozenset({"a", "b"}))
ONE = Job("j", 1)


def starts(*agents: str) -> list[Start]:
    """Each tick on each agent, 5 ms late."""
    return [Start("j", tick, agent, 1, tick + 5000) for tick in TICKS for agent in agents]


def records(*agents: str, status: str = "success", reason: str = "") -> list[Record]:
    return [Record("j", tick, agent, 1, status, reason) for tick in TICKS for agent in agents]


def line(job: Job, begun: list[Start], told: list[Record], *down: str) -> str:
    return check(job, begun, told, [Down(agent) for agent in down], UNTIL).line


def test_a_clean_story_is_clean() -> None:
    """Every target of every tick has its start and its record; another job's are not looked at."""
    other = Start("other", TICKS[0], "a", 1, 0), Record("other", TICKS[0], "a", 1, "lost", "")
    found = check(BOTH, [*starts("a", "b"), other[0]], [*records("a", "b"), other[1]], (), UNTIL)
    assert (found.line, found.clean, found.ticks) == ("missing 0 doubled 0 late>200ms 0", True, 3)
    assert line(ONE, starts("b"), records("b")) == "missing 0 doubled 0 late>200ms 0"


def test_a_tick_without_a_record_is_missing() -> None:
    """For one of the targets, for the one of a single-target job, and for a job that never ran at all."""
    assert line(BOTH, starts("a", "b")[:-1], records("a", "b")[:-1]).startswith("missing 1 doubled 0")
    assert line(ONE, starts("a")[::2], records("a")[::2]).startswith("missing 1 doubled 0")
    assert line(ONE, [], []).startswith("missing 1 doubled 0")


def test_a_tick_that_ran_without_a_record_is_a_fault() -> None:
    """Even if the job did run."""
    assert line(ONE, starts("a"), records("a")[1:]) == "missing 1 doubled 1 late>200ms 0"


@pytest.mark.parametrize("status", ["success", "failed", "running", "lost", "armed", "skipped"])
def test_a_record_without_a_start_is_missing(status: str) -> None:
    """Whatever it says, on an agent that was never down."""
    told = [*records("a")[:2], Record("j", TICKS[2], "a", 1, status, "agent down")]
    assert line(ONE, starts("a")[:2], told).startswith("missing 1 doubled 0")


@pytest.mark.parametrize(
    ("status", "reason", "missing"),
    [
        ("lost", "", 0),
        ("armed", "", 0),
        ("skipped", "agent down", 0),
        ("skipped", "late", 1),
        ("success", "", 1),
        ("failed", "", 1),
    ],
)
def test_what_a_dead_agent_took_with_it_is_accounted_for(status: str, reason: str, missing: int) -> None:
    """Lost, open or skipped for that very reason; a success that nobody started is none."""
    told = [*records("a", "b")[:-1], Record("j", TICKS[2], "b", 1, status, reason)]
    found = check(BOTH, starts("a", "b")[:-1], told, [Down("b", TICKS[2])], UNTIL)
    assert (len(found.missing), len(found.excused), found.doubled) == (missing, 1 - missing, [])


def test_a_tick_that_nobody_was_there_for_has_one_record_for_all() -> None:
    """While all targets were away; for one that was there it is missing."""
    told = [*records("a", "b")[:-2], Record("j", TICKS[2], "", 1, "skipped", "missed: nobody could run it in time")]
    for down, missing in ((["a", "b"], 0), (["b"], 1), ([], 2)):
        found = check(BOTH, starts("a", "b")[:-2], told, [Down(one) for one in down], UNTIL)
        assert (len(found.missing), len(found.excused), found.doubled) == (missing, 2 - missing, [])


@pytest.mark.parametrize("status", ["armed", "waiting", "running", "lost", "killed", "failed", "timeout"])
def test_a_result_that_never_came_is_missing(status: str) -> None:
    """It did start, on an agent that was there all the time, and success is what such a job ends with."""
    told = [*records("a")[:2], Record("j", TICKS[2], "a", 1, status, "")]
    found = check(ONE, starts("a"), told, [Down("a", TICKS[0], TICKS[1]), Down("b")], UNTIL)
    assert found.line == "missing 1 doubled 0 late>200ms 0"
    assert found.missing[0].endswith(f"on a: started, recorded as {status}")


@pytest.mark.parametrize(
    ("status", "down", "missing"),
    [
        ("lost", Down("a", TICKS[2], TICKS[2]), 0),
        ("lost", Down("a"), 0),
        ("running", Down("a"), 0),
        ("running", Down("a", TICKS[2], TICKS[2]), 1),
        ("armed", Down("a", TICKS[2], TICKS[2]), 1),
        ("failed", Down("a"), 1),
        ("killed", Down("a"), 1),
    ],
)
def test_what_started_on_an_agent_that_went_away(status: str, down: Down, missing: int) -> None:
    """Nobody may ever hear how it ended, and the record says so; one that is back does not leave it open. A job that
    goes on alone does not fail by that."""
    told = [*records("a")[:2], Record("j", TICKS[2], "a", 1, status, "")]
    found = check(ONE, starts("a"), told, [down], UNTIL)
    assert (len(found.missing), len(found.excused), found.doubled) == (missing, 1 - missing, [])


def test_a_second_start_is_doubled() -> None:
    """Of one execution; of one tick on two agents where one was wanted, with or without a record; on a dead agent."""
    assert line(BOTH, [*starts("a", "b"), starts("a")[1]], records("a", "b")).startswith("missing 0 doubled 1")
    twice = Start("j", TICKS[1], "b", 1, TICKS[1])
    assert line(ONE, [*starts("a"), twice], records("a")).startswith("missing 0 doubled 1")
    told = [*records("a"), Record("j", TICKS[1], "b", 1, "success", "")]
    assert line(ONE, [*starts("a"), twice], told).startswith("missing 0 doubled 1")
    assert line(BOTH, [*starts("a", "b"), twice], records("a", "b"), "b").startswith("missing 0 doubled 1")


def test_a_start_recorded_as_skipped_is_doubled() -> None:
    """Whoever reads the record would run it again."""
    told = records("a", status="skipped", reason="agent down")
    assert line(ONE, starts("a"), told, "a").startswith("missing 0 doubled 3")


def test_two_records_of_one_target_are_doubled() -> None:
    """And so is one of an agent that is no target."""
    assert line(BOTH, starts("a", "b"), [*records("a", "b"), records("a")[0]]).startswith("missing 1 doubled 1")
    assert line(BOTH, starts("a", "b", "c"), records("a", "b", "c")).startswith("missing 0 doubled 3")


def test_a_second_attempt_is_a_start_of_its_own() -> None:
    """One start for each attempt; only the first has to be on time."""
    again = Start("j", TICKS[0], "a", 2, TICKS[0] + 5 * SECOND)
    told = [*records("a"), Record("j", TICKS[0], "a", 2, "success", "")]
    assert line(ONE, [*starts("a"), again], told) == "missing 0 doubled 0 late>200ms 0"
    assert line(ONE, starts("a"), told).startswith("missing 1 doubled 0")


def test_a_late_start_is_counted() -> None:
    """Late by more than 200 ms; exactly that is not."""
    late = [Start("j", TICKS[2], "a", 1, TICKS[2] + 200_001), Start("j", TICKS[1], "a", 1, TICKS[1] + 200_000)]
    assert line(ONE, [starts("a")[0], *late], records("a")) == "missing 0 doubled 0 late>200ms 1"


def execution(tick: str, status: str, count: int = 1) -> dict[str, Any]:
    return {
        "job_name": "j",
        "scheduled_at": tick,
        "node_name": "a",
        "attempt": 1,
        "status": status,
        "reason": "",
        "count": count,
    }


def test_ranges_are_as_many_records() -> None:
    """Missed ticks are recorded as a range with its count."""
    told = read_records([execution("1970-01-01T00:01:40Z", "skipped", 3)])
    assert [record.tick_us for record in told] == list(TICKS)


def test_a_line_under_way_is_left_out(tmp_path: Path) -> None:
    """The last line may not be whole yet."""
    (tmp_path / "starts").write_text("j 1970-01-01T00:01:40Z a 1 100005000000\nj 1970-01-01T00:0")
    assert read_starts(tmp_path / "starts") == starts("a")[:1]


def test_it_waits_for_records_to_settle() -> None:
    """A run that is open at the first look may have ended at the second, also where its agent was away and is back. On
    one that stays away it stays open, and so may a young one."""
    looks: list[str] = []

    def executions(name: str) -> list[dict[str, Any]]:
        looks.append(name)
        return [execution("1970-01-01T00:01:40Z", "armed" if len(looks) == 1 else "success")]

    for back in ([], [Down("a", TICKS[1], TICKS[2])], [Down("a", TICKS[0], TICKS[0])], [Down("b")]):
        looks.clear()
        assert settled([ONE], executions, back, UNTIL) == records("a")[:1]
        assert len(looks) == 2
    for down, until in [([Down("a")], UNTIL), ([], TICKS[0])]:
        looks.clear()
        assert [one.status for one in settled([ONE], executions, down, until)] == ["armed"]


def test_what_does_not_settle_is_no_clean_story() -> None:
    """It waits no longer than it was told to; what is open then is missing."""
    told = settled([ONE], lambda _: [execution("1970-01-01T00:01:40Z", "running", 3)], (), UNTIL, seconds=0.0)
    assert line(ONE, starts("a"), told) == "missing 3 doubled 0 late>200ms 0"


def test_the_last_look_begins_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that takes longer than that is followed by another one."""
    now = [0.0]
    statuses = iter(["running", "success"])

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def executions(_: str) -> list[dict[str, Any]]:
        now[0] += 100.0
        return [execution("1970-01-01T00:01:40Z", next(statuses), 3)]

    monkeypatch.setattr("tests.checker.time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    assert settled([ONE], executions, (), UNTIL, seconds=20.0) == records("a")


def test_before_and_after_it_was_down_nothing_is_accounted_for() -> None:
    """A kill explains the ticks around it."""
    down = [Down("a", TICKS[1], TICKS[1])]
    assert check(ONE, [], records("a", status="lost"), down, UNTIL).line.startswith("missing 2 doubled 0")


def test_a_late_start_of_one_that_was_stopped_is_its_own() -> None:
    """It fires what was armed once it goes on, if that is still in time."""
    late = [Start("j", tick, "a", 1, tick + 5 * SECOND) for tick in TICKS]
    assert line(ONE, late, records("a"), "a") == "missing 0 doubled 0 late>200ms 0"
