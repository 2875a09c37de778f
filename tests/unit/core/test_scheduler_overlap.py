"""A tick falls due while the job still runs: allow, forbid, queue, replace."""

from __future__ import annotations

import pytest

from meshcron.model import SECOND_US
from tests.unit.core.disk import second
from tests.unit.core.lab import Lab

OPEN = "overlap: the last run is still open"
WAITS = "overlap: one run waits already"


def busy(policy: str, **job: object) -> Lab:
    """A job each ten seconds whose first run, of second 10, does not end by itself."""
    lab = Lab().start()
    lab.put(**{"schedule": "*/10 * * * * *", "concurrency": policy, **job})  # type: ignore[arg-type] # see the story
    lab.advance_to(15)
    assert lab.records() == [(10, "running", "")]
    return lab


def test_allow_starts_one_beside_the_other() -> None:
    """As many as fall due."""
    lab = busy("allow")
    lab.advance_to(45)
    assert lab.records() == [(tick, "running", "") for tick in (10, 20, 30, 40)]


def test_forbid_skips_each_tick_with_the_reason() -> None:
    """Decided when it is due, not ahead; when the run has ended the next tick runs."""
    lab = busy("forbid")
    lab.advance_to(19.9)
    assert lab.records() == [(10, "running", "")]
    lab.advance_to(35)
    assert lab.records() == [(10, "running", ""), (20, "skipped", OPEN), (30, "skipped", OPEN)]
    lab.end_all()
    lab.advance_to(45)
    assert lab.records()[-1] == (40, "running", "")


@pytest.mark.parametrize("policy", ["forbid", "queue", "replace"])
def test_a_tick_that_must_wait_for_its_time_wakes_nobody(policy: str) -> None:
    """It lies within the horizon and cannot be armed: the agent sleeps until it is due."""
    lab = busy(policy)
    lab.advance_to(16)
    wakes = lab.wakes
    lab.advance_to(19.9)
    assert lab.wakes - wakes <= 5


def test_forbid_runs_a_tick_that_is_free_just_in_time() -> None:
    """The run ends within the horizon of the next tick: it is armed late, and starts on time."""
    lab = busy("forbid")
    lab.advance_to(19.5)
    lab.end_all()
    assert lab.records()[-1] == (20, "armed", "")
    lab.advance_to(20.01)
    assert len(lab.running) == 1


def test_queue_keeps_one_and_skips_the_rest() -> None:
    """The one that waits starts as soon as the run has ended, under its own tick."""
    lab = busy("queue")
    lab.advance_to(35)
    assert lab.records() == [(10, "running", ""), (30, "skipped", WAITS)]
    lab.end_all()
    assert len(lab.running) == 1
    lab.advance_to(36)
    assert sorted(lab.records()) == [(10, "success", ""), (20, "running", ""), (30, "skipped", WAITS)]
    assert lab.executions()[-1].trigger == "schedule"


def test_the_queue_is_free_again_once_the_next_has_started() -> None:
    """One deep, not once for ever."""
    lab = busy("queue")
    lab.advance_to(25)
    lab.end_all()
    lab.advance_to(35)
    lab.end_all()
    lab.advance_to(36)
    assert sorted(lab.records()) == [(10, "success", ""), (20, "success", ""), (30, "running", "")]


def test_replace_kills_the_run_and_takes_its_place() -> None:
    """At the due time; the new one starts when the old one is final."""
    lab = busy("replace")
    (old,) = lab.running
    lab.advance_to(20.1)
    assert lab.signals == [(old, False)]
    assert lab.records() == [(10, "running", "")]
    lab.end(old, None, signal=15)
    lab.advance(0.2)
    assert lab.records() == [(10, "killed", ""), (20, "running", "")]


def test_replace_waits_for_a_run_that_does_not_die() -> None:
    """Ticks that fall due meanwhile are skipped; KILL follows TERM after its grace."""
    lab = busy("replace")
    (old,) = lab.running
    lab.advance_to(31)
    assert lab.signals == [(old, False), (old, True)]
    assert sorted(lab.records()) == [(10, "running", ""), (30, "skipped", WAITS)]
    lab.end(old, None, signal=9)
    lab.advance(0.2)
    assert sorted(lab.records()) == [(10, "killed", ""), (20, "running", ""), (30, "skipped", WAITS)]


