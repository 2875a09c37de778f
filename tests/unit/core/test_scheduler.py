"""Ticks of a healthy agent: armed ahead, each launched once at its time; pauses, limits in time, @every, @reboot."""

from __future__ import annotations

from collections import Counter

import pytest

from meshcron import commands, entries
from meshcron.entries import ENTRY_BYTES_MAX
from meshcron.errors import InvalidRequest
from meshcron.messages import Run
from meshcron.model import SECOND_US, Job
from meshcron.rows import LogRow
from tests.unit.core.disk import START_WALL_US, second
from tests.unit.core.lab import Lab

HOUR_S = 3600


@pytest.fixture
def lab() -> Lab:
    """A leading agent without jobs, at second 0."""
    return Lab().start()


def ticks(lab: Lab, name: str = "job") -> list[int]:
    return [tick for tick, _, _ in lab.records(name)]


# ---- arming ahead


def test_a_tick_is_armed_ahead_and_fires_at_its_time(lab: Lab) -> None:
    """Committed and delivered within the horizon of up to 3 s; the process starts at the tick, not before."""
    lab.put(schedule="@at 2027-01-15T08:00:10Z")
    lab.advance_to(6.9)
    assert lab.records() == []
    lab.advance_to(8.1)
    assert lab.records() == [(10, "armed", "")]
    lab.advance_to(9.9999)
    assert not lab.launches
    lab.advance_to(10.001)
    assert len(lab.launches) == 1


def test_each_tick_is_launched_once(lab: Lab) -> None:
    """Over a minute, on the second."""
    lab.put()
    for n in range(1, 61):
        lab.advance_to(n + 0.5)
        lab.end_all()
        assert len(lab.launches) == n
    assert [(tick, status) for tick, status, _ in lab.records() if status != "armed"] == [
        (tick, "success") for tick in range(1, 61)
    ]


def test_the_environment_names_the_run(lab: Lab) -> None:
    """What API.md promises a job's process."""
    lab.put("backup", schedule="@at 2027-01-15T08:00:10Z", env={"A": "1"})
    lab.advance_to(11)
    ((execution_id, launch),) = lab.launches.items()
    assert launch.env == {
        "A": "1",
        "MESHCRON_JOB": "backup",
        "MESHCRON_RUN": lab.only("backup").run_id,
        "MESHCRON_EXECUTION": execution_id,
        "MESHCRON_SCHEDULED_AT": "2027-01-15T08:00:10Z",
        "MESHCRON_ATTEMPT": "1",
        "MESHCRON_AGENT": "one",
    }


def test_an_idle_agent_sleeps(lab: Lab) -> None:
    """Between ticks it wakes for its clock, once a second, and no more."""
    lab.put(schedule="@daily")
    lab.advance(60)
    assert lab.wakes <= 61


def test_many_jobs_of_one_second_are_decided_in_slices(lab: Lab) -> None:
    """No turn decides more than a slice (PROTOCOL 8), no entry outgrows the log, and none is left out."""
    for n in range(350):
        lab.put(f"job{n:03}", schedule="@at 2027-01-15T08:00:10Z")
    lab.loses = lambda message: isinstance(message, Run)
    written = len(lab.disk.log)
    lab.advance_to(7.9)
    armed = Counter(one.index for one in lab.disk.executions())
    assert armed.total() == 350
    assert max(armed.values()) <= 200
    assert len(lab.disk.log) - written == len(armed)


def test_owed_runs_of_one_moment_are_cut_into_entries(lab: Lab) -> None:
    """The end of a pause brings many retries at once: none is left out, no entry is too large (PROTOCOL 5, Sizes)."""
    lab.put(schedule="@manually", retries=1)
    lab.ask(commands.SetPaused(True))
    for _ in range(40):
        lab.run(env={"A": "x" * 16_000})
        lab.end_all(code=1)
    lab.ask(commands.SetPaused(False))
    lab.advance(1)
    assert len(lab.launches) == 80
    assert max(len(row.body) for row in lab.disk.log.values()) <= ENTRY_BYTES_MAX


def test_no_matching_agent(lab: Lab) -> None:
    """Each tick leaves a record with the reason (P2)."""
    lab.put(tags={"role": "db"})
    lab.advance_to(0.6)
    assert lab.records() == [(tick, "skipped", "no agent matches its tags") for tick in (1, 2, 3)]


# ---- what is owed


