"""Jobs over HTTP: create, show, list, change, delete, toggle."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshcron import service
from meshcron.commands import PutJob
from meshcron.errors import NoLeader, OutcomeUnknown, PreconditionFailed
from meshcron.model import Status
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS, FakeCluster
from tests.unit.api.bad_input import BAD_NAMES

JOB: dict[str, Any] = {"name": "a", "schedule": "@daily", "command": "true"}


def test_create(admin: Client, cluster: FakeCluster) -> None:
    """201, where it is, since when it holds, its revision, and the job as stored with `next` right at once."""
    answer = admin("POST", "/v1/jobs", JOB)
    assert answer.status == 201
    assert answer.headers["Location"] == "/v1/jobs/a"
    assert answer.headers["X-Meshcron-From"] == "2030-01-01T00:00:00Z"
    assert answer.headers["ETag"] == '"1"'
    assert (answer.json["name"], answer.json["next"]) == ("a", "2030-01-01T01:00:00Z")
    assert admin("GET", "/v1/jobs/a").json == answer.json


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs"), ("PATCH", "/v1/jobs"), ("PUT", "/v1/jobs/a")])
def test_replace(admin: Client, cluster: FakeCluster, method: str, path: str) -> None:
    """Created or replaced, 201: what the new body does not mention is at its default again."""
    cluster.add_job("a", owner="John")
    answer = admin(method, path, JOB)
    assert (answer.status, answer.json["owner"], answer.headers["ETag"]) == (201, "", '"2"')


def test_runoncreate(admin: Client, cluster: FakeCluster) -> None:
    """Dkron's parameter reaches the command."""
    admin("POST", "/v1/jobs?runoncreate=true", JOB)
    admin("POST", "/v1/jobs", JOB)
    assert [command.run_on_create for command, _ in cluster.commands if isinstance(command, PutJob)] == [True, False]


def test_name_beyond_ascii(admin: Client) -> None:
    """Letters of any script, in the body, the path and the Location."""
    answer = admin("PUT", "/v1/jobs/gr%C3%B6%C3%9Fe", {**JOB, "name": "größe"})
    assert answer.headers["Location"] == "/v1/jobs/gr%C3%B6%C3%9Fe"
    assert admin("GET", answer.headers["Location"]).json["name"] == "größe"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_name_in_the_path(admin: Client, cluster: FakeCluster, name: str) -> None:
    """FAULTS 42: refused everywhere a name can stand, with nothing injected anywhere."""
    for method, path in [
        ("GET", "/v1/jobs/{}"),
        ("PUT", "/v1/jobs/{}"),
        ("PATCH", "/v1/jobs/{}"),
        ("POST", "/v1/jobs/{}"),
        ("DELETE", "/v1/jobs/{}"),
        ("POST", "/v1/jobs/{}/run"),
        ("POST", "/v1/jobs/{}/toggle"),
        ("GET", "/v1/jobs/{}/executions"),
        ("DELETE", "/v1/executions/{}"),
        ("GET", "/v1/executions/{}/1-a/output"),
    ]:
        answer = admin(method, path.format(name), {} if method in {"PUT", "PATCH"} else None)
        assert (answer.status, answer.error["field"]) == (400, "name"), (method, path)
        assert "X-Evil" not in answer.headers
    assert not cluster.commands


def test_unknown(admin: Client) -> None:
    """404 naming what is not there."""
    calls: list[tuple[str, str, object]] = [
        ("GET", "/v1/jobs/none", None),
        ("DELETE", "/v1/jobs/none", None),
        ("POST", "/v1/jobs/none", None),
        ("POST", "/v1/jobs/none/toggle", None),
        ("PATCH", "/v1/jobs/none", {}),
        ("GET", "/v1/executions/none", None),
        ("DELETE", "/v1/executions/none", None),
        ("GET", "/v1/history?job=none", None),
    ]
    for method, path, body in calls:
        answer = admin(method, path, body)
        assert (answer.status, answer.error["code"]) == (404, "unknown_job"), path
        assert "none" in answer.error["message"]


def test_bad_schedule(admin: Client, cluster: FakeCluster) -> None:
    """The scheduler's word: what is wrong, where, and how it would be right."""
    answer = admin("POST", "/v1/jobs", {**JOB, "schedule": "0 60 * * * *"})
    assert answer.status == 400
    assert answer.error == {
        "code": "invalid_schedule",
        "message": "minute 60 is above 59",
        "field": "schedule",
        "hint": "0-59",
        "column": 3,
    }
    assert not cluster.commands