@pytest.mark.parametrize("policy", ["forbid", "queue"])
def test_a_tick_between_two_attempts_does_not_run(policy: str) -> None:
    """The run is not over while its retry is owed."""
    lab = busy(policy, retries=1, retry_delay_us=8 * SECOND_US)
    lab.end_all(code=1)
    lab.advance_to(21)
    attempts = [(one.scheduled_wall_us - second(0), one.attempt) for one in lab.executions() if one.agent]
    assert attempts == [(10 * SECOND_US, 1)]
    lab.advance_to(25)
    attempts = [(one.scheduled_wall_us - second(0), one.attempt) for one in lab.executions() if one.agent]
    assert attempts == [(10 * SECOND_US, 1), (10 * SECOND_US, 2)]


def test_replace_ends_a_run_that_waits_for_its_retry() -> None:
    """There is no process to kill: the retry is skipped, and the new run starts at once."""
    lab = busy("replace", retries=1, retry_delay_us=3600 * SECOND_US)
    lab.end_all(code=1)
    lab.advance_to(21)
    assert sorted(lab.records()) == [(10, "failed", "exit code 1"), (10, "skipped", "stopped"), (20, "running", "")]


@pytest.mark.parametrize(("policy", "shown"), [("forbid", "skipped"), ("queue", "success"), ("replace", "success")])
def test_a_reboot_tick_that_meets_an_open_run(policy: str, shown: str) -> None:
    """The run of the start before is still there: skipped, or run after it (P2)."""
    lab = Lab().start()
    lab.put(schedule="@reboot", concurrency=policy)
    lab.crash()
    lab.advance(1)
    lab.crash()
    lab.advance(1)
    for _ in range(2):
        lab.end_all()
        lab.advance(1)
    first, second_run = lab.executions()
    assert first.status == ("killed" if policy == "replace" else "success")
    assert (second_run.status, second_run.trigger) == (shown, "reboot")
    assert first.run_id != second_run.run_id


@pytest.mark.parametrize("policy", ["forbid", "queue", "replace"])
def test_the_policy_survives_a_restart(policy: str) -> None:
    """The process runs on and is adopted; its run is still the only one."""
    lab = busy(policy)
    lab.crash(seconds_down=1)
    lab.advance_to(25)
    assert len(lab.launches) == 1
    lab.end_all()
    lab.advance_to(35)
    started = sorted(one.scheduled_wall_us // SECOND_US % 60 for one in lab.executions() if one.agent)
    assert started == ([10, 30] if policy == "forbid" else [10, 20])
    assert len(lab.running) == 1


@pytest.mark.parametrize("policy", ["forbid", "queue", "replace"])
def test_a_lost_run_does_not_wedge_its_job(policy: str) -> None:
    """Nobody knows what became of it; the next tick runs (API, concurrency: never wedges)."""
    lab = busy(policy)
    lab.running.clear()
    lab.crash(seconds_down=1)
    lab.advance_to(21)
    assert lab.records() == [(10, "lost", "no trace of it"), (20, "running", "")]


@pytest.mark.parametrize(
    ("policy", "first", "then"),
    [
        ("forbid", ["running", "skipped", "skipped"], ["skipped", "skipped", "success"]),
        ("queue", ["running", "skipped"], ["running", "skipped", "success"]),
        ("replace", ["running", "skipped"], ["killed", "running", "skipped"]),
        ("allow", ["running", "running", "running"], ["success", "success", "success"]),
    ],
)
def test_a_child_that_still_runs_when_its_parent_ends_again(policy: str, first: list[str], then: list[str]) -> None:
    """As a tick of its own would: one waits at most, and `replace` ends what runs (API.md, concurrency)."""
    lab = Lab().start()
    lab.put("parent", "@yearly")
    lab.put("child", "@manually", parent_jobs=("parent",), concurrency=policy)
    for _ in range(3):
        lab.run("parent")
        lab.advance(0.1)
        (parent,) = [one for one in lab.executions("parent") if one.id in lab.running]
        lab.end(parent.id)
        lab.advance(0.2)
    assert sorted(one.status.value for one in lab.executions("child")) == first
    (oldest,) = {one.id for one in lab.executions("child")[:1]}
    assert lab.signals == ([(oldest, False)] if policy == "replace" else [])
    lab.end_all()
    lab.advance(0.2)
    assert sorted(one.status.value for one in lab.executions("child")) == then
    assert {one.trigger for one in lab.executions("child")} == {"parent"}
    overlaps = {one.reason for one in lab.executions("child") if one.status.value == "skipped"}
    assert len(overlaps) == (0 if policy == "allow" else 1)
