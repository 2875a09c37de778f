"""What the API shows of the model."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.api import views
from meshcron.api.moments import NEVER
from meshcron.model import SECOND_US, Execution, Status, Token
from tests.unit.api.api_fake import FakeCluster

SEED_KEYS = (
    "name schedule command owner owner_email run_as_user success_count error_count last_success last_error disabled"
    " tags"
).split()
LATER_KEYS = (
    "id displayname timezone metadata retries parent_job dependent_jobs processors concurrency executor executor_config"
    " status next ephemeral starts_at expires_at"
).split()
"""API.md, point 9."""

EXECUTION_KEYS = (
    "job_name started_at finished_at success output node_name id group attempt output_truncated status exit_code signal"
    " scheduled_at lateness_ms duration_ms trigger reason run_id"
).split()
"""API.md, point 11."""

MEMBER_KEYS = (
    "Name Addr Port Tags Status ProtocolMin ProtocolMax ProtocolCur DelegateMin DelegateMax DelegateCur id statusText"
    " voter leader version clock_skew_ms running facts"
).split()
"""API.md, point 12."""


def test_job_shows_both_dialects() -> None:
    """Every key of the reference and of the later dialect, with the reference's types."""
    shown = views.job(FakeCluster().add_job("a", run_as_user="bob", tags={"role": "web"}))
    assert set(SEED_KEYS + LATER_KEYS) <= shown.keys()
    assert shown["last_success"] == shown["last_error"] == NEVER
    assert shown["executor_config"] == {"command": "true", "shell": "true", "su": "bob"}


def test_job_status() -> None:
    """The core's word for it: running, or how the last one ended; what is only armed ahead changes nothing."""
    view = FakeCluster().add_job("a")
    assert views.job(view)["status"] == ""
    assert views.job(msgspec.structs.replace(view, last_status="failed"))["status"] == "failed"
    assert views.job(msgspec.structs.replace(view, last_status="running", open_runs=1))["status"] == "running"
    assert views.job(msgspec.structs.replace(view, last_status="failed", open_runs=1))["status"] == "failed"


def test_job_without_a_next_tick() -> None:
    """Never is Go's zero time."""
    assert views.job(msgspec.structs.replace(FakeCluster().add_job("a"), next_wall_us=None))["next"] == NEVER


def an_execution(**more: Any) -> Execution:
    cluster = FakeCluster()
    cluster.add_job("a")
    return cluster.add_execution("a", **more)


def test_execution() -> None:
    """All keys of point 11, durations in milliseconds, exit code and signal as they are."""
    found = an_execution()
    shown = views.execution(found, "a")
    assert set(EXECUTION_KEYS) <= shown.keys()
    assert (shown["lateness_ms"], shown["duration_ms"]) == (2, 1500)
    assert (shown["success"], shown["status"], shown["exit_code"], shown["signal"]) == (True, "success", 0, None)
    assert shown["id"] == found.public_id
    assert shown["output_truncated"] is False


def test_waiting_execution() -> None:
    """Armed, and with a reason why it has not started: it waits, and says for what."""
    armed = an_execution(status=Status.ARMED)
    assert views.execution(armed, "a")["status"] == "armed"
    shown = views.execution(msgspec.structs.replace(armed, reason="all 64 slots of one are in use"), "a")
    assert (shown["status"], shown["reason"]) == ("waiting", "all 64 slots of one are in use")
    failed = an_execution(status=Status.FAILED, reason="exit code 7")
    assert views.execution(failed, "a")["status"] == "failed"


def test_running_execution() -> None:
    """It has not finished: never, and no duration."""
    shown = views.execution(an_execution(status=Status.RUNNING), "a")
    assert (shown["finished_at"], shown["duration_ms"], shown["success"]) == (NEVER, 0, False)


def test_execution_that_never_started() -> None:
    """Skipped ticks: no start, no lateness, the reason and how many."""
    found = an_execution(
        status=Status.SKIPPED, started_wall_us=0, finished_wall_us=0, reason="agent down", count=3, agent="", node_id=""
    )
    shown = views.execution(found, "a")
    assert (shown["started_at"], shown["lateness_ms"], shown["reason"], shown["count"]) == (NEVER, 0, "agent down", 3)
    assert str(shown["id"]).endswith("-none")


@pytest.mark.parametrize(
    ("written", "kept_whole", "limit", "output", "truncated"),
    [
        (5, True, None, "done\n", False),
        (5, True, 5, "done\n", False),
        (5, True, 2, "e\n", True),
        (5, True, 0, "", True),
        (5000, True, None, "done\n", True),
        (5, False, None, "done\n", True),
    ],
)
def test_output_truncated(written: int, kept_whole: bool, limit: int | None, output: str, truncated: bool) -> None:
    """True whenever what is shown is less than what was written."""
    found = an_execution(output_bytes=written, output_truncated=not kept_whole)
    shown = views.execution(found, "a", output_limit=limit)
    assert (shown["output"], shown["output_truncated"]) == (output, truncated)


@given(st.text(), st.integers(0, 40))
def test_last_bytes(text: str, most: int) -> None:
    """The end of the text, whole characters, no more bytes than allowed and never much less."""
    kept = views.last_bytes(text, most)
    assert text.endswith(kept)
    assert len(kept.encode()) <= most
    assert kept == text or len(kept.encode()) > most - 4


def test_member_and_leader() -> None:
    """serf's names, numbers where serf has numbers, the user's tags untouched."""
    shown = views.member(FakeCluster().member_views()[0])
    assert set(MEMBER_KEYS) == shown.keys()
    assert (shown["Status"], shown["statusText"], shown["Tags"]) == (1, "alive", {"role": "web"})


def test_status_page() -> None:
    """`serf` holds only strings, as Dkron's does; `mesh` the same with types."""
    cluster = FakeCluster()
    shown = views.status(cluster.agent_view(), list(cluster.member_views()))
    assert shown["agent"] == {"name": "agent1", "version": "0.1.0"}
    assert shown["tags"] == {"role": "web"}
    serf, mesh = shown["serf"], shown["mesh"]
    assert isinstance(serf, dict)
    assert isinstance(mesh, dict)
    assert {type(value) for value in serf.values()} == {str}
    assert {"members", "failed", "left", "encrypted", "term", "leader"} <= serf.keys()
    assert (serf["encrypted"], mesh["encrypted"], serf["term"], mesh["term"]) == ("true", True, "3", 3)
    assert (mesh["members"], mesh["alive"], mesh["failed"]) == (2, 2, 0)


def test_token_has_no_hash() -> None:
    """Neither the secret nor its hash is ever shown."""
    shown = views.token(Token(id="i", name="n", role="viewer", sha256="abc", created_wall_us=SECOND_US))
    assert "abc" not in str(shown)
    assert shown["expires_at"] == NEVER


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON, st.booleans())
def test_encode(value: object, pretty: bool) -> None:
    """ASCII, whatever stands in it, and what the stdlib reads back is the value."""
    encoded = views.encode(value, pretty)
    assert encoded.isascii()
    assert json.loads(encoded) == value


def test_encode_options() -> None:
    """Slashes stand as they are, and what JSON cannot say is an error, not NaN."""
    assert views.encode({"a": "/usr/bin/date"}) == b'{"a":"/usr/bin/date"}'
    with pytest.raises(OverflowError):
        views.encode(float("nan"))
