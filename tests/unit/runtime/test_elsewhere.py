"""What an agent answers for others: by its own API, and under whose name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from meshcron.core.agent import Agent
from meshcron.errors import NoLeader, OutcomeUnknown
from meshcron.messages import Call
from meshcron.model import Execution, Status
from meshcron.runtime import elsewhere
from meshcron.runtime.calls import Answered, Calls
from meshcron.runtime.elsewhere import Answering, OtherAgents
from meshcron.service import VIA_HEADER, OutputChunk, Told


class FakeAgent:
    """Has applied five entries."""

    class State:
        applied = (5, 1)

    state = State()


class OwnApi:
    """Answers `told`, or never; knows what it was asked."""

    def __init__(self, told: Told | None, *, mute: bool = False) -> None:
        self.told = told
        self.mute = mute
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    async def __call__(self, method: str, uri: str, headers: Mapping[str, str], body: bytes) -> Told | None:
        self.asked.append((method, uri, headers, body))
        if self.mute:
            await asyncio.Event().wait()
        return self.told


def no_output(execution_id: str, offset: int, most: int) -> OutputChunk:
    raise AssertionError("nobody asked for output")


def answer(own_api: OwnApi, headers: dict[str, str] | None = None) -> Any:
    call = Call(call_id="c", method="POST", path="/v1/jobs", headers=headers or {}, session=1, payload=(b"{", b"}"))
    answering = Answering(cast(Agent, FakeAgent()), no_output, own_api, "secret")
    return asyncio.run(answering("node-2", call))


def test_a_call_is_put_to_the_own_api() -> None:
    """As it came, with who passed it on; what each agent says for itself is left out of the answer."""
    own_api = OwnApi(Told(201, {"ETag": '"1"', "Date": "today", "Server": "meshcron"}, b"done"))
    told = answer(own_api, {"Authorization": "Bearer x"})
    assert (told.status, told.headers, told.body, told.applied_index) == (201, {"ETag": '"1"'}, b"done", 5)
    headers = {"Authorization": "Bearer x", VIA_HEADER: "secret node-2"}
    assert own_api.asked == [("POST", "/v1/jobs", headers, b"{}")]


@pytest.mark.parametrize("name", [VIA_HEADER, VIA_HEADER.lower()])
def test_nobody_says_himself_who_passed_a_request_on(name: str) -> None:
    """The sender's own word for it is dropped, however it is written."""
    own_api = OwnApi(Told(200, {}, b""))
    answer(own_api, {name: "secret node-3"})
    assert own_api.asked[0][2] == {VIA_HEADER: "secret node-2"}


def test_an_api_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asker hears so before it gives up itself."""
    monkeypatch.setattr(elsewhere, "REQUEST_SECONDS", 0.01)
    told = answer(OwnApi(None, mute=True))
    assert (told.status, told.headers["Retry-After"]) == (503, "1")
    assert b"did not answer" in told.body
    assert b"outcome_unknown" in told.body


def test_more_than_a_call_carries_is_refused() -> None:
    """With a reason, instead of silence."""
    told = answer(OwnApi(None))
    assert told.status == 503
    assert b"more than fits" in told.body
    assert b"outcome_unknown" in told.body


class FakeCalls:
    """Answers as scripted; knows whom it asked."""

    def __init__(self, *answers: Answered | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.sent: list[dict[str, str]] = []

    async def ask(self, to: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answered | None:
        self.asked.append(to)
        self.sent.append(headers)
        return self.answers.pop(0)


class Follower:
    """Knows who leads, one after the other; "me" is itself, "" nobody."""

    holds_log = False
    refused = ""
    worker = False

    def __init__(self, *leaders: str) -> None:
        self.leaders = list(leaders)

    def may_command(self, node_id: str) -> bool:
        assert node_id == "me"
        return not self.worker

    @property
    def leading(self) -> bool:
        return self.leaders[0] == "me"

    @property
    def leader(self) -> str:
        return self.leaders.pop(0)


class Holder(Follower):
    """Holds the log."""

    holds_log = True


class Worker(Follower):
    """`voter = never`: its own token has the role `local`."""

    worker = True


DONE = Answered(201, {}, b"done", 0)
BEGINNING = Answered(503, {}, b"no_leader", 0)


def others(
    follower: Follower, calls: FakeCalls, index_on_disk: Callable[[], int] = lambda: 0, *, auth_on: bool = True
) -> OtherAgents:
    """What asks them."""
    agent = cast(Agent, follower)
    return OtherAgents(agent, "me", cast(Calls, calls), "token", auth_on=auth_on, index_on_disk=index_on_disk)


def ask(method: str, follower: Follower, calls: FakeCalls) -> Told | None:
    return asyncio.run(others(follower, calls).ask("old", method, "/v1/jobs", {}, b""))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_new_leader_is_asked_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has begun."""
    monkeypatch.setattr(elsewhere, "BEGIN_SECONDS", 0)
    calls = FakeCalls(None, BEGINNING, DONE)
    assert ask(method, Follower("new", "new"), calls) == Told(201, {}, b"done")
    assert calls.asked == ["old", "new", "new"]


