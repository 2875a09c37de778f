"""The output of an execution: whole, from a byte on, followed, as events."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from meshcron.api.output import CHUNK_BYTES
from meshcron.api.settings import ApiSettings
from meshcron.errors import NoLeader
from meshcron.model import Execution, Status
from meshcron.service import COMMIT_WAIT_SECONDS, VIA_HEADER
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS, FakeCluster
from tests.unit.api.conftest import SETTINGS


@pytest.fixture
def running(cluster: FakeCluster) -> Execution:
    """An execution that has written something and goes on."""
    cluster.add_job("a")
    execution = cluster.add_execution("a", Status.RUNNING)
    cluster.outputs[execution.id] = b"one\n"
    return execution


def path(execution: Execution, query: str = "") -> str:
    return f"/v1/executions/a/{execution.public_id}/output{query}"


def test_as_written(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """The bytes as they are, at both places, whatever they are."""
    cluster.outputs[running.id] = b"caf\xc3\xa9 \xff\x00\r\n"
    answer = admin("GET", path(running))
    assert answer.body == b"caf\xc3\xa9 \xff\x00\r\n"
    assert answer.headers["Content-Type"] == "text/plain; charset=UTF-8"
    assert admin("GET", f"/v1/jobs/a/executions/{running.public_id}/output").body == answer.body
    assert admin("HEAD", path(running)).body == b""


def test_offset(admin: Client, running: Execution) -> None:
    """From a byte on; at and beyond the end there is nothing."""
    assert admin("GET", path(running, "?offset=2")).body == b"e\n"
    assert admin("GET", path(running, "?offset=4")).body == b""
    assert admin("GET", path(running, "?offset=400")).body == b""


@pytest.mark.parametrize("query", ["?offset=-1", "?offset=x", "?offset=", "?follow=perhaps"])
def test_bad_query(admin: Client, running: Execution, query: str) -> None:
    """An error in JSON, not half an output."""
    answer = admin("GET", path(running, query))
    assert answer.status == 400
    assert answer.error["field"] in {"offset", "follow"}


def test_unknown(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """No such execution, no such job."""
    assert admin("GET", "/v1/executions/a/none/output").error["code"] == "unknown_execution"
    assert admin("GET", "/v1/executions/none/1/output").error["code"] == "unknown_job"


def test_large(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """In chunks, whole."""
    cluster.outputs[running.id] = bytes(range(256)) * 1024
    cluster.end(running.id)
    assert len(cluster.outputs[running.id]) == 4 * CHUNK_BYTES
    assert admin("GET", path(running)).body == cluster.outputs[running.id]


def test_only_the_tail_is_left(admin: Client, cluster: FakeCluster) -> None:
    """The agent that held it is gone: the record's tail."""
    cluster.add_job("a")
    execution = cluster.add_execution("a", output_tail="the end\n")
    assert admin("GET", path(execution)).body == b"the end\n"