def test_a_retry_starts_after_its_delay(lab: Lab) -> None:
    """Not before, and under the same run."""
    lab.put(schedule="@manually", retries=2, retry_delay_us=10 * SECOND_US)
    lab.run()
    lab.end_all(code=1)
    lab.advance(9.9)
    assert len(lab.launches) == 1
    lab.advance(0.2)
    assert [(one.attempt, one.trigger, one.run_id) for one in lab.executions()] == [
        (1, "manual", lab.executions()[0].run_id),
        (2, "retry", lab.executions()[0].run_id),
    ]
    assert len(lab.launches) == 2


def test_a_child_starts_at_once(lab: Lab) -> None:
    """When its parent's run has ended well."""
    lab.put("parent", schedule="@manually")
    lab.put("child", schedule="@manually", parent_jobs=("parent",))
    lab.run("parent")
    assert lab.executions("child") == []
    lab.end_all()
    assert (lab.only("child").trigger, len(lab.launches)) == ("parent", 2)


def test_what_is_owed_survives_a_restart(lab: Lab) -> None:
    """A retry and a child, decided by the next session."""
    lab.put("parent", schedule="@manually", retries=1, retry_delay_us=10 * SECOND_US)
    lab.put("child", schedule="@manually", parent_jobs=("parent",))
    lab.run("parent")
    lab.end_all(code=1)
    lab.crash(seconds_down=20)
    lab.advance(0.1)
    assert len(lab.launches) == 2
    lab.end_all()
    assert len(lab.executions("child")) == 1


# ---- pause, disable, delete


def test_a_pause_leaves_one_record_for_its_ticks(lab: Lab) -> None:
    """What was armed is stopped, what would have come is one range; afterwards the schedule goes on."""
    lab.put()
    lab.advance_to(10.5)
    lab.end_all()
    assert lab.ask(commands.SetPaused(True)) is True
    lab.advance_to(30.5)
    assert len(lab.launches) == 10
    assert lab.ask(commands.SetPaused(False)) is False
    lab.advance_to(33.5)
    assert len(lab.launches) == 13
    shown = [record for record in lab.records() if record[1] == "skipped"]
    assert shown == [
        (11, "skipped", "stopped"),
        (12, "skipped", "stopped"),
        (13, "skipped", "stopped"),
        (14, "skipped", "paused"),
    ]
    (the_range,) = [one for one in lab.executions() if one.reason == "paused"]
    assert (the_range.until_wall_us, the_range.count) == (second(30), 17)


def test_a_second_pause_right_after_the_first_keeps_both_in_mind(lab: Lab) -> None:
    """Resumed and paused again in one instant, before a tick was decided: each tick is recorded as paused, not as
    missed, and what fell due between later pauses is judged by itself."""
    lab.put(schedule="*/10 * * * * *", catch_up="skip")
    lab.ask(commands.SetPaused(True))
    lab.advance_to(35)
    lab.disk_answers = False
    lab.ask(commands.SetPaused(False))
    lab.ask(commands.SetPaused(True))
    lab.sync()
    lab.disk_answers = True
    lab.advance_to(55)
    lab.ask(commands.SetPaused(False))
    lab.advance_to(65)
    assert {reason for _, status, reason in lab.records() if status == "skipped"} == {"paused"}
    assert [one.count for one in lab.executions()] == [3, 2, 1]


def test_a_paused_cluster_stays_paused_over_a_restart(lab: Lab) -> None:
    """It is committed."""
    lab.put()
    lab.ask(commands.SetPaused(True))
    lab.advance(5)
    lab.crash()
    lab.advance(5)
    assert not lab.launches
    lab.ask(commands.SetPaused(False))
    lab.advance(1.5)
    assert len(lab.launches) == 1


def test_an_edit_within_a_pause_leaves_a_record_of_the_ticks_before_it(lab: Lab) -> None:
    """They were swallowed by the pause, whatever the definition is afterwards (P2)."""
    lab.put(schedule="*/10 * * * * *")
    lab.ask(commands.SetPaused(True))
    lab.advance_to(35)
    lab.put(schedule="*/10 * * * * *", command="new")
    lab.advance_to(65)
    lab.ask(commands.SetPaused(False))
    lab.advance_to(75)
    counts = [one.count for one in lab.executions()]
    assert lab.records() == [(10, "skipped", "paused"), (40, "skipped", "paused"), (70, "running", "")]
    assert counts == [3, 3, 1]


