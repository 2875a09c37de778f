"""What somebody asks becomes an entry, or is refused with the reason; seen from outside the whole agent."""

from __future__ import annotations

import pytest

from meshcron import commands
from meshcron.errors import (
    Conflict,
    InvalidRequest,
    InvalidSchedule,
    MeshcronError,
    NotFound,
    PreconditionFailed,
    TooLarge,
    UnknownExecution,
    UnknownJob,
)
from meshcron.messages import Admit, Endpoint, Profile
from meshcron.model import SECOND_US, Job, Token
from tests.unit.core.disk import second
from tests.unit.core.lab import Lab


@pytest.fixture
def lab() -> Lab:
    """A leading agent without jobs, at second 0."""
    return Lab().start()


def put(
    lab: Lab, name: str = "job", schedule: str = "@manually", *, if_revision: int | None = None, **job: object
) -> object:
    fields = {"command": "true", **job, "name": name, "schedule": schedule}
    return lab.ask(commands.PutJob(Job(**fields), if_revision))  # type: ignore[arg-type] # as the story says


# ---- PutJob


def test_a_put_is_answered_with_the_job_as_it_stands(lab: Lab) -> None:
    """`next` is right in the answer to the create."""
    answer = lab.put(schedule="30 8 * * *")
    assert answer.created
    assert answer.view.next_wall_us == second(30 * 60)
    assert lab.view() == answer.view


def test_create_only_and_edit_only(lab: Lab) -> None:
    """If-Match: 0 means "there must be none", a revision means exactly this one."""
    assert isinstance(put(lab, if_revision=3), PreconditionFailed)
    created = put(lab, if_revision=0)
    assert isinstance(created, commands.JobAnswer)
    assert isinstance(put(lab, if_revision=0), PreconditionFailed)
    edited = put(lab, if_revision=created.view.revision, command="new")
    assert isinstance(edited, commands.JobAnswer)
    assert isinstance(put(lab, if_revision=created.view.revision, command="newer"), PreconditionFailed)
    assert lab.view().job.command == "new"


def test_a_parent_must_be_there(lab: Lab) -> None:
    """Create the parent first."""
    refused = put(lab, "child", parent_jobs=("nobody",))
    assert isinstance(refused, InvalidRequest)
    assert refused.field == "parent_job"
    assert lab.agent.state.job_views() == []


def test_a_job_cannot_run_after_itself(lab: Lab) -> None:
    """Neither directly nor around a circle of any length."""
    put(lab, "a")
    put(lab, "b", parent_jobs=("a",))
    put(lab, "c", parent_jobs=("b",))
    for parents in (("a",), ("b",), ("c",)):
        assert isinstance(put(lab, "a", parent_jobs=parents), InvalidRequest)
    assert isinstance(put(lab, "new", parent_jobs=("new",)), InvalidRequest)
    put(lab, "d", parent_jobs=("b", "c"))
    assert lab.view("d").job.parent_jobs == ("b", "c")


def test_a_schedule_that_is_wrong_is_refused(lab: Lab) -> None:
    """The core parses again what the service has checked: nothing gets into the log that no leader can read."""
    assert isinstance(put(lab, schedule="61 * * * *"), InvalidSchedule)
    assert lab.agent.state.job_views() == []


def test_what_is_too_large_for_the_log_is_refused(lab: Lab) -> None:
    """An entry has 256 KiB at most (PROTOCOL 5, Sizes); the next call goes well."""
    assert isinstance(put(lab, command="x" * 256 * 1024), TooLarge)
    assert isinstance(put(lab), commands.JobAnswer)


def test_an_edit_holds_from_the_first_tick_not_armed(lab: Lab) -> None:
    """Ticks within the horizon run as they were committed; the answer says from when the edit holds."""
    lab.put(command="old")
    lab.advance_to(0.6)  # second 3 is armed half a second off: at 0.5
    answer = lab.put(command="new")
    assert answer.holds_from_wall_us == second(4)
    lab.advance_to(5.7)
    assert [launch.command for launch in lab.launches.values()] == ["old", "old", "old", "new", "new"]
    assert [tick for tick, _, _ in lab.records()] == list(range(1, 9))


