"""Executions over HTTP."""

from __future__ import annotations

import asyncio
from http.client import IncompleteRead

import pytest

from meshcron.api import executions
from meshcron.api.executions import OUTPUT_SHOWN_MAX
from meshcron.api.handler import LIST_SLICE
from meshcron.commands import StopRun
from meshcron.errors import NoLeader, UnknownExecution
from meshcron.model import SECOND_US, Execution, Status
from meshcron.runtime.elsewhere import OUTPUT_BYTES_MAX
from meshcron.service import OutputChunk, Told
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import NODE_ID, NOW_US, SECRETS, FakeCluster
from tests.unit.api.conftest import SETTINGS, Serve


@pytest.fixture
def history(cluster: FakeCluster) -> list[str]:
    """Five executions of job a, between two of b; the public ids of a's, oldest first."""
    cluster.add_job("a")
    cluster.add_job("b")
    cluster.add_execution("b")
    ids = [cluster.add_execution("a", Status.SUCCESS if n % 2 else Status.FAILED).public_id for n in range(5)]
    cluster.add_execution("b", Status.RUNNING, agent="agent2")
    return ids


@pytest.mark.parametrize("slash", ["", "/"])
def test_order(admin: Client, history: list[str], slash: str) -> None:
    """The reference's place shows the oldest first, the later dialect's the newest."""
    old = admin("GET", f"/v1/executions/a{slash}")
    new = admin("GET", f"/v1/jobs/a/executions{slash}")
    assert [each["id"] for each in old.json] == history
    assert [each["id"] for each in new.json] == history[::-1]
    assert old.headers["X-Total-Count"] == new.headers["X-Total-Count"] == "5"


def test_none_yet(admin: Client, cluster: FakeCluster) -> None:
    """A job that never ran has []."""
    cluster.add_job("a")
    assert (admin("GET", "/v1/executions/a").json, admin("GET", "/v1/jobs/a/executions").json) == ([], [])


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("_start=1&_end=3", [1, 2]),
        ("_start=4&_end=99", [4]),
        ("_start=9", []),
        ("_end=0", []),
        ("_order=DESC", [4, 3, 2, 1, 0]),
        ("_sort=started_at&_order=DESC&_end=2", [4, 3]),
        ("_sort=id", [0, 1, 2, 3, 4]),
        ("_sort=status&_order=ASC", [0, 2, 4, 1, 3]),
        ("_sort=success&_order=DESC&_end=2", [3, 1]),
    ],
)
def test_page(admin: Client, history: list[str], query: str, wanted: list[int]) -> None:
    """Paged and sorted (API.md, point 7)."""
    answer = admin("GET", f"/v1/executions/a?{query}")
    assert [each["id"] for each in answer.json] == [history[at] for at in wanted]
    assert answer.headers["X-Total-Count"] == "5"


def test_numbers_sort_as_numbers(admin: Client, cluster: FakeCluster) -> None:
    """Nine milliseconds are less than ten."""
    cluster.add_job("a")
    for milliseconds in (10, 9, 100):
        cluster.add_execution("a", started_wall_us=NOW_US, finished_wall_us=NOW_US + milliseconds * 1000)
    answer = admin("GET", "/v1/executions/a?_sort=duration_ms")
    assert [each["duration_ms"] for each in answer.json] == [9, 10, 100]


def test_long_history(admin: Client, cluster: FakeCluster) -> None:
    """More than a slice is read page by page and comes whole; sorted by another column there is a limit."""
    cluster.add_job("a")
    for _ in range(2 * LIST_SLICE + 1):
        cluster.add_execution("a")
    assert len(admin("GET", "/v1/executions/a").json) == 2 * LIST_SLICE + 1
    assert len(admin("GET", f"/v1/executions/a?_start=1&_end={LIST_SLICE + 6}").json) == LIST_SLICE + 5
    for _ in range(1000):
        cluster.add_execution("a")
    answer = admin("GET", "/v1/executions/a?_sort=status")
    assert (answer.status, answer.error["field"]) == (400, "_sort")


