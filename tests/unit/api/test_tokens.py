"""Tokens over HTTP."""

from __future__ import annotations

import pytest

from meshcron.api.auth import token_hash
from meshcron.commands import PutToken
from meshcron.model import SECOND_US
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import NOW_US, FakeCluster


def test_make_use_and_revoke(admin: Client, cluster: FakeCluster) -> None:
    """The secret is in the answer to its making and nowhere else; it opens until it is revoked."""
    made = admin("POST", "/v1/tokens", {"name": "ci", "role": "operator", "expires_in": "90d"})
    assert made.status == 201
    assert made.headers["Location"] == f"/v1/tokens/{made.json['id']}"
    assert (made.json["role"], made.json["expires_at"]) == ("operator", "2030-04-01T00:00:00Z")
    secret = made.json["token"]
    assert Client(admin.port, secret)("GET", "/v1/jobs").status == 200
    command, _ = cluster.commands[0]
    assert isinstance(command, PutToken)
    assert command.token.sha256 == token_hash(secret)
    assert secret not in repr(command)
    listed = admin("GET", "/v1/tokens")
    assert "ci" in {each["name"] for each in listed.json}
    assert secret.encode() not in listed.body
    assert command.token.sha256.encode() not in listed.body
    gone = admin("DELETE", f"/v1/tokens/{made.json['id']}")
    assert (gone.status, gone.json["name"]) == (200, "ci")
    assert Client(admin.port, secret)("GET", "/v1/jobs").status == 401


def test_expiry_at_an_instant(admin: Client, cluster: FakeCluster) -> None:
    """Valid until then, and no longer; an instant that has passed is a slip."""
    body = {"name": "ci", "role": "viewer", "expires_at": "2030-01-01T01:00:00Z"}
    secret = admin("POST", "/v1/tokens", body).json["token"]
    assert Client(admin.port, secret)("GET", "/v1/jobs").status == 200
    cluster.wall_us = NOW_US + 3600 * SECOND_US
    assert Client(admin.port, secret)("GET", "/v1/jobs").status == 401
    answer = admin("POST", "/v1/tokens", {**body, "name": "late"})
    assert (answer.status, answer.error["field"]) == (400, "expires_at")


@pytest.mark.parametrize("nothing", [0, "0s", "0d", "", "0"])
def test_a_token_for_no_time_is_refused(admin: Client, cluster: FakeCluster, nothing: object) -> None:
    """It was made, and never expired."""
    answer = admin("POST", "/v1/tokens", {"name": "ci", "role": "viewer", "expires_in": nothing})
    assert (answer.status, answer.error["field"]) == (400, "expires_in")
    assert answer.error["hint"] == "such as 90d; leave it out for a token that never expires"
    assert not cluster.commands


def test_name_in_use(admin: Client) -> None:
    """409, and the first one stays."""
    body = {"name": "ci", "role": "viewer"}
    assert admin("POST", "/v1/tokens", body).status == 201
    assert admin("POST", "/v1/tokens", body).status == 409


def test_unknown(admin: Client) -> None:
    """Nothing to revoke."""
    assert admin("DELETE", "/v1/tokens/none").error["code"] == "not_found"


def test_repeated_call(admin: Client, cluster: FakeCluster) -> None:
    """A repeated call is answered with the first one's token, whose secret nobody knows any more: none is shown."""
    first = admin("POST", "/v1/tokens", {"name": "ci", "role": "viewer"}, {"Idempotency-Key": "k"})
    stored = cluster.token_rows[first.json["id"]]

    async def remembered(command: object, key: str) -> object:
        return stored

    cluster.propose = remembered  # type: ignore[method-assign]
    second = admin("POST", "/v1/tokens", {"name": "ci", "role": "viewer"}, {"Idempotency-Key": "k"})
    assert second.json["id"] == first.json["id"]
    assert "token" not in second.json


def test_a_page_of_tokens(admin: Client) -> None:
    """As every list: a part of it, in either order, and how many there are; a bad value is named."""
    whole = [each["id"] for each in admin("GET", "/v1/tokens").json]
    answer = admin("GET", "/v1/tokens?_start=1&_end=3")
    assert ([each["id"] for each in answer.json], answer.headers["X-Total-Count"]) == (whole[1:3], str(len(whole)))
    turned = admin("GET", "/v1/tokens?_sort=created_at&_order=DESC")
    assert [each["id"] for each in turned.json] == whole[::-1]
    assert admin("GET", "/v1/tokens?_start=x").error["field"] == "_start"
    assert admin("GET", "/v1/tokens?_sort=nonsense").error["field"] == "_sort"