def test_an_edit_does_not_move_the_phase_of_every(lab: Lab) -> None:
    """It is fixed at creation (API, Schedules)."""
    lab.put(schedule="@every 10s")
    lab.advance_to(4)
    assert lab.put(schedule="@every 10s", command="new").view.next_wall_us == second(10)


def test_an_edit_waits_for_a_tick_that_is_due(lab: Lab) -> None:
    """The tick of the old definition is decided first: it may not disappear between two revisions (P2)."""
    lab.put(schedule="*/10 * * * * *", concurrency="forbid")
    lab.advance_to(10)
    lab.disk_answers = False
    lab.advance_to(20)
    assert put(lab, schedule="@manually") is None
    lab.disk_answers = True
    lab.sync()
    assert isinstance(lab.answers[lab.last_call], commands.JobAnswer)
    assert [(tick, reason) for tick, _, reason in lab.records()] == [
        (10, ""),
        (20, "overlap: the last run is still open"),
    ]


@pytest.mark.parametrize(
    ("late_s", "records"), [(5, [(-5, "running", "")]), (3000, [(-3000, "running", "")]), (4000, [])]
)
def test_an_instant_a_little_behind_us_still_runs(lab: Lab, late_s: int, records: list[tuple[int, str, str]]) -> None:
    """`@at` late by less than start_deadline (1 h) runs (API, Schedules)."""
    minutes, seconds = divmod(3600 * 8 - late_s, 60)
    put(lab, schedule=f"@at 2027-01-15T{minutes // 60:02}:{minutes % 60:02}:{seconds:02}Z")
    lab.advance(1)
    assert lab.records() == records


def test_an_edit_at_the_instant_of_a_tick_waits_for_the_disk_and_sleeps(lab: Lab) -> None:
    """However long that takes (within reason): it is not refused, and nobody is woken for it meanwhile."""
    lab.put(schedule="*/10 * * * * *", concurrency="forbid")
    lab.advance_to(19.9999)
    lab.disk_answers = False
    lab.advance_to(20.0001)  # the skip of second 20 is on its way to the disk
    wakes = lab.wakes
    assert put(lab, schedule="@daily", command="new") is None
    lab.advance(0.5)
    assert lab.wakes - wakes <= 2
    lab.disk_answers = True
    lab.sync()
    lab.advance(0.1)
    assert isinstance(lab.answers[lab.last_call], commands.JobAnswer)
    assert lab.view().job.command == "new"


def test_a_disabling_edit_names_what_is_still_open(lab: Lab) -> None:
    """What runs, and what was armed and is being stopped."""
    lab.put()
    lab.advance_to(1.7)
    open_before = sorted(one.public_id for one in lab.executions())
    assert len(open_before) == 4
    assert sorted(lab.put(disabled=True).open_executions) == open_before


def test_run_on_create(lab: Lab) -> None:
    """Once, at once."""
    lab.ask(commands.PutJob(Job(name="job", schedule="@daily", command="true"), run_on_create=True))
    assert lab.only().trigger == "manual"
    assert len(lab.launches) == 1


# ---- DeleteJob, ClearHistory, tokens


def test_a_delete_names_the_revision_it_means(lab: Lab) -> None:
    """Or none."""
    put(lab)
    revision = lab.view().revision
    assert isinstance(lab.ask(commands.DeleteJob("job", revision + 1)), PreconditionFailed)
    assert isinstance(lab.ask(commands.DeleteJob("job", revision)), commands.JobAnswer)
    put(lab)
    assert isinstance(lab.ask(commands.DeleteJob("job")), commands.JobAnswer)


@pytest.mark.parametrize(
    "command",
    [commands.DeleteJob("job"), commands.RunJob("job"), commands.ClearHistory("job")],
    ids=lambda c: type(c).__name__,
)
def test_a_job_nobody_knows(lab: Lab, command: commands.Command) -> None:
    """Is named in the refusal."""
    refused = lab.ask(command)
    assert isinstance(refused, UnknownJob)
    assert refused.name == "job"


def test_clearing_the_history(lab: Lab) -> None:
    """Records and counters go; what is open stays."""
    put(lab)
    lab.run()
    lab.end_all()
    lab.run()
    lab.ask(commands.ClearHistory("job"))
    lab.advance(0.2)
    assert [status for _, status, _ in lab.records()] == ["running"]
    assert lab.view().success_count == 0