def test_a_list_that_breaks_in_the_middle_looks_broken(
    admin: Client, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is deleted while its history is sent: half a list has no proper end."""
    cluster.add_job("a")
    for _ in range(2 * LIST_SLICE + 1):
        cluster.add_execution("a")
    read = cluster.executions

    def read_and_delete(uid: int, *, newest_first: bool, offset: int, limit: int) -> list[Execution]:
        if offset:
            del cluster.views["a"]
        return read(uid, newest_first=newest_first, offset=offset, limit=limit)

    monkeypatch.setattr(cluster, "executions", read_and_delete)
    with pytest.raises(IncompleteRead):
        admin("GET", "/v1/executions/a")


def test_output_size_limit(admin: Client, cluster: FakeCluster) -> None:
    """The last bytes, on a character boundary, and said so."""
    cluster.add_job("a")
    cluster.add_execution("a", output_tail="größe", output_bytes=7)
    for path in ("/v1/executions/a", "/v1/jobs/a/executions", "/v1/history"):
        [shown] = admin("GET", f"{path}?output_size_limit=2").json
        assert (shown["output"], shown["output_truncated"]) == ("e", True)
    assert admin("GET", "/v1/executions/a?output_size_limit=-1").error["field"] == "output_size_limit"


@pytest.mark.parametrize("place", ["jobs/a/executions", "executions/a"])
def test_one(admin: Client, cluster: FakeCluster, history: list[str], place: str) -> None:
    """At both places; of another job or unknown: 404."""
    assert admin("GET", f"/v1/{place}/{history[2]}").json["id"] == history[2]
    for unknown in ("1-x", cluster.rows[0].public_id, "%00"):
        assert admin("GET", f"/v1/{place}/{unknown}").error["code"] == "unknown_execution"


def test_one_shows_all_its_output(admin: Client, cluster: FakeCluster) -> None:
    """The agent that holds the whole output adds what the record's tail leaves out."""
    cluster.add_job("a")
    kept = cluster.add_execution("a", output_tail="z" * 4096, output_bytes=10_000)
    cluster.outputs[kept.id] = b"a" * 5904 + b"z" * 4096
    gone = cluster.add_execution("a", output_tail="z" * 4096, output_bytes=10_000)
    shown = admin("GET", f"/v1/executions/a/{kept.public_id}").json
    assert (shown["output"], shown["output_truncated"]) == ("a" * 5904 + "z" * 4096, False)
    shown = admin("GET", f"/v1/executions/a/{gone.public_id}").json
    assert (shown["output"], shown["output_truncated"]) == ("z" * 4096, True)


class AnotherAgent:
    """Has run an execution, and shows up to `shows` bytes of what it wrote; then it does not answer, or says so."""

    def __init__(self, wrote: bytes, shows: int, *, mute: bool = False) -> None:
        self.wrote = wrote
        self.shows = shows
        self.mute = mute

    def knows_tokens(self) -> bool:
        return True

    def where(self) -> str:
        return "node-2"

    async def ask(self, to: str, method: str, uri: str, headers: dict[str, str], body: bytes) -> Told | None:
        raise AssertionError("nothing is passed on")

    def ran_here(self, execution: Execution) -> bool:
        return execution.node_id == NODE_ID

    async def output(self, execution: Execution, offset: int, most: int) -> OutputChunk:
        if offset >= self.shows:
            if self.mute:
                await asyncio.Event().wait()
            raise NoLeader("the agent that ran it cannot show its output at the moment; try again")
        data = self.wrote[offset : offset + min(most, OUTPUT_BYTES_MAX)]
        return OutputChunk(data, offset + len(data), offset + len(data) == len(self.wrote))


@pytest.mark.parametrize(
    ("wrote", "shows", "mute", "whole"),
    [
        (b"a" * 600_000, 600_000, False, True),
        (b"a" * OUTPUT_SHOWN_MAX, OUTPUT_SHOWN_MAX, False, True),
        (b"a" * (OUTPUT_SHOWN_MAX + 1), OUTPUT_SHOWN_MAX + 1, False, False),
        (b"a" * 600_000, 0, False, False),
        (b"a" * 600_000, OUTPUT_BYTES_MAX, False, False),
        (b"a" * 600_000, OUTPUT_BYTES_MAX, True, False),
    ],
    ids=["whole", "just", "too large", "gone", "gone in the middle", "mute in the middle"],
)
def test_one_shows_the_output_that_lies_on_another_machine(
    start: Serve,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    wrote: bytes,
    shows: int,
    mute: bool,
    whole: bool,
) -> None:
    """Piece by piece; the record's tail where that does not work out."""
    monkeypatch.setattr(executions, "OUTPUT_SECONDS", 0.2 if mute else 10.0)
    cluster.add_job("a")
    ran = cluster.add_execution("a", node_id="node-2", output_tail="z" * 4096, output_bytes=len(wrote))
    client = Client(start(SETTINGS, AnotherAgent(wrote, shows, mute=mute)), SECRETS["admin"])
    shown = client("GET", f"/v1/executions/a/{ran.public_id}").json
    assert (shown["output"], shown["output_truncated"]) == (wrote.decode() if whole else "z" * 4096, not whole)


@pytest.mark.parametrize("path", ["/v1/executions/a", "/v1/jobs/a/executions/"])
def test_clear(admin: Client, cluster: FakeCluster, history: list[str], path: str) -> None:
    """Exactly this job's past is forgotten; the answer is the job."""
    answer = admin("DELETE", path)
    assert (answer.status, answer.json["name"]) == (200, "a")
    assert admin("GET", "/v1/executions/a").json == []
    assert len(admin("GET", "/v1/executions/b").json) == 2


@pytest.mark.parametrize("place", ["jobs/b/executions", "executions/b"])
def test_kill(admin: Client, cluster: FakeCluster, history: list[str], place: str) -> None:
    """One execution and no other; the answer names it."""
    running = cluster.rows[-1]
    answer = admin("POST", f"/v1/{place}/{running.public_id}/kill")
    assert answer.json == {"run_id": running.run_id, "executions": [running.public_id]}
    command, _ = cluster.commands[0]
    assert isinstance(command, StopRun)
    assert (command.execution_id, command.actor) == (running.id, "admin@127.0.0.1")
    assert admin("POST", f"/v1/{place}/none/kill").status == 404


def test_kill_of_what_has_ended(admin: Client, cluster: FakeCluster, history: list[str]) -> None:
    """It is on record, so it is not unknown; and it is called what the caller calls it."""
    cluster.fails = UnknownExecution(cluster.rows[1].id)
    answer = admin("POST", f"/v1/executions/a/{history[0]}/kill")
    said = f"the execution {history[0]!r} has ended"
    assert (answer.status, answer.error["code"], answer.error["message"]) == (409, "conflict", said)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("", [6, 5, 4, 3, 2, 1, 0]),
        ("job=a", [5, 4, 3, 2, 1]),
        ("job=a&status=failed", [5, 3, 1]),
        ("agent=agent2", [6]),
        ("status=running", [6]),
        ("since=2030-01-01T00:01:48Z", [6]),
        ("until=2030-01-01T00:01:44Z", [1, 0]),
        ("_start=1&_end=3", [5, 4]),
        ("_end=2", [6, 5]),
        ("_sort=started_at&_order=DESC&_end=2", [6, 5]),
        ("job=&agent=&status=", [6, 5, 4, 3, 2, 1, 0]),
    ],
)
def test_history(admin: Client, cluster: FakeCluster, history: list[str], query: str, rows: list[int]) -> None:
    """All jobs, newest first, filtered by job, agent, status, time."""
    answer = admin("GET", f"/v1/history?{query}")
    assert [each["id"] for each in answer.json] == [cluster.rows[at].public_id for at in rows]
    assert {each["job_name"] for each in answer.json} <= {"a", "b"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=good", "status"),
        ("since=yesterday", "since"),
        ("until=1", "until"),
        ("job=a%2Fb", "job"),
        ("agent=%0A", "agent"),
        ("_end=x", "_end"),
        ("_sort=nonsense", "_sort"),
        ("_sort=status", "_sort"),
        ("_order=ASC", "_order"),
    ],
)
def test_bad_history(admin: Client, query: str, field: str) -> None:
    """A bad value is named."""
    answer = admin("GET", f"/v1/history?{query}")
    assert (answer.status, answer.error["field"]) == (400, field)


