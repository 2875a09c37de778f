"""The agent as a whole: routing, batching, calls decided again, pruning; and random lives that keep its invariants."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshcron import commands, entries
from meshcron.core import effects, events
from meshcron.core.state import State
from meshcron.entries import ENTRY_BYTES_MAX
from meshcron.errors import NoLeader
from meshcron.messages import Result, ResultItem, StartedItem, StartedReport
from meshcron.model import SECOND_US, History, Job, Token
from tests.unit.core.disk import NODE, contents, ending, second
from tests.unit.core.lab import Lab
from tests.unit.core.random_life import RandomLife

Kind = TypeVar("Kind")


@pytest.fixture
def lab() -> Lab:
    """A leading agent without jobs, at second 0."""
    return Lab().start()


def logged(lab: Lab, kind: type[Kind]) -> list[Kind]:
    found = [entries.decode(lab.disk.log[index].body) for index in sorted(lab.disk.log)]
    return [entry for entry in found if isinstance(entry, kind)]


# ---- starting


@pytest.mark.parametrize(
    "command",
    [
        commands.PutJob(Job(name="job", schedule="@daily")),
        commands.DeleteJob("job"),
        commands.RunJob("job"),
        commands.StopRun("1-0-1"),
        commands.SetPaused(True),
        commands.ClearHistory("job"),
        commands.PutToken(Token(id="t", name="t", role="viewer", sha256="0", created_wall_us=1)),
        commands.RevokeToken("t"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_who_does_not_lead_refuses_at_once(command: commands.Command) -> None:
    """Whatever is asked: nothing was stored, try again shortly."""
    lab = Lab()
    lab.disk_answers = False
    lab.start()
    assert isinstance(lab.ask(command), NoLeader)


def test_a_first_start_leads_and_forms_a_cluster() -> None:
    """Of one member, with the tokens it was given."""
    lab = Lab().start()
    assert lab.agent.leading
    assert [one.name for one in lab.agent.state.members.values()] == ["one"]
    assert [token.id for token in lab.agent.state.tokens()] == ["t1"]


def test_it_wakes_once_a_second_at_least(lab: Lab) -> None:
    """The wall clock is compared with ours; a wish never lies further ahead."""
    now = lab.now()
    assert now.boot_us < lab.agent.next_wakeup(now) <= now.boot_us + SECOND_US
    lab.advance(1000.5)
    assert lab.agent.next_wakeup(lab.now()) <= lab.now().boot_us + SECOND_US


def test_an_event_alone_moves_it(lab: Lab) -> None:
    """Time that passes without one changes nothing: it reads no clock of its own."""
    lab.put()
    before = contents(lab.agent.state)
    lab.boot_us += 3600 * SECOND_US
    assert contents(lab.agent.state) == before


def test_many_entries_that_nobody_has_applied_yet() -> None:
    """A long tail of the log, found at a start: applied in slices, every one of them."""
    lab = Lab().start()
    lab.disk_answers = False
    for n in range(450):
        lab.ask(commands.PutJob(Job(name=f"job{n}", schedule="@manually")))
    lab.write_untold()
    lab.disk_answers = True
    lab.crash()
    lab.advance(0.1)
    assert len(lab.agent.state.jobs) == 450
    assert lab.agent.leading


def test_a_salvaged_agent_records_what_may_have_run(lab: Lab) -> None:
    """What was open is lost, and so is every tick until two horizons from now: it may have run. Then the schedule goes
    on (PROTOCOL 2, recover)."""
    lab.put(schedule="*/10 * * * * *")
    lab.advance_to(18)
    lab.boot_us += 30 * SECOND_US
    lab.start(recovering=True)
    lab.put("new", schedule="*/2 * * * * *")  # what was made since cannot have run before
    lab.advance_to(62)
    assert [one for one in lab.records("new") if one[1] == "lost"] == []
    assert lab.records("new")[0][0] == 50
    assert [record for record in lab.records() if record[1] == "lost"] == [
        (10, "lost", "recovered"),
        (20, "lost", "recovered"),
        (30, "lost", "recovered"),
    ]
    lost = [one for one in lab.executions() if one.count > 1]
    assert [(one.scheduled_wall_us, one.until_wall_us) for one in lost] == [(second(30), second(50))]
    assert lab.records()[-1] == (60, "running", "")


def test_a_process_that_could_not_be_started(lab: Lab) -> None:
    """Failed, with the reason; nothing ran."""
    lab.spawns = False
    lab.put(schedule="@manually")
    lab.run()
    one = lab.only()
    lab.give(events.ProcessNotStarted(one.id, "no such user: bob"))
    assert lab.records() == [(0, "failed", "no such user: bob")]
    assert lab.only().started_wall_us == 0


# ---- batching


def test_outcomes_gather_while_the_log_is_being_written(lab: Lab) -> None:
    """Under load one entry carries many."""
    for n in range(30):
        lab.put(f"job{n}", schedule="@manually")
        lab.run(f"job{n}")
    lab.disk_answers = False
    lab.end_all()
    for _ in range(6):
        lab.sync()
    assert len(logged(lab, entries.Results)) <= 2
    assert {lab.only(f"job{n}").status for n in range(30)} == {"success"}


def test_what_ends_soon_is_never_logged_as_started(lab: Lab) -> None:
    """The result says it all; what lasts longer than a moment is."""
    lab.put("brief", schedule="@manually")
    lab.put("lasting", schedule="@manually")
    lab.run("brief")
    lab.run("lasting")
    lab.end(lab.only("brief").id)
    lab.advance(1)
    assert [[item.execution_id for item in entry.items] for entry in logged(lab, entries.Started)] == [
        [lab.only("lasting").id]
    ]
    assert lab.only("lasting").status == "running"
    assert lab.view("lasting").last_status == "running"


def test_outcomes_too_many_for_one_entry_are_cut(lab: Lab) -> None:
    """200 of them with 4 KiB of output each: none is left out, no entry is too large (PROTOCOL 5, Sizes)."""
    lab.put(schedule="@manually")
    for _ in range(64):
        lab.run()
    tail = msgspec.structs.replace(ending(), output_tail="\u20ac" * 1300, output_bytes=4096)
    items = [ResultItem(execution_id=one.id, kind="ended", success=True, ending=tail) for one in lab.executions()]
    strangers = [msgspec.structs.replace(items[0], execution_id=f"{n:032}") for n in range(136)]
    lab.hear(Result((*items, *strangers)))
    lab.advance(1)
    assert lab.view().success_count == 64
    assert len(logged(lab, entries.Results)) >= 200 * 4096 // ENTRY_BYTES_MAX
    assert max(len(row.body) for row in lab.disk.log.values()) <= ENTRY_BYTES_MAX


def test_many_starts_of_one_moment_are_cut(lab: Lab) -> None:
    """Many agents report at once, while the log is being written."""
    lab.hear(StartedReport(tuple(StartedItem(f"{n:032}", second(1)) for n in range(5000))))
    lab.advance(1)
    assert sum(len(entry.items) for entry in logged(lab, entries.Started)) == 5000
    assert max(len(row.body) for row in lab.disk.log.values()) <= ENTRY_BYTES_MAX


# ---- calls


def test_two_edits_on_their_way_are_both_answered(lab: Lab) -> None:
    """The second was built on what the first changes: it applies as nothing and is decided again."""
    lab.put(schedule="@manually", command="first")
    lab.disk_answers = False
    for command in ("second", "third"):
        lab.ask(commands.PutJob(Job(name="job", schedule="@manually", command=command)))
    lab.disk_answers = True
    lab.sync()
    lab.advance(0.1)
    answers = [lab.answers[call] for call in sorted(lab.answers)[-2:]]
    assert [answer.view.job.command for answer in answers if isinstance(answer, commands.JobAnswer)] == [
        "second",
        "third",
    ]
    assert lab.view().job.command == "third"


def test_an_edit_built_on_a_job_that_is_being_deleted(lab: Lab) -> None:
    """It creates the job anew, under another uid."""
    lab.put(schedule="@manually")
    uid = lab.view().uid
    lab.disk_answers = False
    lab.ask(commands.DeleteJob("job"))
    lab.ask(commands.PutJob(Job(name="job", schedule="@manually")))
    lab.disk_answers = True
    lab.sync()
    lab.advance(0.1)
    answer = lab.answers[lab.last_call]
    assert isinstance(answer, commands.JobAnswer)
    assert answer.created
    assert lab.view().uid != uid


def test_what_was_armed_before_an_edit_to_forbid_runs_as_committed(lab: Lab) -> None:
    """Three runs overlap once; later ones do not."""
    lab.put()
    lab.advance_to(0.6)
    lab.put(concurrency="forbid")
    lab.advance_to(6.5)
    assert [status for _, status, _ in lab.records()] == ["running"] * 3 + ["skipped"] * 3


def test_answers_wait_for_what_they_show(lab: Lab) -> None:
    """A refusal may not overtake the writes it was judged by."""
    lab.disk_answers = False
    lab.ask(commands.PutJob(Job(name="job", schedule="@manually")))
    lab.sync(1)  # committed, its rows are on their way
    assert lab.ask(commands.DeleteJob("job", if_revision=77)) is None
    lab.sync()
    assert lab.last_call in lab.answers


# ---- history


def test_a_history_is_pruned_now_and_then(lab: Lab) -> None:
    """Never below what the job keeps, never much above; the counters know all runs."""
    lab.put(schedule="@manually", history=History(runs=20))
    for _ in range(100):
        lab.run()
        lab.end_all()
        assert len(lab.executions()) <= 32
    assert len(lab.executions()) >= 20
    assert lab.view().success_count == 100


def test_records_grow_old_where_no_new_ones_come(lab: Lab) -> None:
    """`history.days` holds for a job that runs seldom, too."""
    lab.put(schedule="0 8 * * *", history=History(runs=100, days=2))
    for _ in range(10):
        lab.boot_us += 86_390 * SECOND_US  # the machine sleeps until shortly before its time
        lab.advance(10.1)
        lab.end_all()
    assert 2 <= len(lab.executions()) <= 4


def test_what_a_job_ran_is_forgotten_with_it(lab: Lab) -> None:
    """A Spec holds commands and environments: it goes some hours after the last order that needed it."""
    for n in range(5):
        lab.put(schedule="@manually", command=str(n))
        lab.run()
        lab.end_all()
    lab.ask(commands.DeleteJob("job"))
    lab.advance(4 * 3600)
    assert lab.disk.tables["specs"] == {}


# ---- random lives

story = st.lists(st.tuples(st.sampled_from(RandomLife.STEPS), st.integers(0, 5)), min_size=15, max_size=60)
policies = st.permutations(("allow", "forbid", "queue", "replace"))
"""One for each job, for its whole life."""


@given(steps=story, concurrency=policies)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_random_life_keeps_every_invariant(steps: list[tuple[str, int]], concurrency: list[str]) -> None:
    """And comes to rest: paused and with all processes ended nothing is open, nothing starts twice, and the disk holds
    the state (PROTOCOL 10)."""
    lab = RandomLife(concurrency).live(steps)
    lab.disk_answers = True
    lab.sync()
    lab.loses = lambda message: False
    lab.advance(5)
    lab.ask(commands.SetPaused(True))
    for _ in range(5):
        lab.advance(15)
        lab.end_all()
    assert lab.agent.leading
    assert lab.agent.state.open == {}
    assert contents(State.load(lab.disk.load())) == contents(lab.agent.state)
    assert all(one.status.final for one in lab.disk.executions())


@given(steps=story, concurrency=policies)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_events_make_the_same_log(steps: list[tuple[str, int]], concurrency: list[str]) -> None:
    """It draws nothing and reads no clock: what happened once can be replayed."""
    first, again = RandomLife(concurrency).live(steps), RandomLife(concurrency).live(steps)
    assert first.disk.log == again.disk.log
    assert first.disk.tables == again.disk.tables
    assert first.sent == again.sent


@given(st.lists(st.integers(0, 4), min_size=5, max_size=40))
@settings(max_examples=40)
def test_every_second_has_one_record(waits: list[int]) -> None:
    """A job each second, crashes and pauses of the agent at any time: no tick disappears, none is doubled (P2)."""
    lab = Lab().start()
    lab.put(start_deadline_us=60 * SECOND_US, history=History(runs=100_000))
    for wait in waits:
        lab.advance((0.3, 1, 2.7, 11, 0.01)[wait])
        if wait == 4:
            lab.crash(seconds_down=7)
        lab.end_all()
    lab.advance(10)
    lab.end_all()
    until = lab.now().wall_us
    seconds: list[int] = []
    for one in lab.executions():
        last = max(one.until_wall_us, one.scheduled_wall_us)
        seconds += range(one.scheduled_wall_us // SECOND_US, last // SECOND_US + 1)
    assert len(seconds) == len(set(seconds))
    assert set(range(second(1) // SECOND_US, until // SECOND_US + 1)) <= set(seconds)


def test_who_is_over_is_not_woken_for_what_is_due(lab: Lab) -> None:
    """It begins anew once its disk has written, which may take long: until then it would be woken again and again."""
    lab.put()
    wanted = lab.agent.handle(events.HigherGeneration(NODE, 7), lab.now())
    assert any(isinstance(effect, effects.StartOver) for effect in wanted)
    lab.boot_us += 10 * SECOND_US
    assert lab.agent.next_wakeup(lab.now()) > lab.now().boot_us
