"""Runs over HTTP: start, wait, look, kill."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from meshcron import entries
from meshcron.api.runs import VIA_WAIT_SECONDS
from meshcron.commands import RunJob
from meshcron.model import Execution, Status
from meshcron.rows import OwedRow
from meshcron.service import VIA_HEADER, Service
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS, FakeCluster
from tests.unit.api.conftest import SETTINGS, Serve
from tests.unit.core.book import Book

ADDED: list[dict[str, object] | None] = [None, {}, {"env": {}}, {"env": {"A": "1", "B": 2}}]


@pytest.mark.parametrize("path", ["/v1/jobs/a", "/v1/jobs/a/run"])
@pytest.mark.parametrize("body", ADDED)
def test_run(admin: Client, cluster: FakeCluster, path: str, body: Any) -> None:
    """200 with the job at once, the run's id in a header; parameters reach the command."""
    cluster.add_job("a")
    answer = admin("POST", path, body)
    assert (answer.status, answer.json["name"]) == (200, "a")
    assert answer.headers["X-Meshcron-Run"] == cluster.rows[0].run_id
    command, _ = cluster.commands[0]
    assert isinstance(command, RunJob)
    assert command.env == ({"A": "1", "B": "2"} if body and body.get("env") else None)


@pytest.mark.parametrize(
    ("body", "field"),
    [({"env": 1}, "env"), ({"env": {"a b": 1}}, "env.a b"), ({"env": {"MESHCRON_RUN": 1}}, "env.MESHCRON_RUN")],
)
def test_bad_parameters(admin: Client, cluster: FakeCluster, body: object, field: str) -> None:
    """They are variables of the environment, and ours are not for sale."""
    cluster.add_job("a")
    answer = admin("POST", "/v1/jobs/a", body)
    assert (answer.status, answer.error["field"]) == (400, field)
    assert not cluster.commands


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "PATH", "BASH_ENV", "PYTHONPATH", "GIT_SSH_COMMAND", "SHELLOPTS", "HOME", "XDG_CONFIG_HOME"),
        *(
            "LUA_INIT",
            "CLASSPATH",
            "_JAVA_OPTIONS",
            "GCONV_PATH",
            "PHPRC",
            "PHP_INI_SCAN_DIR",
            "OPENSSL_CONF",
            "TCLLIBPATH",
        ),
        *("CDPATH", "FPATH", "SHELL", "TAR_OPTIONS", "MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "RSYNC_RSH", "BORG_RSH"),
        *("RSYNC_CONNECT_PROG", "SVN_SSH", "BORG_PASSCOMMAND", "RESTIC_PASSWORD_COMMAND", "RCLONE_CONFIG_X_SSH"),
        *("EDITOR", "SUDO_EDITOR", "VISUAL", "PAGER", "MANPAGER", "LESSOPEN", "LESSCLOSE", "SSH_ASKPASS"),
    ],
)
def test_operator_stays_an_operator(admin: Client, cluster: FakeCluster, name: str) -> None:
    """Variables that change which code runs are for editors, who could edit the command anyway."""
    cluster.add_job("a")
    body = {"env": {"HARMLESS": "1", name: "/tmp/x"}}
    answer = Client(admin.port, SECRETS["operator"])("POST", "/v1/jobs/a", body)
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert Client(admin.port, SECRETS["operator"])("POST", "/v1/jobs/a", {"env": {"MY_PATH": "/x"}}).status == 200
    assert Client(admin.port, SECRETS["editor"])("POST", "/v1/jobs/a", body).status == 200


@contextmanager
def once_waited_for(cluster: FakeCluster, act: Callable[[], object]) -> Iterator[None]:
    """Does something once somebody has looked twice at a run: whoever waits for it has a deadline by then. Fails where
    the answer, with which the block ends, has not waited for that."""
    begun, answered = threading.Event(), threading.Event()

    def watch() -> None:
        while cluster.looks < 2:
            if answered.wait(0.001):
                return
        begun.set()
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
        assert begun.is_set(), "nobody waited"
    finally:
        answered.set()
        thread.join()