def test_patch(admin: Client, cluster: FakeCluster) -> None:
    """Only what is named changes, at the revision it was read at."""
    cluster.add_job("a", owner="John", tags={"role": "web", "zone": "eu"})
    answer = admin("PATCH", "/v1/jobs/a", {"owner": None, "tags": {"zone": None}, "retries": 3})
    assert answer.status == 200
    assert (answer.json["owner"], answer.json["tags"], answer.json["retries"]) == ("", {"role": "web"}, 3)
    assert answer.json["schedule"] == "@daily"
    command, _ = cluster.commands[0]
    assert isinstance(command, PutJob)
    assert command.if_revision == 1


def test_patch_among_others(admin: Client, cluster: FakeCluster) -> None:
    """Somebody else's change came first: ours is made anew on top of it, and neither is lost."""
    cluster.add_job("a")
    first_try = [True]
    propose = cluster.propose

    async def interrupted(command: Any, key: str) -> object:
        if first_try.pop() if first_try else False:
            cluster._store(msgspec.structs.replace(cluster.views["a"].job, owner="somebody else"))
        return await propose(command, key)

    cluster.propose = interrupted  # type: ignore[method-assign]
    answer = admin("PATCH", "/v1/jobs/a", {"retries": 3})
    assert answer.status == 200
    assert (answer.json["owner"], answer.json["retries"]) == ("somebody else", 3)


def test_patch_that_never_gets_through(admin: Client, cluster: FakeCluster) -> None:
    """Always too late: 409 and "try again", since without If-Match nobody named a revision."""
    cluster.add_job("a")
    cluster.fails = PreconditionFailed("another revision")
    answer = admin("PATCH", "/v1/jobs/a", {"retries": 3})
    assert (answer.status, answer.error["hint"]) == (409, "try again")


@pytest.mark.parametrize(("method", "body"), [("PUT", JOB), ("POST", JOB), ("PATCH", {"retries": 3}), ("DELETE", None)])
def test_if_match(admin: Client, cluster: FakeCluster, method: str, body: object) -> None:
    """The ETag of the job as read: another one is 412 and nothing happens."""
    cluster.add_job("a")
    path = "/v1/jobs" if method == "POST" else "/v1/jobs/a"
    assert admin(method, path, body, {"If-Match": '"7"'}).status == 412
    assert admin(method, path, body, {"If-Match": "7"}).status == 400
    assert cluster.views["a"].revision == 1
    assert admin(method, path, body, {"If-Match": admin("GET", "/v1/jobs/a").headers["ETag"]}).status in {200, 201}


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/jobs/a"), ("POST", "/v1/jobs"), ("PATCH", "/v1/jobs")])
def test_replace_only(admin: Client, cluster: FakeCluster, method: str, path: str) -> None:
    """If-Match: * never creates: not where there is none, nor where it goes in that moment."""
    only_old = {"If-Match": "*"}
    answer = admin(method, path, JOB, only_old)
    assert (answer.status, answer.error["code"]) == (412, "precondition_failed")
    cluster.add_job("a")
    propose = cluster.propose

    async def deleted(command: Any, key: str) -> object:
        cluster.views.pop("a", None)
        return await propose(command, key)

    cluster.propose = deleted  # type: ignore[method-assign]
    assert admin(method, path, JOB, only_old).status == 412
    assert not cluster.views
    cluster.propose = propose  # type: ignore[method-assign]
    cluster.add_job("a")
    cluster.add_job("a")
    answer = admin(method, path, JOB, only_old)
    assert (answer.status, answer.headers["ETag"], answer.headers["Location"]) == (201, '"3"', "/v1/jobs/a")


def test_create_only(admin: Client) -> None:
    """If-None-Match: * never overwrites."""
    only_new = {"If-None-Match": "*"}
    assert admin("POST", "/v1/jobs", JOB, only_new).status == 201
    assert admin("POST", "/v1/jobs", JOB, only_new).status == 412


def test_delete(admin: Client, cluster: FakeCluster) -> None:
    """200 with the job as it was; what is still open is named."""
    cluster.add_job("a")
    running = cluster.add_execution("a", Status.RUNNING)
    answer = admin("DELETE", "/v1/jobs/a")
    assert (answer.status, answer.json["name"], answer.headers["X-Meshcron-Open"]) == (200, "a", running.public_id)
    assert admin("GET", "/v1/jobs/a").status == 404


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/jobs/a"), ("POST", "/v1/jobs/a/toggle")])
def test_what_was_armed_is_named_only_where_it_starts(
    admin: Client, cluster: FakeCluster, method: str, path: str
) -> None:
    """The answer waits for the word of the agents on what was about to start (PROTOCOL 6, Edits)."""
    cluster.add_job("a")
    stopped, started = (cluster.add_execution("a", Status.ARMED) for _ in range(2))
    running = cluster.add_execution("a", Status.RUNNING)
    looks = 0

    def word() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            cluster.end(stopped.id, Status.SKIPPED)
            cluster.end(started.id, Status.RUNNING)

    cluster.on_open = word
    answer = admin(method, path)
    assert answer.headers["X-Meshcron-Open"] == f"{started.public_id},{running.public_id}"
    assert looks == 3


