"""What once went wrong in the core and the driver, one story each."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from meshcron import commands, entries
from meshcron.errors import NoLeader
from meshcron.messages import Run, StartedItem, StartedReport
from meshcron.model import SECOND_US, History, Job
from meshcron.rows import ExecutionRow
from tests.unit.core.book import Book
from tests.unit.core.disk import second
from tests.unit.core.hand import Hand, order
from tests.unit.core.lab import Lab
from tests.unit.runtime.scripted import World, story


def test_many_owed_runs_of_one_moment_are_cut_into_entries() -> None:
    lab = Lab().start()
    lab.put(schedule="@manually", retries=1, retry_delay_us=3600 * SECOND_US)
    for _ in range(2000):
        lab.run()
        lab.end_all(code=1)
    lab.advance(3700)  # TooLarge escapes from Agent.handle; after a restart again, for ever
    assert len(lab.launches) > 2000


@pytest.mark.parametrize("by", ["a tick", "a person"])
def test_a_replace_of_many_runs_is_cut_into_entries(by: str) -> None:
    """Some hours of `allow` with a command that hangs, and retries that wait; then an edit to `replace`."""
    lab = Lab().start()
    kept: dict[str, Any] = {"retries": 1, "retry_delay_us": 3600 * SECOND_US, "history": History(runs=20_000)}
    lab.put(schedule="@manually", **kept)
    lab.run()
    lab.end_all(code=1)
    lab.run()
    (one,), (retry,) = lab.agent.state.open.values(), lab.agent.state.owed.values()
    more = [f"{n:032}" for n in range(8000)]
    lab.disk.write([ExecutionRow(replace(one, id=id_, run_id=id_)) for id_ in more])
    lab.disk.write([replace(retry, key=f"retry|r{id_}", run_id=f"r{id_}") for id_ in more])
    lab.loses = lambda message: isinstance(message, Run)
    lab.crash()
    lab.put(schedule="* * * * * *" if by == "a tick" else "@manually", concurrency="replace", **kept)
    if by == "a person":
        lab.run()
    lab.advance(2)  # TooLarge escapes from Agent.handle; after a restart again, for ever
    assert [open_.stop for open_ in lab.agent.state.open.values()] == ["kill"]  # the one that runs: it is not dead yet
    assert [row.kind for row in lab.agent.state.owed.values()] == ["replace"]
    lab.loses = lambda message: False
    lab.end(one.id, None, signal=15)
    lab.advance(1)
    ended = Counter((status, reason) for _, status, reason in lab.records())
    assert (ended["skipped", "stopped"], ended["killed", ""]) == (16_001, 1)
    assert lab.agent.state.open.keys() == lab.running  # the one that has waited


def test_many_reboot_jobs_are_cut_into_entries() -> None:
    lab = Lab().start()
    for n in range(250):
        lab.put(f"job{n}", schedule="@reboot")
    lab.crash()
    lab.advance(1)
    assert len(lab.agent.state.open) == 250
    logged = [entries.decode(row.body) for row in lab.disk.log.values()]
    assert max(len(entry.items) for entry in logged if isinstance(entry, entries.Intents)) <= 100


def test_many_starts_of_one_moment_are_cut_into_entries() -> None:
    lab = Lab().start()
    lab.hear(StartedReport(tuple(StartedItem(f"{n:032}", second(1)) for n in range(5000))))
    lab.advance(1)


def test_a_backoff_that_overflows() -> None:
    book = Book()
    book.put(retries=1000, retry_backoff=100.0)  # both allowed by api/forms.py; delay 0
    execution = book.launch(1).opened[0]
    for _ in range(160):
        book.end(execution, success=False)
        (key,) = book.state.owed
        (execution,) = book.launch_owed(key).opened


def test_an_edit_during_a_long_catch_up_loses_no_tick() -> None:
    job = Job(name="job", schedule="* * * * * *", command="true", catch_up="all", history=History(runs=10_000))
    lab = Lab(slots=1).start()
    lab.ask(commands.PutJob(job))
    lab.advance(0.5)
    lab.disk_answers = False
    lab.crash(seconds_down=100)
    while not lab.agent.leading:
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


def test_an_edit_while_paused_loses_no_tick() -> None:
    lab = Lab().start()
    lab.put(schedule="*/10 * * * * *")
    lab.ask(commands.SetPaused(True))
    lab.advance_to(35)
    lab.put(schedule="*/10 * * * * *", command="new")
    lab.ask(commands.SetPaused(False))
    lab.advance_to(45)
    shown = [
        (tick, status, reason, one.count)
        for one, (tick, status, reason) in zip(lab.executions(), lab.records(), strict=True)
    ]
    assert shown[0] == (10, "skipped", "paused", 3)


@pytest.mark.parametrize("policy", ["forbid", "queue", "replace"])
def test_a_reboot_tick_that_meets_an_open_run_leaves_a_record(policy: str) -> None:
    lab = Lab().start()
    lab.put(schedule="@reboot", concurrency=policy)
    lab.crash()
    lab.advance(1)
    lab.crash()
    lab.advance(1)
    assert len(lab.executions()) + len(lab.agent.state.owed) == 2


def test_a_reboot_job_with_a_zone_runs() -> None:
    lab = Lab().start()
    lab.put(schedule="TZ=Europe/Berlin @reboot")
    lab.put("shouting", schedule="@REBOOT")
    lab.crash()
    lab.advance(1)
    assert len(lab.launches) == 2


def test_a_paused_agent_with_a_reboot_job_sleeps() -> None:
    lab = Lab().start()
    lab.put(schedule="@reboot")
    lab.ask(commands.SetPaused(True))
    lab.crash()
    wakes = lab.wakes
    lab.advance(0.1)
    assert lab.wakes - wakes <= 2


def test_an_edit_at_the_instant_of_a_tick_is_answered_whatever_the_disk_takes() -> None:
    lab = Lab().start()
    lab.put(schedule="*/10 * * * * *", concurrency="forbid")
    lab.advance_to(19.9999)
    lab.disk_answers = False
    lab.advance_to(20.0001)  # the skip of second 20 is on its way to the disk
    wakes = lab.wakes
    lab.ask(commands.PutJob(Job(name="job", schedule="@daily", command="new")))
    lab.advance(0.02)
    assert lab.wakes - wakes <= 2
    lab.disk_answers = True
    lab.sync()
    lab.advance(0.1)
    assert isinstance(lab.answers[lab.last_call], commands.JobAnswer)


@pytest.mark.parametrize("between", ["rerun", "clear"])
def test_a_late_result_takes_back_only_what_was_counted(between: str) -> None:
    book = Book()
    book.put(on_lost="rerun" if between == "rerun" else "lost")
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    if between == "clear":
        book.apply(entries.Prune(book.uid(), 0, clear=True))
    book.end(execution, success=True)
    assert book.state.jobs[book.uid()].error_count == 0  # says -1


def test_replace_ends_a_run_that_waits_for_its_retry() -> None:
    lab = Lab().start()
    lab.put(schedule="*/10 * * * * *", concurrency="replace", retries=1, retry_delay_us=3600 * SECOND_US)
    lab.advance_to(11)
    lab.end_all(code=1)
    lab.advance_to(21)
    assert (20, "running", "") in lab.records()


def test_a_failed_run_whose_retry_does_not_come_is_counted() -> None:
    lab = Lab().start()
    lab.put(schedule="@manually", retries=1, retry_delay_us=SECOND_US)
    run_id = lab.run()
    lab.end_all(code=1)
    lab.ask(commands.StopRun(run_id))
    assert (lab.view().error_count, lab.view().last_status) == (1, "failed")


def test_a_kill_before_the_spawn_is_not_forgotten() -> None:
    hand = Hand().start()
    hand.run(order())  # `starting`; the process is on its way
    hand.stop()
    hand.advance(11)  # TERM went to a process that was not there yet; KILL finds `starting` and gives up
    hand.started()
    hand.advance(60)
    assert hand.signals[-1:] == [("x", True)]


def test_history_keeps_nothing_older_than_its_days() -> None:
    lab = Lab().start()
    lab.put(schedule="@manually", history=History(runs=100, days=2))
    for _ in range(3):
        lab.run()
        lab.end_all()
    lab.crash(seconds_down=5 * 86_400)
    lab.advance(6.1 * 3600)
    assert not lab.executions()


def test_specs_nobody_needs_are_forgotten() -> None:
    lab = Lab().start()
    for n in range(20):
        lab.put(schedule="@manually", command=str(n))
        lab.run()
        lab.end_all()
    lab.put(schedule="@manually")
    lab.ask(commands.DeleteJob("job"))
    lab.advance(4000)
    assert len(lab.disk.tables["specs"]) < 20


def test_manual_runs_leave_nothing_behind_in_the_scheduler() -> None:
    lab = Lab().start()
    lab.put(schedule="@yearly")
    for _ in range(200):
        lab.run()
        lab.end_all()
    lab.advance(400)
    assert lab.agent.leadership.ours is not None
    assert len(lab.agent.leadership.ours._scheduler._heap) <= 10


def test_a_call_after_close_ends() -> None:
    async def tell(world: World) -> None:
        world.driver.start()
        world.driver.close()
        assert isinstance(await asyncio.wait_for(world.driver.propose(commands.RunJob("job")), 1), NoLeader)

    story(tell)


def test_check_allows_what_was_armed_before_an_edit_to_forbid() -> None:
    lab = Lab().start()
    lab.put()
    lab.put(concurrency="forbid")  # Agent.check() raises: ticks 1-3 were armed under allow


def test_disabling_names_what_is_still_open() -> None:
    lab = Lab().start()
    lab.put()
    lab.advance_to(1.5)
    assert len(lab.put(disabled=True).open_executions) == 3


def test_a_pause_does_not_take_the_retries_of_what_runs() -> None:
    lab = Lab().start()
    lab.put(schedule="@at 2027-01-15T08:00:02Z", retries=1)
    lab.advance_to(2.05)  # it runs; Started is not logged yet
    lab.ask(commands.SetPaused(True))
    lab.end_all(code=1)
    lab.ask(commands.SetPaused(False))
    lab.advance(5)
    assert [one.attempt for one in lab.executions()] == [1, 2]


def test_a_disk_that_takes_a_second_still_elects_a_leader() -> None:
    lab = Lab()
    lab.disk_answers = False
    lab.start()
    for _ in range(20):
        queued = len(lab._unsynced)
        lab.advance(1.2)
        lab.sync(queued)  # what was queued when the fsync began is durable now
    assert lab.agent.leading