def test_wait(admin: Client, cluster: FakeCluster) -> None:
    """With ?wait the answer comes when the run has ended, and shows the job as it then is."""
    cluster.add_job("a")
    cluster.runs_end = False
    with once_waited_for(cluster, lambda: cluster.end(cluster.rows[0].id)):
        answer = admin("POST", "/v1/jobs/a?wait=10")
        assert cluster.rows[0].status is Status.SUCCESS
    assert (answer.status, answer.headers["X-Meshcron-Run"]) == (200, cluster.rows[0].run_id)


@pytest.mark.parametrize("disk_lags", [False, True])
def test_wait_in_vain(admin: Client, cluster: FakeCluster, disk_lags: bool) -> None:
    """The time is up and it still runs, or its end cannot be shown yet: 200 with the job, which says so."""
    cluster.add_job("a")
    cluster.runs_end = disk_lags
    cluster.disk_lags = disk_lags

    def pass_time() -> None:
        cluster.monotonic_seconds += 100

    with once_waited_for(cluster, pass_time):
        answer = admin("POST", "/v1/jobs/a?wait=50")
    assert (answer.status, answer.headers["X-Meshcron-Run"]) == (200, cluster.rows[0].run_id)


def test_wait_through_another_agent(start: Serve, cluster: FakeCluster) -> None:
    """That one would give up and call the outcome unknown: it hears of the run in time, ended or not."""
    admin = Client(start(msgspec.structs.replace(SETTINGS, passing_secret="ours")), SECRETS["admin"])
    cluster.add_job("a")
    cluster.runs_end = False

    def pass_time() -> None:
        cluster.monotonic_seconds += VIA_WAIT_SECONDS

    with once_waited_for(cluster, pass_time):
        answer = admin("POST", "/v1/jobs/a?wait=50", headers={VIA_HEADER: "ours node-2"})
    assert (answer.status, answer.headers["X-Meshcron-Run"]) == (200, cluster.rows[0].run_id)


@pytest.mark.parametrize("wait", ["soon", "-1", "", "1e9", "nan", "inf", "3601", "%D9%A3"])
def test_bad_wait(admin: Client, cluster: FakeCluster, wait: str) -> None:
    """Refused before the run is started."""
    cluster.add_job("a")
    answer = admin("POST", f"/v1/jobs/a?wait={wait}")
    assert (answer.status, answer.error["field"]) == (400, "wait")
    assert not cluster.commands


