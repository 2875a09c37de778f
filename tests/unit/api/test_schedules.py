"""Schedules explained over HTTP."""

from __future__ import annotations

import pytest

from tests.unit.api.api_client import Client


def test_explain(admin: Client) -> None:
    """In words, with the next five ticks, or as many as asked."""
    answer = admin("GET", "/v1/explain?schedule=0+30+*+*+*+*&timezone=Europe/Berlin")
    assert (answer.json["schedule"], answer.json["timezone"]) == ("0 30 * * * *", "Europe/Berlin")
    assert (len(answer.json["next"]), answer.json["next"][0]) == (5, "2030-01-01T00:00:00Z")
    assert len(admin("GET", "/v1/explain?schedule=@daily&count=7").json["next"]) == 7


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "schedule"),
        ("schedule=", "schedule"),
        ("schedule=0+60+*+*+*+*", "schedule"),
        ("schedule=" + "x" * 257, "schedule"),
        ("schedule=%00", "schedule"),
        ("schedule=@daily&timezone=%20", "timezone"),
        ("schedule=@daily&count=0", "count"),
        ("schedule=@daily&count=101", "count"),
    ],
)
def test_bad(admin: Client, query: str, field: str) -> None:
    """The parameter at fault, for a schedule with its column."""
    answer = admin("GET", f"/v1/explain?{query}")
    assert (answer.status, answer.error["field"]) == (400, field)
    if "60" in query:
        assert answer.error["column"] == 3