def test_history_is_bounded(admin: Client, cluster: FakeCluster) -> None:
    """A hundred unless asked for more, and never more than a thousand."""
    cluster.add_job("a")
    for _ in range(1100):
        cluster.add_execution("a")
    assert len(admin("GET", "/v1/history").json) == 100
    assert len(admin("GET", "/v1/history?_start=0&_end=5000").json) == 1000


def test_waiting_is_said_everywhere(admin: Client, cluster: FakeCluster) -> None:
    """An armed execution that cannot start shows as waiting, with the reason, wherever it is shown; both words find
    their own."""
    cluster.add_job("a")
    ahead = cluster.add_execution("a", Status.ARMED, started_wall_us=0)
    waits = cluster.add_execution("a", Status.ARMED, started_wall_us=0)
    cluster.add_execution("a", Status.RUNNING)
    cluster.waiting[waits.id] = "all 64 slots of agent1 are in use"
    one = admin("GET", f"/v1/executions/a/{waits.public_id}").json
    assert (one["status"], one["reason"]) == ("waiting", "all 64 slots of agent1 are in use")
    for path in ("/v1/executions/a", "/v1/history?_order=DESC", f"/v1/runs/{waits.run_id}"):
        assert "waiting" in [each["status"] for each in admin("GET", path).json]
    for word, wanted in (("waiting", waits), ("armed", ahead)):
        [found] = admin("GET", f"/v1/history?status={word}").json
        assert (found["id"], found["status"]) == (wanted.public_id, word)
    assert admin("GET", "/v1/history?status=waiting&_start=1").json == []