def test_an_agent_that_leads_by_now_answers_itself() -> None:
    """There is nobody to ask."""
    assert ask("POST", Follower("me"), FakeCalls(None)) is None


@pytest.mark.parametrize(("method", "error"), [("GET", NoLeader), ("POST", OutcomeUnknown)])
@pytest.mark.parametrize("leaders", [[""], ["new"] * 9], ids=["nobody-leads", "never-begins"])
def test_what_the_old_leader_may_have_done_is_not_called_undone(
    method: str, error: type[Exception], leaders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers for the new leader; what the old one did nobody knows."""
    monkeypatch.setattr(elsewhere, "BEGIN_SECONDS", 0)
    with pytest.raises(error):
        ask(method, Follower(*leaders), FakeCalls(None, *[BEGINNING] * 9))


CALLERS = {"Authorization": "Bearer an admin's"}
OWN = {"Authorization": "Bearer token"}


@pytest.mark.parametrize(
    ("agent", "given", "sent"),
    [(Follower(), {}, OWN), (Follower(), CALLERS, OWN), (Worker(), {}, OWN), (Worker(), CALLERS, CALLERS)],
    ids=["none", "any", "worker-none", "worker-any"],
)
def test_the_token_that_speaks_for_a_caller_who_needs_none(
    agent: Follower, given: dict[str, str], sent: dict[str, str]
) -> None:
    """Authentication is off here: this agent's own, an admin's. A worker's opens next to nothing, so that a token that
    the caller has counts there."""
    calls = FakeCalls(DONE)
    asyncio.run(others(agent, calls, auth_on=False).ask("it", "GET", "/v1/jobs", given, b""))
    assert calls.sent == [sent]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_write_is_answered_once_it_is_on_this_disk(method: str) -> None:
    """Whoever wrote through this agent reads executions here, which are read from the disk."""
    looks = iter((7, 7, 8))
    asking = others(Holder(), FakeCalls(Answered(201, {}, b"done", 8)), lambda: next(looks))
    assert asyncio.run(asking.ask("old", method, "/v1/jobs", {}, b"")) == Told(201, {}, b"done")
    assert next(looks, None) is None


def test_a_write_that_does_not_come_to_this_disk_is_not_called_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done, and the next read here would not show it. A read is answered all the same."""
    monkeypatch.setattr(elsewhere, "SHOWN_SECONDS", 0.0)
    written = Answered(200, {}, b"done", 8)
    with pytest.raises(OutcomeUnknown, match="not to be seen at this agent"):
        asyncio.run(others(Holder(), FakeCalls(written)).ask("old", "POST", "/v1/jobs", {}, b""))
    assert asyncio.run(others(Holder(), FakeCalls(written)).ask("old", "GET", "/v1/jobs", {}, b"")) is not None


def test_a_first_refusal_is_passed_on() -> None:
    """Nobody else was asked, so it is true."""
    told = ask("POST", Follower(), FakeCalls(BEGINNING))
    assert told is not None
    assert told.status == 503


def test_output_that_its_agent_refuses() -> None:
    """Is the recorded tail, as where that agent is gone."""
    asking = others(Follower(), FakeCalls(BEGINNING))
    execution = Execution(
        id="x",
        uid=1,
        run_id="r",
        index=1,
        revision=1,
        attempt=1,
        trigger="manual",
        scheduled_wall_us=0,
        due_cluster_us=0,
        start_by_cluster_us=0,
        node_id="it",
        status=Status.SUCCESS,
        output_tail="the end",
    )
    assert asyncio.run(asking.output(execution, 0, 100)) == OutputChunk(b"the end", 7, True)
