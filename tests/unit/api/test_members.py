"""Members and leader over HTTP."""

from __future__ import annotations

from meshcron.commands import RemoveMember
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import FakeCluster


def test_members(admin: Client) -> None:
    """Every member, and how many; paged where asked."""
    answer = admin("GET", "/v1/members")
    assert [each["Name"] for each in answer.json] == ["agent1", "agent2"]
    assert answer.headers["X-Total-Count"] == "2"
    assert [each["Name"] for each in admin("GET", "/v1/members?_start=1").json] == ["agent2"]
    assert [each["Name"] for each in admin("GET", "/v1/members?_sort=Name&_order=DESC").json] == ["agent2", "agent1"]
    assert admin("GET", "/v1/members?_sort=nonsense").error["field"] == "_sort"


def test_leader(admin: Client, cluster: FakeCluster) -> None:
    """The member that leads; 503 while none does."""
    assert admin("GET", "/v1/leader").json == admin("GET", "/v1/members").json[0]
    cluster.no_leader()
    answer = admin("GET", "/v1/leader")
    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "no_leader", "1")


def test_isleader(admin: Client, cluster: FakeCluster) -> None:
    """200 on the leader, 404 elsewhere."""
    assert admin("GET", "/v1/isleader").status == 200
    cluster.leader = "agent2"
    assert admin("GET", "/v1/isleader").status == 404
    cluster.no_leader()
    assert admin("GET", "/v1/isleader").status == 404


def test_a_newcomer_that_took_the_name_is_not_taken_for_this_agent(admin: Client, cluster: FakeCluster) -> None:
    """This agent was silent for long, and is `agent1~1` to the others: it leaves, not the newcomer, and leads or not,
    whoever has its name."""
    cluster.names = {"node-2": "agent1", "node-1": "agent1~1"}
    assert admin("GET", "/v1/isleader").status == 404
    cluster.leader = "agent1~1"
    assert admin("GET", "/v1/isleader").status == 200
    answer = admin("POST", "/v1/leave")
    assert (answer.status, answer.json) == (202, {"name": "agent1~1", "id": "node-1", "leaving": True})
    assert [command for command, _ in cluster.commands] == [RemoveMember("node-1", "admin@127.0.0.1")]


def test_a_member_goes_by_its_name(admin: Client, cluster: FakeCluster) -> None:
    """Or by its node id."""
    for named in ("agent2", "node-2"):
        assert admin("DELETE", f"/v1/members/{named}").json == {"name": "agent2", "id": "node-2", "leaving": True}