def test_who_waits_and_goes_away(admin: Client, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the run any more soon after the client has hung up."""
    cluster.add_job("a")
    cluster.runs_end = False
    looks: list[float] = []

    def watched(_: FakeCluster) -> Mapping[str, Collection[str]]:
        looks.append(time.monotonic())
        return {cluster.rows[0].run_id: {"x"}}

    monkeypatch.setattr(FakeCluster, "run_open", property(watched))
    request = f"POST /v1/jobs/a?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {admin.token}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", admin.port), timeout=5) as connection:
        connection.sendall(request.encode())
        deadline = time.monotonic() + 10
        while len(looks) < 2:
            assert time.monotonic() < deadline, "nobody waits for the run"
            time.sleep(0.01)
    gone = time.monotonic()
    admin("GET", "/v1/jobs")
    deadline = gone + 3
    while time.monotonic() < deadline and time.monotonic() - looks[-1] < 1.0:
        time.sleep(0.05)
    assert looks[-1] < gone + 1.0


Story = Callable[[Book], str]
"""What happens to a job on one agent or two; answers the run that is asked about."""


def fail(book: Book) -> Execution:
    """The first attempt of the tick has failed on agent 1."""
    execution = book.launch(1).opened[0]
    book.end(execution, success=False)
    return execution


def failed_for_good(book: Book) -> str:
    book.put(retries=0)
    return fail(book).run_id


def owes_a_retry(book: Book) -> str:
    book.put(retries=1)
    return fail(book).run_id


def retry_runs(book: Book) -> str:
    run_id = owes_a_retry(book)
    book.launch_owed(book.owed[0].key)
    return run_id


def retry_was_stopped(book: Book) -> str:
    run_id = owes_a_retry(book)
    book.apply(entries.StopEntry((), (run_id,), kill=True))
    return run_id


def disabled(book: Book) -> str:
    book.put(retries=3, disabled=True)
    return fail(book).run_id


def retry_moved(book: Book) -> str:
    book.put(retries=1, retry_on="other")
    run_id = fail(book).run_id
    book.end(book.launch_owed(book.owed[0].key, targets=(2,)).opened[0])
    return run_id


def lost(book: Book, **fields: Any) -> str:
    book.put(**fields)
    execution = book.launch(1).opened[0]
    book.end(execution, "lost")
    return execution.run_id


def queued(book: Book) -> str:
    book.put(concurrency="queue")
    book.launch(1)
    book.queue(2, moves=False)
    return book.owed[0].run_id


def one_of_two_runs(book: Book) -> str:
    book.put()
    one, _ = book.launch(1, targets=(1, 2)).opened
    book.end(one)
    return one.run_id


@pytest.mark.parametrize(
    ("story", "goes_on"),
    [
        (failed_for_good, False),
        (owes_a_retry, True),
        (retry_runs, True),
        (retry_was_stopped, False),
        (disabled, False),
        (retry_moved, False),
        (lost, False),
        (lambda book: lost(book, on_lost="rerun"), True),
        (queued, True),
        (one_of_two_runs, True),
    ],
)
def test_the_end_of_a_run(story: Story, goes_on: bool) -> None:
    """It goes on while the catalog holds something of it that is open or owed; no guess from its records."""
    book, cluster = Book(members=2), FakeCluster()
    run_id = story(book)
    service = Service(
        propose=cluster.propose,
        catalog=book.state,
        tables=cluster,
        cluster=cluster,
        read_output=cluster.read_output,
    )
    assert service.run_goes_on(run_id) is goes_on
    assert service.index() == book.index


def owe(cluster: FakeCluster, kind: Any, run_id: str) -> None:
    """Another attempt of a run, or the run itself, is still to be decided."""
    cluster.owed[kind] = OwedRow(kind, cluster.views["a"].uid, kind, run_id, 1, kind, 0, 0, "", "")


def test_wait_sees_a_stopped_retry(admin: Client, cluster: FakeCluster) -> None:
    """Between two attempts somebody stops the run: who waits is answered, though the job has retries left."""
    cluster.add_job("a", retries=5)
    cluster.runs_end = False

    def stop() -> None:
        run_id = cluster.rows[0].run_id
        owe(cluster, "retry", run_id)
        cluster.end(cluster.rows[0].id, Status.FAILED)
        cluster.add_execution("a", Status.SKIPPED, run_id=run_id, attempt=2, node_id="", agent="")
        cluster.owed.clear()

    with once_waited_for(cluster, stop):
        answer = admin("POST", "/v1/jobs/a?wait=10")
    assert (answer.status, answer.headers["X-Meshcron-Run"]) == (200, cluster.rows[0].run_id)


def test_wait_for_a_job_that_goes_with_its_success(admin: Client, cluster: FakeCluster) -> None:
    """An ephemeral job is gone when its run is over: the answer shows it as it was, at once."""
    cluster.add_job("a", ephemeral=True)
    propose = cluster.propose

    async def gone(command: Any, key: str) -> object:
        answer = await propose(command, key)
        del cluster.views["a"]
        cluster.rows.clear()
        return answer

    cluster.propose = gone  # type: ignore[method-assign]
    began = time.monotonic()
    answer = admin("POST", "/v1/jobs/a?wait=10")
    assert (answer.status, answer.json["name"]) == (200, "a")
    assert time.monotonic() - began < 5


def test_one_run_says_whether_it_is_over(admin: Client, cluster: FakeCluster) -> None:
    """Nothing in its turn yet, running, between two attempts, over."""
    cluster.add_job("a")
    owe(cluster, "queued", "r")
    answer = admin("GET", "/v1/runs/r")
    assert (answer.status, answer.json, answer.headers["X-Meshcron-Over"]) == (200, [], "false")
    running = cluster.add_execution("a", Status.RUNNING, run_id="r")
    cluster.owed.clear()
    assert admin("GET", "/v1/runs/r").headers["X-Meshcron-Over"] == "false"
    owe(cluster, "retry", "r")
    cluster.end(running.id, Status.FAILED)
    assert admin("GET", "/v1/runs/r").headers["X-Meshcron-Over"] == "false"
    cluster.owed.clear()
    assert admin("GET", "/v1/runs/r").headers["X-Meshcron-Over"] == "true"


def test_a_run_is_over_once_the_disk_says_so(admin: Client, cluster: FakeCluster) -> None:
    """The end is known in memory a write before it can be shown: the answer waits for it."""
    cluster.add_job("a")
    ended = cluster.add_execution("a", run_id="r")
    late = cluster.rows.pop()
    cluster.rows.append(msgspec.structs.replace(late, status=Status.FAILED, id="first"))
    cluster.disk_lags = 1

    def written() -> None:
        cluster.rows.append(ended)
        cluster.disk_lags = 0

    with once_waited_for(cluster, written):
        answer = admin("GET", "/v1/runs/r")
    assert answer.headers["X-Meshcron-Over"] == "true"
    assert [each["status"] for each in answer.json] == ["failed", "success"]


def test_open_runs(admin: Client, cluster: FakeCluster) -> None:
    """What runs, and what waits for its turn or another attempt; of exactly this job, and nothing that is over."""
    cluster.add_job("b")
    cluster.add_execution("b", Status.RUNNING)
    cluster.add_job("a")
    cluster.add_execution("a", Status.FAILED, run_id="r3")
    some = [cluster.add_execution("a", status, run_id="r2") for status in (Status.RUNNING, Status.ARMED)]
    one = cluster.add_execution("a", Status.RUNNING, run_id="r1")
    for kind, run_id in {"retry": "r3", "queued": "r0", "late": "r5", "join": ""}.items():
        owe(cluster, kind, run_id)
    answer = admin("GET", "/v1/jobs/a/runs")
    assert answer.json == [
        {"run_id": "r2", "executions": [each.public_id for each in some]},
        {"run_id": "r1", "executions": [one.public_id]},
        {"run_id": "r0", "executions": []},
        {"run_id": "r3", "executions": []},
    ]
    assert answer.headers["X-Total-Count"] == "4"
    assert admin("GET", "/v1/jobs/a/runs?_start=1&_end=2").json == answer.json[1:2]
    assert admin("GET", "/v1/jobs/none/runs").error["code"] == "unknown_job"


def test_one_run(admin: Client, cluster: FakeCluster) -> None:
    """Every attempt of it, as the lists of executions show them."""
    cluster.add_job("a")
    first = cluster.add_execution("a", Status.FAILED)
    cluster.rows.append(msgspec.structs.replace(first, id="y", index=999, attempt=2, status=Status.SUCCESS))
    answer = admin("GET", f"/v1/runs/{first.run_id}?output_size_limit=2")
    assert [(each["attempt"], each["output"], each["job_name"]) for each in answer.json] == [
        (1, "e\n", "a"),
        (2, "e\n", "a"),
    ]
    assert admin("GET", "/v1/runs/none").error["code"] == "unknown_execution"
    second = admin("GET", f"/v1/runs/{first.run_id}?_start=1")
    assert ([each["attempt"] for each in second.json], second.headers["X-Total-Count"]) == ([2], "2")
    newest = admin("GET", f"/v1/runs/{first.run_id}?_order=DESC&_sort=started_at")
    assert [each["attempt"] for each in newest.json] == [2, 1]
    assert admin("GET", f"/v1/runs/{first.run_id}?_sort=nonsense").error["field"] == "_sort"


def test_kill_a_run(admin: Client, cluster: FakeCluster) -> None:
    """Answers with what was open; an unknown run is 404."""
    cluster.add_job("a")
    running = cluster.add_execution("a", Status.RUNNING)
    answer = admin("POST", f"/v1/runs/{running.run_id}/kill")
    assert (answer.status, answer.json) == (200, {"run_id": running.run_id, "executions": [running.public_id]})
    assert cluster.rows[0].status is Status.KILLED
    assert admin("POST", f"/v1/runs/{running.run_id}/kill").json["executions"] == []
    assert admin("POST", "/v1/runs/none/kill").status == 404