def test_tokens(lab: Lab) -> None:
    """Put, refused under a name in use, revoked, gone."""
    token = Token(id="t9", name="ci", role="viewer", sha256="99", created_wall_us=second(0))
    assert lab.ask(commands.PutToken(token)) == token
    clash = Token(id="t10", name="ci", role="admin", sha256="98", created_wall_us=second(0))
    assert isinstance(lab.ask(commands.PutToken(clash)), Conflict)
    assert lab.ask(commands.RevokeToken("t9")) == token
    assert isinstance(lab.ask(commands.RevokeToken("t9")), NotFound)


# ---- RemoveMember


def profile(name: str, node_id: str) -> Profile:
    return Profile(
        node_id=node_id, name=name, public_key=name, endpoint=Endpoint("", 0, 0, 0), tags={}, facts={}, session=1
    )


@pytest.mark.parametrize("by", ["another", "b" * 32])
def test_a_member_is_removed_by_name_or_node_id(lab: Lab, by: str) -> None:
    """Answered once it has begun; soon it is gone, and its number is not given again."""
    lab.hear(Admit(profile("another", "b" * 32)))
    assert sorted(one.name for one in lab.agent.state.members.values()) == ["another", "one"]
    assert not isinstance(lab.ask(commands.RemoveMember(by)), MeshcronError)
    lab.advance(5)
    assert [one.name for one in lab.agent.state.members.values()] == ["one"]
    lab.hear(Admit(profile("third", "d" * 32)))
    assert sorted(lab.agent.state.members) == [1, 3]


def test_nobody_and_the_last_one_cannot_be_removed(lab: Lab) -> None:
    """A cluster of nobody would hold no jobs."""
    assert isinstance(lab.ask(commands.RemoveMember("nobody")), NotFound)
    assert isinstance(lab.ask(commands.RemoveMember("one")), Conflict)
    assert [one.name for one in lab.agent.state.members.values()] == ["one"]


# ---- RunJob


def test_a_manual_run_runs_now_with_its_parameters(lab: Lab) -> None:
    """The answer comes when it is committed, with the run's id."""
    put(lab, env={"A": "job's", "B": "job's"})
    run_id = lab.run(env={"A": "mine"})
    lab.advance(0.2)
    one = lab.only()
    assert (one.run_id, one.trigger, one.status) == (run_id, "manual", "running")
    env = lab.launches[one.id].env
    assert (env["A"], env["B"], env["MESHCRON_RUN"]) == ("mine", "job's", run_id)


def test_a_disabled_job_runs_when_a_person_asks(lab: Lab) -> None:
    """And leaves the schedule alone."""
    put(lab, schedule="* * * * * *", disabled=True)
    lab.run()
    lab.advance(5)
    assert len(lab.launches) == 1


def test_a_manual_run_while_paused(lab: Lab) -> None:
    """Still works (API, pause)."""
    put(lab)
    lab.ask(commands.SetPaused(True))
    lab.run()
    assert len(lab.launches) == 1


def test_a_manual_run_that_no_agent_matches(lab: Lab) -> None:
    """One record says so."""
    put(lab, tags={"role": "db"})
    lab.run()
    assert lab.records() == [(0, "skipped", "no agent matches its tags")]


def test_forbid_refuses_a_person_too(lab: Lab) -> None:
    """Until the run is over, its retries included."""
    put(lab, concurrency="forbid", retries=1, retry_delay_us=SECOND_US)
    lab.run()
    assert isinstance(lab.ask(commands.RunJob("job")), Conflict)
    lab.end_all(code=1)
    assert isinstance(lab.ask(commands.RunJob("job")), Conflict)
    lab.advance(2)
    lab.end_all()
    lab.run()
    assert len(lab.launches) == 3


def test_queue_takes_one_and_refuses_the_next(lab: Lab) -> None:
    """The one that waits starts when the first has ended, with its own parameters."""
    put(lab, concurrency="queue")
    first = lab.run()
    waiting = lab.run(env={"A": "1"})
    assert isinstance(lab.ask(commands.RunJob("job")), Conflict)
    assert [one.run_id for one in lab.executions()] == [first]
    lab.end_all()
    assert [(one.run_id, one.env) for one in lab.executions()] == [(first, None), (waiting, {"A": "1"})]