def test_what_was_armed_is_named_where_nobody_says_a_word(
    admin: Client, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent may be gone: half a second is waited, no longer."""
    monkeypatch.setattr(service, "STOP_WAIT_SECONDS", 0.02)
    cluster.add_job("a")
    armed = cluster.add_execution("a", Status.ARMED)
    assert admin("DELETE", "/v1/jobs/a").headers["X-Meshcron-Open"] == armed.public_id


def test_delete_a_parent(admin: Client, cluster: FakeCluster) -> None:
    """A job with children stays: 409."""
    cluster.views["a"] = msgspec.structs.replace(cluster.add_job("a"), dependents=("b",))
    answer = admin("DELETE", "/v1/jobs/a")
    assert (answer.status, answer.error["code"], answer.error["field"]) == (409, "conflict", "name")
    assert admin("GET", "/v1/jobs/a").json["dependent_jobs"] == ["b"]


def test_toggle(admin: Client, cluster: FakeCluster) -> None:
    """Off and on again; an operator may."""
    cluster.add_job("a", owner="John")
    running = cluster.add_execution("a", Status.RUNNING)
    operator = Client(admin.port, SECRETS["operator"])
    answer = operator("POST", "/v1/jobs/a/toggle")
    assert (answer.json["disabled"], answer.headers["X-Meshcron-Open"]) == (True, running.public_id)
    answer = operator("POST", "/v1/jobs/a/toggle")
    assert (answer.json["disabled"], answer.json["owner"], answer.headers["X-Meshcron-Open"]) == (False, "John", None)


def test_list(admin: Client, cluster: FakeCluster) -> None:
    """An array by name with its length; [] when none and beyond the end."""
    assert (admin("GET", "/v1/jobs").body, admin("GET", "/v1/jobs").headers["X-Total-Count"]) == (b"[]", "0")
    for name in ("b", "a", "c"):
        cluster.add_job(name)
    answer = admin("GET", "/v1/jobs?_start=1&_end=2&_sort=name&_order=DESC")
    assert ([job["name"] for job in answer.json], answer.headers["X-Total-Count"]) == (["b"], "3")
    assert admin("GET", "/v1/jobs?_start=99&_end=120").json == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("_start=x", "_start"),
        ("_end=-1", "_end"),
        ("_sort=tags", "_sort"),
        ("_order=up", "_order"),
        ("q=%FF", "q"),
        ("disabled=perhaps", "disabled"),
    ],
)
def test_bad_list(admin: Client, query: str, field: str) -> None:
    """A bad value is 400, not a list somebody did not ask for."""
    answer = admin("GET", f"/v1/jobs?{query}")
    assert (answer.status, answer.error["field"]) == (400, field)


@pytest.mark.parametrize(
    ("error", "code"), [(NoLeader("nobody leads"), "no_leader"), (OutcomeUnknown("not seen"), "outcome_unknown")]
)
def test_no_leader(admin: Client, cluster: FakeCluster, error: Exception, code: str) -> None:
    """503 and when to try again; reads go on."""
    cluster.add_job("a")
    cluster.fails = error
    for method, path, body in [
        ("POST", "/v1/jobs", JOB),
        ("PATCH", "/v1/jobs/a", {}),
        ("DELETE", "/v1/jobs/a", None),
        ("POST", "/v1/jobs/a", None),
        ("POST", "/v1/tokens", {"name": "n", "role": "viewer"}),
    ]:
        answer = admin(method, path, body)
        assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, code, "1")
    assert admin("GET", "/v1/jobs/a").status == 200


def test_dkrons_clients(admin: Client) -> None:
    """A client of the first dialect saves what it read with one field changed; one of the later does the same."""
    admin("POST", "/v1/jobs", JOB)
    shown = admin("GET", "/v1/jobs/a").json
    assert admin("POST", "/v1/jobs", {**shown, "command": "false"}).json["command"] == "false"
    shown = admin("GET", "/v1/jobs/a").json
    config = {**shown["executor_config"], "command": "date"}
    assert admin("POST", "/v1/jobs", {**shown, "executor_config": config}).json["command"] == "date"