def stream(admin: Client, target: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """A response whose body is read as it comes."""
    connection = http.client.HTTPConnection("127.0.0.1", admin.port, timeout=5)
    connection.request("GET", target, headers={"Authorization": f"Bearer {admin.token}", **(headers or {})})
    return connection.getresponse()


def test_follow(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """What is there comes at once, what is added as it is added, and the end of the execution ends it."""
    response = stream(admin, path(running, "?follow=true"))
    assert response.read1() == b"one\n"
    cluster.outputs[running.id] += b"two\n"
    assert response.read1() == b"two\n"
    cluster.outputs[running.id] += b"three\n"
    cluster.end(running.id)
    assert response.read() == b"three\n"


def test_followed_by_way_of_an_agent_without_the_log(
    start: Callable[[ApiSettings], int], cluster: FakeCluster, running: Execution
) -> None:
    """It passes on one whole answer: a piece of the output, and where and whether to go on."""
    admin = Client(start(replace(SETTINGS, passing_secret="ours")), SECRETS["admin"])
    passed_on = {VIA_HEADER: "ours node-2"}
    first = admin("GET", path(running, "?follow=true"), headers=passed_on)
    assert (first.body, first.headers["X-Meshcron-Over"], first.headers["X-Meshcron-Offset"]) == (
        b"one\n",
        "false",
        "4",
    )
    assert [kind for kind, *_ in events(admin("GET", path(running, "?follow=true"), headers=passed_on | SSE).body)] == [
        "output"
    ]
    cluster.end(running.id)
    last = admin("GET", path(running, "?follow=true&offset=4"), headers=passed_on)
    assert (last.body, last.headers["X-Meshcron-Over"], last.headers["X-Meshcron-Offset"]) == (b"", "true", "4")


def test_a_piece(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """What there is, up to its bound, with where to go on and whether anything will come."""
    cluster.outputs[running.id] = b"x" * (CHUNK_BYTES + 5)
    said = []
    for offset in (0, CHUNK_BYTES, CHUNK_BYTES + 5):
        answer = admin("GET", path(running, f"?piece=true&offset={offset}"))
        said.append((len(answer.body), answer.headers["X-Meshcron-Over"], int(answer.headers["X-Meshcron-Offset"])))
    assert said == [(CHUNK_BYTES, "false", CHUNK_BYTES), (5, "false", CHUNK_BYTES + 5), (0, "false", CHUNK_BYTES + 5)]
    cluster.end(running.id)
    last = admin("GET", path(running, f"?piece=true&offset={CHUNK_BYTES + 5}"))
    assert (last.body, last.headers["X-Meshcron-Over"]) == (b"", "true")


def test_one_that_breaks_in_the_middle_looks_broken(
    admin: Client, cluster: FakeCluster, running: Execution, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent that runs it is restarted: no proper end, or who follows would take what there is for all. Nobody's
    fault, so there is no line of the log."""
    response = stream(admin, path(running, "?follow=true"))
    assert response.read1() == b"one\n"
    cluster.unread = NoLeader("the agent that ran it cannot show its output at the moment; try again")
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    assert caplog.messages == []
    assert admin("GET", path(running)).error["code"] == "no_leader"


def test_follow_from_the_start(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """Nothing written yet: it waits."""
    cluster.outputs[running.id] = b""

    def write_and_end() -> None:
        cluster.outputs[running.id] = b"x"
        cluster.end(running.id)

    timer = threading.Timer(0.1, write_and_end)
    timer.start()
    assert admin("GET", path(running, "?follow=true")).body == b"x"
    timer.join()


def events(body: bytes) -> list[tuple[str, int, dict[str, object]]]:
    """Kind, id and data of each event in a stream."""
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


SSE = {"Accept": "text/event-stream"}


def test_events(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """Text with the offset to go on from, and at the end how the execution ended."""
    response = stream(admin, path(running, "?follow=true"), SSE)
    assert response.headers["Content-Type"] == "text/event-stream"
    first = response.read1()
    cluster.end(running.id, Status.FAILED)
    found = events(first + response.read())
    assert found[0] == ("output", 4, {"output": "one\n"})
    assert [kind for kind, _, _ in found] == ["output", "end"]
    assert (found[1][1], found[1][2]["status"]) == (4, "failed")


def test_events_end_as_it_is_recorded(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """The process has ended, the record of that is on its way: `end` comes with it, the output at once. Who does not
    follow gets what there is."""
    cluster.ended.add(running.id)
    assert [kind for kind, _, _ in events(admin("GET", path(running), headers=SSE).body)] == ["output"]
    response = stream(admin, path(running, "?follow=true"), SSE)
    assert [kind for kind, _, _ in events(response.read1())] == ["output"]
    cluster.end(running.id, Status.FAILED)
    assert [(kind, data["status"]) for kind, _, data in events(response.read())] == [("end", "failed")]


def test_events_whose_end_is_not_committed_break_off(
    admin: Client, cluster: FakeCluster, running: Execution, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody leads: no `end` that is none, and no proper end of the stream either. Who asks again goes on."""
    cluster.ended.add(running.id)
    response = stream(admin, path(running, "?follow=true"), SSE)
    assert [kind for kind, _, _ in events(response.read1())] == ["output"]
    cluster.monotonic_seconds += COMMIT_WAIT_SECONDS
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    assert caplog.messages == []
    cluster.end(running.id)
    again = admin("GET", path(running, "?follow=true"), headers={**SSE, "Last-Event-ID": "4"})
    assert [(kind, data["status"]) for kind, _, data in events(again.body)] == [("end", "success")]


def test_events_keep_characters_whole(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """A character cut by a chunk is sent when it is whole; the id says where it begins."""
    cluster.outputs[running.id] = b"gr\xc3"
    response = stream(admin, path(running, "?follow=true"), SSE)
    first = response.read1()
    assert events(first) == [("output", 2, {"output": "gr"})]
    cluster.outputs[running.id] += b"\xb6\xff\n"
    cluster.end(running.id)
    assert events(response.read())[0] == ("output", 6, {"output": "ö\ufffd\n"})


def test_events_resume(admin: Client, cluster: FakeCluster, running: Execution) -> None:
    """A browser that lost the connection says which event it had last."""
    cluster.end(running.id)
    answer = admin("GET", path(running), headers={**SSE, "Last-Event-ID": "2"})
    assert events(answer.body)[0] == ("output", 4, {"output": "e\n"})
    assert events(admin("GET", path(running), headers=SSE).body)[0][2] == {"output": "one\n"}


def test_events_without_follow(admin: Client, running: Execution) -> None:
    """What there is, and no end that has not come."""
    assert [kind for kind, _, _ in events(admin("GET", path(running), headers=SSE).body)] == ["output"]