def test_a_pause_leaves_the_retries_of_what_runs(lab: Lab) -> None:
    """Also where the log does not know yet that it runs."""
    lab.put(schedule="@at 2027-01-15T08:00:02Z", retries=1)
    lab.advance_to(2.05)
    lab.ask(commands.SetPaused(True))
    lab.end_all(code=1)
    lab.ask(commands.SetPaused(False))
    lab.advance(5)
    assert [one.attempt for one in lab.executions()] == [1, 2]


def test_a_retry_waits_for_the_end_of_a_pause(lab: Lab) -> None:
    """It is scheduling, too."""
    lab.put(schedule="@manually", retries=1)
    lab.run()
    lab.ask(commands.SetPaused(True))
    lab.end_all(code=1)
    lab.advance(60)
    assert len(lab.launches) == 1
    lab.ask(commands.SetPaused(False))
    lab.advance(1)
    assert [(one.attempt, one.trigger) for one in lab.executions()] == [(1, "manual"), (2, "retry")]


def test_disabling_stops_what_is_armed(lab: Lab) -> None:
    """No process starts; each tick that was armed has its record, later ones do not fall due."""
    lab.put()
    lab.advance_to(0.6)
    lab.put(disabled=True)
    lab.advance_to(10)
    assert not lab.launches
    assert lab.records() == [(tick, "skipped", "stopped") for tick in (1, 2, 3)]
    assert lab.view().next_wall_us is None


def test_enabling_again_does_not_make_up_for_what_was_disabled(lab: Lab) -> None:
    """The schedule goes on from now."""
    lab.put(disabled=True)
    lab.advance_to(100)
    lab.put(disabled=False)
    lab.advance_to(102.5)
    assert ticks(lab)[0] == 101


def test_deleting_stops_what_is_armed_and_leaves_what_runs(lab: Lab) -> None:
    """The process runs on to its end, of which nothing is kept."""
    lab.put()
    lab.advance_to(1.7)
    (running,) = lab.running
    answer = lab.ask(commands.DeleteJob("job"))
    assert len(answer.open_executions) == 4
    lab.advance_to(10)
    assert list(lab.launches) == [running]
    lab.end_all()
    assert lab.signals == []
    assert lab.disk.executions() == []
    assert lab.disk.load().jobs == []


# ---- limits in time


def test_starts_at_and_expires_at(lab: Lab) -> None:
    """Both included."""
    lab.put(starts_at_wall_us=second(20), expires_at_wall_us=second(23))
    assert lab.view().next_wall_us == second(20)
    lab.advance_to(60)
    assert ticks(lab) == [20, 21, 22, 23]
    assert lab.view().next_wall_us is None


def test_an_instant_comes_once(lab: Lab) -> None:
    """`@at`: and then never again, over restarts too."""
    lab.put(schedule="@at 2027-01-15T08:00:10Z")
    lab.advance_to(20)
    lab.end_all()
    lab.crash()
    lab.advance(20)
    assert lab.records() == [(10, "success", "")]
    assert lab.view().next_wall_us is None


def test_every_keeps_its_phase_over_restarts(lab: Lab) -> None:
    """It is fixed at creation."""
    lab.advance_to(3)
    lab.put(schedule="@every 10s", catch_up="skip")
    lab.advance_to(14)
    lab.crash(seconds_down=22)
    lab.advance_to(58)
    assert [tick for tick in ticks(lab) if tick > 40] == [43, 53]


# ---- @at, put in the place of another schedule


@pytest.mark.parametrize("after_s", [30, 400])
def test_an_instant_whose_tick_has_run_does_not_run_again(lab: Lab, after_s: int) -> None:
    """It would be that very run once more, under the same ids (P1): refused, whether or not its agent still knows of
    it."""
    lab.put(schedule="0 * * * * *")
    lab.advance_to(61)
    lab.end_all()
    lab.put(schedule="@manually")
    lab.advance(after_s)
    put = commands.PutJob(Job(name="job", schedule="@at 2027-01-15T08:01:00Z", command="true"))
    refused = lab.ask(put)
    assert isinstance(refused, InvalidRequest)
    assert (refused.field, refused.hint) == ("schedule", "a later time, or a run by hand")
    lab.advance(200)
    assert lab.records() == [(0, "success", ""), (60, "success", "")][-len(lab.records()) :]
    assert lab.view().job.schedule == "@manually"


def test_an_instant_a_little_ago_that_no_tick_had_runs(lab: Lab) -> None:
    """Late by less than start_deadline (API.md, @at)."""
    lab.put(schedule="@manually")
    lab.advance_to(100)
    lab.put(schedule="@at 2027-01-15T08:01:00Z")
    lab.advance(1)
    assert lab.records() == [(60, "running", "")]


