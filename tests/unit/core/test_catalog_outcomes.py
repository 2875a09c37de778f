"""Started, Results and Stop: final states, counters, retries, and results that come after all."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from meshcron import entries
from meshcron.commands import StopAnswer
from meshcron.core.catalog_outcomes import RERUNS_MAX
from meshcron.errors import UnknownExecution
from meshcron.messages import ResultItem, StartedItem
from meshcron.model import SECOND_US, Job, Status
from tests.unit.core.book import Book
from tests.unit.core.disk import member, second


@pytest.fixture
def book() -> Book:
    """A formed cluster of one with one job, its cursor at second 0."""
    book = Book()
    book.put()
    return book


def counters(book: Book, name: str = "job") -> tuple[int, int, str]:
    view = book.state.job_view(name)
    assert view is not None
    return view.success_count, view.error_count, view.last_status


def fail_until_nothing_is_owed(book: Book) -> int:
    """Let each attempt fail; how many there were."""
    book.end(book.launch(1).opened[0], success=False)
    attempts = 1
    while book.owed:
        (row,) = book.owed
        book.end(book.launch_owed(row.key).opened[0], success=False)
        attempts += 1
    return attempts


# ---- Started


def test_started_makes_it_running_once(book: Book) -> None:
    """A second report of the same, a later one, changes nothing."""
    execution = book.launch(1).opened[0]
    book.apply(entries.Started((StartedItem(execution.id, second(1)),)))
    book.apply(entries.Started((StartedItem(execution.id, second(5)),)))
    (one,) = book.disk.executions()
    assert (one.status, one.started_wall_us) == ("running", second(1))
    assert counters(book) == (0, 0, "running")


def test_started_of_what_is_over_or_unknown_is_nothing(book: Book) -> None:
    """It is lazily logged, and may come after the result."""
    execution = book.launch(1).opened[0]
    book.end(execution)
    book.apply(entries.Started((StartedItem(execution.id, second(1)), StartedItem("unheard of", second(1)))))
    assert book.records == [(1, "success", "")]


# ---- Results


@pytest.mark.parametrize(
    ("kind", "success", "status", "counts"),
    [
        ("ended", True, "success", (1, 0, "success")),
        ("ended", False, "failed", (0, 1, "failed")),
        ("timeout", False, "timeout", (0, 1, "timeout")),
        ("killed", False, "killed", (0, 1, "killed")),
        ("failed", False, "failed", (0, 1, "failed")),
        ("lost", False, "lost", (0, 1, "lost")),
        ("skipped", False, "skipped", (0, 0, "skipped")),
    ],
)
def test_each_end_has_its_status(
    book: Book, kind: str, success: bool, status: str, counts: tuple[int, int, str]
) -> None:
    """And counts as a success, an error, or (skipped) as neither."""
    execution = book.launch(1).opened[0]
    applied = book.end(execution, kind, success=success)  # type: ignore[arg-type]
    assert [one.status for one in applied.closed] == [status]
    assert book.records == [(1, status, "")]
    assert counters(book) == counts
    assert book.state.open == {}


def test_the_ending_is_recorded(book: Book) -> None:
    """Exit code, times, and what it said."""
    execution = book.launch(1).opened[0]
    book.end(execution, success=False, at=9)
    (one,) = book.disk.executions()
    assert (one.exit_code, one.signal, one.output_tail, one.output_bytes) == (1, None, "said so", 7)
    assert (one.started_wall_us, one.finished_wall_us) == (second(8), second(9))
    view = book.state.job_view("job")
    assert view is not None
    assert (view.last_success_wall_us, view.last_error_wall_us) == (0, second(9))


def test_an_end_comes_once(book: Book) -> None:
    """The outbox repeats until acknowledged; the second copy counts for nothing."""
    execution = book.launch(1).opened[0]
    book.end(execution)
    assert book.end(execution, success=False).closed == []
    assert book.records == [(1, "success", "")]
    assert counters(book) == (1, 0, "success")


def test_results_of_ids_nobody_knows_are_nothing(book: Book) -> None:
    """They are acknowledged all the same, by the leader."""
    book.apply(entries.Results(second(1), (ResultItem(execution_id="unheard of", kind="ended", success=True),)))
    assert counters(book) == (0, 0, "")


def test_many_ends_in_one_entry(book: Book) -> None:
    """Of two jobs, each counted with its own."""
    book.put("other")
    items = [book.launch(tick, name).opened[0] for tick in (1, 2, 3) for name in ("job", "other")]
    results = [ResultItem(execution_id=one.id, kind="ended", success=one.uid == book.uid()) for one in items]
    book.apply(entries.Results(second(9), tuple(results)))
    assert counters(book) == (3, 0, "success")
    assert counters(book, "other") == (0, 3, "failed")
    assert {job.recorded for job in book.state.jobs.values()} == {3}


# ---- retries


def test_a_failed_attempt_owes_the_next_one_after_its_delay() -> None:
    """From the committed instant of the result, longer each time; with the environment of its run."""
    book = Book()
    book.put(retries=3, retry_delay_us=10 * SECOND_US, retry_backoff=2.0)
    execution = book.launch(1, env={"A": "1"}).opened[0]
    waits = []
    for at in (100, 200, 300):
        book.end(execution, success=False, at=at)
        (row,) = book.state.owed.values()
        assert (row.run_id, row.node_id, row.scheduled_wall_us) == (execution.run_id, execution.node_id, second(1))
        waits.append(row.due_cluster_us - second(at))
        assert row.env == '{"A": "1"}'
        (execution,) = book.launch_owed(row.key).opened
    assert waits == [10 * SECOND_US, 20 * SECOND_US, 40 * SECOND_US]
    assert execution.attempt == 4


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_there_are_as_many_attempts_as_allowed(retries: int) -> None:
    """One more than `retries`; only the last decides the run."""
    book = Book()
    book.put(retries=retries)
    assert fail_until_nothing_is_owed(book) == retries + 1
    assert counters(book) == (0, 1, "failed")
    assert len({one.id for one in book.disk.executions()}) == retries + 1


@pytest.mark.parametrize("delay_us", [0, 1, 3600 * SECOND_US])
def test_no_backoff_is_too_large(delay_us: int) -> None:
    """Whatever the API allows: an entry that cannot be applied would stop every voter for good."""
    book = Book()
    book.put(retries=1000, retry_backoff=100.0, retry_delay_us=delay_us)
    execution = book.launch(1).opened[0]
    for _ in range(170):
        book.end(execution, success=False)
        (row,) = book.owed
        assert 0 <= row.due_cluster_us < 2**63
        (execution,) = book.launch_owed(row.key).opened


def test_a_failed_run_whose_retry_is_stopped_has_failed() -> None:
    """Its last attempt did, and no other comes."""
    book = Book()
    book.put(retries=1)
    execution = book.launch(1).opened[0]
    book.end(execution, success=False)
    assert counters(book) == (0, 0, "")
    book.apply(entries.StopEntry((), (execution.run_id,), kill=True))
    assert counters(book) == (0, 1, "failed")


def test_a_retry_without_an_agent_is_recorded_as_that_attempt() -> None:
    """And the run has failed."""
    book = Book()
    book.put(retries=1)
    book.end(book.launch(1).opened[0], success=False)
    (row,) = book.owed
    book.launch_owed(row.key, targets=(), reason="nobody")
    assert [(one.attempt, one.status) for one in book.disk.executions()] == [(1, "failed"), (2, "skipped")]
    assert counters(book) == (0, 1, "failed")


def owed_on_three(**job: Any) -> Book:
    """A run has failed on three agents, and each will try again."""
    book = Book(members=3)
    book.put(retries=2, **job)
    for execution in book.launch(1, targets=(1, 2, 3)).opened:
        book.end(execution, success=False)
    return book


RECOVERED = entries.Recovered(member(1), second(9), 1)
DISABLED = entries.JobPut(
    job=Job(name="job", schedule="@manually", command="true", disabled=True),
    seen_revision=4,
    seen_cursor_wall_us=second(1),
    wall_us=second(9),
    cursor_wall_us=second(1),
    next_wall_us=0,
)


@pytest.mark.parametrize(
    ("entry", "status"),
    [(entries.StopEntry((), ("4-0-1800000001",), kill=True), "skipped"), (DISABLED, "skipped"), (RECOVERED, "lost")],
    ids=["killed", "disabled", "recovered"],
)
def test_a_retry_that_is_given_up_is_recorded_for_each_agent(entry: entries.Entry, status: str) -> None:
    """One entry ends those of all of them, with a record each (P2)."""
    book = owed_on_three()
    book.apply(entry)
    given_up = [one for one in book.disk.executions() if one.attempt == 2]
    assert sorted((one.agent, one.status.value) for one in given_up) == [
        ("agent1", status),
        ("agent2", status),
        ("agent3", status),
    ]
    assert counters(book) == (0, 3, "failed")


def test_of_a_deleted_job_no_retry_is_recorded() -> None:
    """Its records go, too."""
    book = owed_on_three()
    book.apply(entries.JobDelete(book.uid(), book.uid()))
    assert (book.records, book.state.owed) == ([], {})


def test_a_retry_of_an_agent_that_is_gone_is_recorded_under_its_node_id() -> None:
    """Its name is somebody else's by then, or nobody's."""
    book = owed_on_three()
    book.apply(entries.MemberRemove(2, second(8)))
    book.apply(DISABLED)
    given_up = [(one.node_id[0], one.agent) for one in book.disk.executions() if one.attempt == 2]
    assert sorted(given_up) == [("a", "agent1"), ("b", ""), ("c", "agent3")]


@pytest.mark.parametrize("met", [False, True])
def test_retries_that_nobody_can_run_are_recorded_one_by_one(met: bool) -> None:
    """Also where those of two agents have met on one before, which fails."""
    book = owed_on_three(retry_on="other")
    if met:
        for one in [one for row in book.owed for one in book.launch_owed(row.key, targets=(3,)).opened]:
            book.end(one, success=False)
    intents = [book.owed_intent(row.key, targets=(), reason="nobody") for row in book.owed]
    book.apply(book.intents(*intents))
    assert [(one.status, one.reason) for one in book.disk.executions()][-3:] == [(Status.SKIPPED, "nobody")] * 3


def test_fail_then_ok_is_a_success() -> None:
    """The last attempt decides the run (API, Jobs)."""
    book = Book()
    book.put(retries=2)
    book.end(book.launch(1).opened[0], success=False)
    (key,) = book.state.owed
    book.end(book.launch_owed(key).opened[0])
    assert counters(book) == (1, 0, "success")
    assert book.state.owed == {}


@pytest.mark.parametrize("kind", ["killed", "lost", "skipped"])
def test_what_did_not_fail_is_not_tried_again(kind: str) -> None:
    """A person killed it, nobody knows, or it never started."""
    book = Book()
    book.put(retries=5)
    book.end(book.launch(1).opened[0], kind)  # type: ignore[arg-type]
    assert book.owed == []


def test_retries_of_two_agents_may_meet_on_a_third() -> None:
    """They are two executions of one run and one attempt there, under two ids (P1)."""
    book = Book(members=3)
    book.put(retries=1, retry_on="other")
    for execution in book.launch(1, targets=(1, 2)).opened:
        book.end(execution, success=False)
    opened = [one for row in book.owed for one in book.launch_owed(row.key, targets=(3,)).opened]
    assert [(one.agent, one.attempt) for one in opened] == [("agent3", 2), ("agent3", 2)]
    assert len({one.id for one in book.disk.executions()}) == 4
    assert len({one.run_id for one in book.disk.executions()}) == 1


def test_a_retry_that_moved_and_stays_is_not_taken_for_one_that_never_moved() -> None:
    """The first agent's second attempt moves to the second agent, which repeats its own there: the third attempts of
    both are made on one agent, and are two executions (P1)."""
    book = Book(members=2)
    book.put(retries=2)
    for execution in book.launch(1, targets=(1, 2)).opened:
        book.end(execution, success=False)
    for _ in range(2):
        opened = [one for row in book.owed for one in book.launch_owed(row.key, targets=(2,)).opened]
        assert [one.agent for one in opened] == ["agent2", "agent2"]
        for execution in opened:
            book.end(execution, success=False)
    assert len({one.id for one in book.disk.executions()}) == 6
    assert book.state.open == {}


def test_a_timeout_is_tried_again() -> None:
    """It is a failure."""
    book = Book()
    book.put(retries=5)
    book.end(book.launch(1).opened[0], "timeout", success=False)
    assert len(book.state.owed) == 1


def test_what_somebody_asked_to_stop_is_not_tried_again() -> None:
    """It failed by itself before the kill reached it."""
    book = Book()
    book.put(retries=5)
    execution = book.launch(1).opened[0]
    book.apply(entries.StopEntry((execution.id,), (), kill=True))
    book.end(execution, success=False)
    assert book.state.owed == {}
    assert counters(book) == (0, 1, "failed")


def test_a_lost_run_runs_again_where_the_job_says_so() -> None:
    """But not for ever: it may be what kills its agent."""
    book = Book()
    book.put(on_lost="rerun")
    book.end(book.launch(1).opened[0], "lost")
    lost = 1
    while book.owed:
        (row,) = book.owed
        assert row.due_cluster_us == second(50)
        book.end(book.launch_owed(row.key).opened[0], "lost")
        lost += 1
    assert lost == RERUNS_MAX + 1
    assert counters(book) == (0, 1, "lost")


# ---- results that come after all


def test_a_late_result_turns_lost_into_the_truth(book: Book) -> None:
    """Visibly, and counted as what it was (PROTOCOL 6)."""
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    assert book.records == [(1, "lost", "")]
    assert counters(book) == (0, 1, "lost")
    book.end(execution, success=True, at=90)
    assert book.records == [(1, "success", "was lost: ")]
    assert counters(book) == (1, 0, "success")
    (one,) = book.disk.executions()
    assert (one.exit_code, one.finished_wall_us) == (0, second(90))


def test_the_truth_may_be_a_failure(book: Book) -> None:
    """Its own reason stands first; nothing runs after it: that was decided when it was lost."""
    book.put(retries=5)
    book.put("child", parent_jobs=("job",), when="always")
    execution = book.launch(1).opened[0]
    book.apply(entries.Results(second(5), (ResultItem(execution_id=execution.id, kind="lost", reason="gone"),)))
    owed = book.owed
    failed = ResultItem(execution_id=execution.id, kind="ended", reason="exit code 3", success=False)
    book.apply(entries.Results(second(9), (failed,)))
    assert book.records == [(1, "failed", "exit code 3; was lost: gone")]
    assert counters(book) == (0, 1, "failed")
    assert book.owed == owed


def test_the_truth_comes_once(book: Book) -> None:
    """A second copy of the result, and a second `lost`, change nothing."""
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    book.end(execution, "lost")
    book.end(execution, success=True)
    book.end(execution, success=False)
    assert [status for _, status, _ in book.records] == ["success"]
    assert counters(book) == (1, 0, "success")


@pytest.mark.parametrize("between", ["rerun", "clear"])
def test_the_truth_takes_back_only_what_was_counted(between: str) -> None:
    """A loss that was run again is no error, and a cleared history forgets it."""
    book = Book()
    book.put(on_lost="rerun" if between == "rerun" else "lost")
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    if between == "clear":
        book.apply(entries.Prune(book.uid(), 0, clear=True))
    book.end(execution, success=True)
    assert book.state.jobs[book.uid()].error_count == 0


def test_the_truth_takes_back_a_rerun_that_never_came() -> None:
    """Its agent was down: the run counted as failed, and its only attempt turns out to be a success."""
    book = Book()
    book.put(on_lost="rerun")
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    (rerun,) = book.owed
    book.launch_owed(rerun.key, targets=(), reason="agent down")
    assert counters(book) == (0, 1, "failed")
    book.end(execution, success=True, at=90)
    assert counters(book) == (1, 0, "success")


def test_a_rerun_that_is_skipped_by_a_stop_counts_the_same() -> None:
    """What a person stopped while it waited, as well."""
    book = Book()
    book.put(on_lost="rerun")
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    book.apply(entries.StopEntry((), (execution.run_id,), kill=True))
    assert counters(book) == (0, 1, "failed")
    book.end(execution, success=True, at=90)
    assert counters(book) == (1, 0, "success")


def test_a_success_cancels_the_rerun_that_waits() -> None:
    """Its fate is known before it was run again: counted, and its children follow."""
    book = Book()
    book.put(on_lost="rerun")
    book.put("child", parent_jobs=("job",))
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    assert [row.kind for row in book.owed] == ["retry"]
    assert book.end(execution, success=True, at=90).touched >= {book.uid()}
    assert [row.kind for row in book.owed] == ["child"]
    assert counters(book) == (1, 0, "success")


def test_a_failure_leaves_the_rerun_that_waits() -> None:
    """That it runs again was decided when it was lost."""
    book = Book()
    book.put(on_lost="rerun")
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    book.end(execution, success=False, at=90)
    (rerun,) = book.owed
    book.end(book.launch_owed(rerun.key).opened[0], at=95)
    assert counters(book) == (1, 0, "success")


def test_the_truth_about_an_old_run_is_not_the_last_word(book: Book) -> None:
    """A later run has failed since: that is what the job shows, and its last success is not set back."""
    old = book.launch(1).opened[0]
    book.end(old, "lost")
    book.end(book.launch(2).opened[0], at=70)
    book.end(book.launch(3).opened[0], success=False, at=80)
    book.end(old, success=True, at=60)
    assert counters(book) == (2, 1, "failed")
    job = book.state.jobs[book.uid()]
    assert (job.last_success_wall_us, job.last_error_wall_us) == (second(70), second(80))


def test_the_truth_about_a_deleted_job_is_nothing(book: Book) -> None:
    """There is no record left that it could change."""
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    book.apply(entries.JobDelete(book.uid(), book.uid()))
    book.end(execution, success=True)
    assert book.records == []


def test_what_may_still_come_keeps_no_job_busy() -> None:
    """A lost run does not wedge a job that forbids overlap; it cannot be stopped either."""
    book = Book()
    book.put(concurrency="forbid")
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    assert len(book.launch(2).opened) == 1
    stop = entries.StopEntry((), (execution.run_id,), kill=True, call="x")
    assert isinstance(book.apply(stop).outcome, UnknownExecution)


# ---- Stop


def test_a_stop_asks_the_agent_and_waits_for_its_word(book: Book) -> None:
    """The execution stays open; the answer names what was."""
    execution = book.launch(1).opened[0]
    applied = book.apply(entries.StopEntry((execution.id,), (execution.run_id,), kill=True, call="x"))
    assert applied.outcome == StopAnswer(execution.run_id, (execution.public_id,))
    assert [(one.id, one.stop) for one in applied.stopping] == [(execution.id, "kill")]
    assert book.records == [(1, "armed", "")]


@pytest.mark.parametrize(
    ("asked", "stop"), [((True, False), "kill"), ((False, True), "kill"), ((False, False), "leave")]
)
def test_a_kill_outranks_a_stop(book: Book, asked: tuple[bool, bool], stop: str) -> None:
    """In whatever order they come."""
    execution = book.launch(1).opened[0]
    for kill in asked:
        book.apply(entries.StopEntry((execution.id,), (), kill=kill))
    assert [one.stop for one in book.state.open.values()] == [stop]


def test_stopping_a_run_ends_its_retry(book: Book) -> None:
    """What is owed becomes skipped, with the attempt that will not come."""
    book.put(retries=3)
    first = book.launch(1).opened[0]
    book.end(first, success=False)
    applied = book.apply(entries.StopEntry((), (first.run_id,), kill=True, call="x"))
    assert applied.outcome == StopAnswer(first.run_id, ())
    assert book.state.owed == {}
    assert [(one.attempt, one.status, one.reason) for one in book.disk.executions()] == [
        (1, Status.FAILED, ""),
        (2, Status.SKIPPED, "stopped"),
    ]


def test_stopping_one_execution_leaves_the_others_their_retries() -> None:
    """Those of its own run are other agents' attempts. Its own goes."""
    book = Book(members=2)
    book.put(retries=3)
    first, second = book.launch(1, targets=(1, 2)).opened
    for one in (first, second):
        book.end(one, success=False)
    assert sorted(book.state.owed) == sorted(f"retry|{one.id}" for one in (first, second))
    applied = book.apply(entries.StopEntry((first.id,), (), kill=True, call="x"))
    assert applied.outcome == StopAnswer(first.run_id, ())
    assert list(book.state.owed) == [f"retry|{second.id}"]
    assert isinstance(book.apply(entries.StopEntry((first.id,), (), kill=True, call="y")).outcome, UnknownExecution)


def test_stopping_what_is_over_is_told_to_the_caller(book: Book) -> None:
    """It ended on the way; a stop of the leader's own (replace) just finds nothing."""
    execution = book.launch(1).opened[0]
    book.end(execution)
    asked = entries.StopEntry((execution.id,), (execution.run_id,), kill=True, call="x")
    assert isinstance(book.apply(asked).outcome, UnknownExecution)
    assert book.apply(replace(asked, call="")).stopping == []
    assert book.records == [(1, "success", "")]