def test_replace_kills_the_first(lab: Lab) -> None:
    """The second starts once the first is final, not before."""
    put(lab, concurrency="replace")
    first = lab.run()
    second_run = lab.run()
    (old,) = lab.executions()
    assert lab.signals == [(old.id, False)]
    lab.end(old.id, None, signal=15)
    lab.advance(0.2)
    assert [(one.run_id, one.status) for one in lab.executions()] == [(first, "killed"), (second_run, "running")]


def test_a_replace_that_is_refused_kills_nothing(lab: Lab) -> None:
    """The run that would wait is too large for the log: nothing was stored, and the first one goes on."""
    put(lab, concurrency="replace")
    first = lab.run()
    written = len(lab.disk.log)
    assert isinstance(lab.ask(commands.RunJob("job", {"A": "x" * 256 * 1024})), TooLarge)
    assert len(lab.disk.log) == written
    lab.advance(0.2)
    assert [(one.run_id, one.status, one.stop) for one in lab.executions()] == [(first, "running", "")]


def test_two_manual_runs_at_one_instant_of_a_job_that_forbids(lab: Lab) -> None:
    """Both were proposed before either was committed: one runs, the other is refused."""
    put(lab, concurrency="forbid")
    lab.disk_answers = False
    lab.ask(commands.RunJob("job"))
    lab.ask(commands.RunJob("job"))
    lab.disk_answers = True
    lab.sync()
    outcomes = sorted(type(outcome).__name__ for outcome in list(lab.answers.values())[-2:])
    assert outcomes == ["Conflict", "JobAnswer"]
    assert len(lab.launches) == 1


# ---- StopRun


def test_a_run_is_killed(lab: Lab) -> None:
    """TERM goes to its process; the end is recorded as killed."""
    put(lab)
    run_id = lab.run()
    one = lab.only()
    assert lab.ask(commands.StopRun(run_id)) == commands.StopAnswer(run_id, (one.public_id,))
    assert lab.signals == [(one.id, False)]
    lab.end(one.id, None, signal=15)
    assert lab.only().status == "killed"


def test_one_execution_is_killed_or_its_retry_given_up(lab: Lab) -> None:
    """What is over, and owes nothing, is nobody's."""
    put(lab, retries=3, retry_delay_us=60 * SECOND_US)
    run_id = lab.run()
    one = lab.only()
    asked = commands.StopRun(run_id, one.id)
    lab.end_all(code=1)
    assert lab.ask(asked) == commands.StopAnswer(run_id, ())
    assert isinstance(lab.ask(asked), UnknownExecution)
    second = lab.run()
    running = next(iter(lab.agent.state.open.values()))
    assert lab.ask(commands.StopRun(second, running.id)) == commands.StopAnswer(second, (running.public_id,))
    assert lab.signals == [(running.id, False)]


def test_a_run_that_waits_for_its_retry_is_stopped(lab: Lab) -> None:
    """There is no process: what is owed becomes skipped."""
    put(lab, retries=3, retry_delay_us=60 * SECOND_US)
    run_id = lab.run()
    lab.end_all(code=1)
    assert lab.ask(commands.StopRun(run_id)) == commands.StopAnswer(run_id, ())
    lab.advance(120)
    assert [(status, reason) for _, status, reason in lab.records()] == [
        ("failed", "exit code 1"),
        ("skipped", "stopped"),
    ]


@pytest.mark.parametrize("command", [commands.StopRun("no-run"), commands.StopRun("no-run", "no-execution")])
def test_a_run_nobody_knows(lab: Lab, command: commands.StopRun) -> None:
    """Also one that has ended."""
    put(lab)
    assert isinstance(lab.ask(command), UnknownExecution)
    run_id = lab.run()
    lab.end_all()
    assert isinstance(lab.ask(commands.StopRun(run_id)), UnknownExecution)
    assert isinstance(lab.ask(commands.StopRun(run_id)), MeshcronError)


def test_one_execution_of_a_run(lab: Lab) -> None:
    """An id of another run's execution is not found in this one."""
    put(lab)
    first, second_run = lab.run(), lab.run()
    (one, other) = lab.executions()
    assert isinstance(lab.ask(commands.StopRun(first, other.id)), UnknownExecution)
    assert lab.ask(commands.StopRun(second_run, other.id)) == commands.StopAnswer(second_run, (other.public_id,))
    assert lab.signals == [(other.id, False)]
    assert one.id in lab.running