# ---- @reboot


def test_a_reboot_job_runs_once_a_start(lab: Lab) -> None:
    """Each start of the agent is a run; its creation is none."""
    lab.put(schedule="@reboot")
    lab.advance(10)
    assert not lab.launches
    for starts in (1, 2, 3):
        lab.crash()
        lab.advance(10)
        lab.end_all()
        assert len(lab.launches) == starts
    assert {one.trigger for one in lab.executions()} == {"reboot"}
    assert len({one.run_id for one in lab.executions()}) == 3


def test_a_new_term_is_no_start(lab: Lab) -> None:
    """A run is owed to a start of an agent, and to each one once, however often anybody begins to lead."""
    lab.put(schedule="@reboot")
    lab.crash()
    lab.advance(1)
    lab.end_all()
    lab.session -= 1  # the same start is told of again
    lab.crash()
    lab.advance(300)
    assert len(lab.launches) == len(lab.executions()) == 1


def test_starts_during_a_pause_leave_a_record_each(lab: Lab) -> None:
    """The last one runs when the pause is over; those before it are skipped, with the reason (P2)."""
    lab.put(schedule="@reboot")
    lab.ask(commands.SetPaused(True))
    for _ in range(3):
        lab.crash()
        lab.advance(1)
    lab.ask(commands.SetPaused(False))
    lab.advance(1)
    assert [(status, reason) for _, status, reason in lab.records()] == [
        ("skipped", "its agent has started anew"),
        ("skipped", "its agent has started anew"),
        ("running", ""),
    ]


def test_a_reboot_job_is_one_however_it_is_written(lab: Lab) -> None:
    """With a zone, in capitals."""
    lab.put("zoned", schedule="TZ=Europe/Berlin @reboot")
    lab.put("loud", schedule="@REBOOT")
    lab.crash()
    lab.advance(1)
    assert [len(lab.executions(name)) for name in ("zoned", "loud")] == [1, 1]


def test_many_reboot_jobs_are_decided_in_slices(lab: Lab) -> None:
    """As ticks are: each entry stays small, and none is left out."""
    for n in range(350):
        lab.put(f"job{n:03}", schedule="@reboot")
    lab.crash()
    lab.advance(1)
    armed = Counter(one.index for one in lab.disk.executions())
    assert armed.total() == 350
    assert max(armed.values()) <= 200


def test_a_reboot_job_waits_for_the_end_of_a_pause_and_wakes_nobody(lab: Lab) -> None:
    """A start of the agent while the cluster is paused."""
    lab.put(schedule="@reboot")
    lab.ask(commands.SetPaused(True))
    lab.crash()
    wakes = lab.wakes
    lab.advance(10)
    assert lab.wakes - wakes <= 11
    assert not lab.launches
    lab.ask(commands.SetPaused(False))
    lab.advance(1)
    assert len(lab.launches) == 1


def test_a_disabled_reboot_job_does_not_run(lab: Lab) -> None:
    """Not at the start after it was enabled again either, but at the next one."""
    lab.put(schedule="@reboot", disabled=True)
    lab.crash()
    lab.put(schedule="@reboot")
    lab.advance(10)
    assert not lab.launches
    lab.crash()
    lab.advance(1)
    assert len(lab.launches) == 1


# ---- the log


def test_a_decision_on_its_way_is_not_taken_twice(lab: Lab) -> None:
    """While the log is being written the job is left alone, however often the agent wakes."""
    lab.put()
    lab.put("other")
    lab.disk_answers = False
    lab.advance_to(5)
    decoded = [entries.decode(row.body) for row in lab.unsynced_rows if isinstance(row, LogRow)]
    decided = [(item.uid, item.tick_wall_us) for entry in decoded for item in getattr(entry, "items", ())]
    assert len(decided) == len(set(decided)) == 2


def test_a_decision_is_committed_before_any_process_starts(lab: Lab) -> None:
    """With a disk that does not answer nothing leaves: no order, no process (PROTOCOL 10, 8)."""
    lab.put()
    lab.disk_answers = False
    sent = len(lab.sent)
    lab.advance_to(5)
    assert not [message for message in lab.sent[sent:] if isinstance(message, Run)]
    assert any(isinstance(row, LogRow) for row in lab.unsynced_rows)
    lab.disk_answers = True
    lab.sync()
    lab.advance(0.1)
    assert [(one.scheduled_wall_us - START_WALL_US) // SECOND_US for one in lab.executions()][:5] == [1, 2, 3, 4, 5]
    assert len(lab.launches) == 5