def test_waiting_is_found_among_many(admin: Client, cluster: FakeCluster) -> None:
    """Ten thousand may be armed ahead of those that wait: they are looked through, page by page."""
    cluster.add_job("a")
    waiting = [cluster.add_execution("a", Status.ARMED, started_wall_us=0) for _ in range(5)]
    cluster.waiting = {each.id: "all slots are in use" for each in waiting}
    for _ in range(3 * LIST_SLICE):
        cluster.add_execution("a", Status.ARMED, started_wall_us=0)
    found = admin("GET", "/v1/history?status=waiting&_start=1&_end=4").json
    assert [each["id"] for each in found] == [waiting[at].public_id for at in (3, 2, 1)]
    assert len(admin("GET", f"/v1/history?status=armed&_start=0&_end={LIST_SLICE + 5}").json) == LIST_SLICE + 5


def test_busy(admin: Client, cluster: FakeCluster, history: list[str]) -> None:
    """What runs now, oldest first."""
    second = cluster.add_execution("a", Status.RUNNING, started_wall_us=NOW_US + 999 * SECOND_US)
    answer = admin("GET", "/v1/busy")
    assert [each["id"] for each in answer.json] == [cluster.rows[-2].public_id, second.public_id]
    assert answer.headers["X-Total-Count"] == "2"
    newest = admin("GET", "/v1/busy?_order=DESC&_end=1")
    assert [each["id"] for each in newest.json] == [second.public_id]
    assert newest.headers["X-Total-Count"] == "2"
    assert admin("GET", "/v1/busy?_sort=nonsense").error["field"] == "_sort"
