"""Runs over HTTP: start, wait, look, kill."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import msgspec
import pytest

from meshcron.api.runs import VIA_WAIT_SECONDS, settled
from meshcron.commands import RunJob
from meshcron.model import Execution, Job, Status
from meshcron.service import VIA_HEADER
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS, FakeCluster
from tests.unit.api.conftest import SETTINGS, Serve

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


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "BASH_ENV", "PYTHONPATH", "GIT_SSH_COMMAND", "SHELLOPTS"])
def test_operator_stays_an_operator(admin: Client, cluster: FakeCluster, name: str) -> None:
    """Variables that change which code runs are for editors, who could edit the command anyway."""
    cluster.add_job("a")
    body = {"env": {"HARMLESS": "1", name: "/tmp/x"}}
    answer = Client(admin.port, SECRETS["operator"])("POST", "/v1/jobs/a", body)
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert Client(admin.port, SECRETS["operator"])("POST", "/v1/jobs/a", {"env": {"MY_PATH": "/x"}}).status == 200
    assert Client(admin.port, SECRETS["editor"])("POST", "/v1/jobs/a", body).status == 200


def test_wait(admin: Client, cluster: FakeCluster) -> None:
    """With ?wait the answer comes when the run has ended, and shows the job as it then is."""
    cluster.add_job("a")
    cluster.runs_end = False
    ended = threading.Timer(0.2, lambda: cluster.end(cluster.rows[0].id))
    ended.start()
    began = time.monotonic()
    answer = admin("POST", "/v1/jobs/a?wait=10")
    took = time.monotonic() - began
    ended.join()
    assert (answer.status, answer.headers["X-Meshcron-Run"]) == (200, cluster.rows[0].run_id)
    assert 0.2 <= took < 2


def test_wait_in_vain(admin: Client, cluster: FakeCluster) -> None:
    """The time is up and it still runs: 200 with the job, which says so."""
    cluster.add_job("a")
    cluster.runs_end = False

    def pass_time() -> None:
        cluster.monotonic_seconds += 100

    timer = threading.Timer(0.05, pass_time)
    timer.start()
    answer = admin("POST", "/v1/jobs/a?wait=50")
    timer.join()
    assert (answer.status, answer.headers["X-Meshcron-Run"]) == (200, cluster.rows[0].run_id)


def test_wait_through_another_agent(start: Serve, cluster: FakeCluster) -> None:
    """That one would give up and call the outcome unknown: it hears of the run in time, ended or not."""
    admin = Client(start(msgspec.structs.replace(SETTINGS, passing_secret="ours")), SECRETS["admin"])
    cluster.add_job("a")
    cluster.runs_end = False

    def pass_time() -> None:
        cluster.monotonic_seconds += VIA_WAIT_SECONDS

    timer = threading.Timer(0.05, pass_time)
    timer.start()
    answer = admin("POST", "/v1/jobs/a?wait=50", headers={VIA_HEADER: "ours node-2"})
    timer.join()
    assert (answer.status, answer.headers["X-Meshcron-Run"]) == (200, cluster.rows[0].run_id)


@pytest.mark.parametrize("wait", ["soon", "-1", "", "1e9", "nan", "inf", "3601", "%D9%A3"])
def test_bad_wait(admin: Client, cluster: FakeCluster, wait: str) -> None:
    """Refused before the run is started."""
    cluster.add_job("a")
    answer = admin("POST", f"/v1/jobs/a?wait={wait}")
    assert (answer.status, answer.error["field"]) == (400, "wait")
    assert not cluster.commands


def test_who_waits_and_goes_away(admin: Client, cluster: FakeCluster) -> None:
    """Nobody looks at the run any more soon after the client has hung up."""
    cluster.add_job("a")
    cluster.runs_end = False
    looks: list[float] = []
    real = cluster.run_executions

    def watched(run_id: str) -> list[Execution]:
        looks.append(time.monotonic())
        return real(run_id)

    cluster.run_executions = watched  # type: ignore[method-assign]
    request = f"POST /v1/jobs/a?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {admin.token}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", admin.port), timeout=5) as connection:
        connection.sendall(request.encode())
        while len(looks) < 2:
            time.sleep(0.01)
    gone = time.monotonic()
    admin("GET", "/v1/jobs")
    deadline = gone + 3
    while time.monotonic() < deadline and time.monotonic() - looks[-1] < 1.0:
        time.sleep(0.05)
    assert looks[-1] < gone + 1.0


def executions(*states: tuple[str, int, Status]) -> list[Execution]:
    cluster = FakeCluster()
    cluster.add_job("a")
    return [cluster.add_execution("a", status, node_id=node, attempt=attempt) for node, attempt, status in states]


@pytest.mark.parametrize(
    ("retries", "states", "over"),
    [
        (0, [], False),
        (0, [("n1", 1, Status.ARMED)], False),
        (0, [("n1", 1, Status.RUNNING)], False),
        (0, [("n1", 1, Status.SUCCESS)], True),
        (0, [("n1", 1, Status.FAILED)], True),
        (2, [("n1", 1, Status.FAILED)], False),
        (2, [("n1", 1, Status.TIMEOUT)], False),
        (2, [("n1", 1, Status.KILLED)], True),
        (2, [("n1", 1, Status.FAILED), ("n1", 2, Status.RUNNING)], False),
        (2, [("n1", 1, Status.FAILED), ("n1", 2, Status.SUCCESS)], True),
        (1, [("n1", 1, Status.FAILED), ("n1", 2, Status.FAILED)], True),
        (0, [("n1", 1, Status.SUCCESS), ("n2", 1, Status.RUNNING)], False),
        (1, [("n1", 1, Status.FAILED), ("n2", 1, Status.SUCCESS), ("n1", 2, Status.SUCCESS)], True),
    ],
)
def test_settled(retries: int, states: list[tuple[str, int, Status]], over: bool) -> None:
    """Over when nothing is open on any agent and no other attempt will follow."""
    assert settled(executions(*states), Job(name="a", schedule="", retries=retries)) is over


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


def test_kill_a_run(admin: Client, cluster: FakeCluster) -> None:
    """Answers with what was open; an unknown run is 404."""
    cluster.add_job("a")
    running = cluster.add_execution("a", Status.RUNNING)
    answer = admin("POST", f"/v1/runs/{running.run_id}/kill")
    assert (answer.status, answer.json) == (200, {"run_id": running.run_id, "executions": [running.public_id]})
    assert cluster.rows[0].status is Status.KILLED
    assert admin("POST", f"/v1/runs/{running.run_id}/kill").json["executions"] == []
    assert admin("POST", "/v1/runs/none/kill").status == 404
