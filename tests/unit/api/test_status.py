"""The status page, health and readiness over HTTP."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import FakeCluster


def test_status_page(admin: Client) -> None:
    """What the reference shows, and more."""
    page = admin("GET", "/v1/").json
    assert page["agent"] == {"name": "agent1", "version": "0.1.0"}
    assert (page["serf"]["members"], page["mesh"]["members"]) == ("2", 2)


def test_health_and_readiness(stranger: Client, cluster: FakeCluster) -> None:
    """Both without a token; ready says why not."""
    assert stranger("GET", "/health").json == {"status": "healthy"}
    assert stranger("GET", "/ready").json == {"status": "ready"}
    cluster.no_leader()
    answer = stranger("GET", "/ready")
    assert (answer.status, answer.error["message"], answer.headers["Retry-After"]) == (503, "no leader", "1")
    assert stranger("GET", "/health").status == 200


def metrics(client: Client) -> dict[tuple[str, ...], float]:
    """Name and label values -> value, as Prometheus reads them."""
    answer = client("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.body.decode())
    return {(each.name, *each.labels.values()): each.value for one in families for each in one.samples}


def test_metrics(admin: Client, stranger: Client, cluster: FakeCluster) -> None:
    """In Prometheus's format, for whoever has a token: where this agent stands, and what was refused."""
    found = metrics(admin)
    assert (found["meshcron_up",], found["meshcron_ready",], found["meshcron_is_leader",]) == (1, 1, 1)
    assert (found["meshcron_members", "alive"], found["meshcron_members", "failed"]) == (2, 0)
    assert found["meshcron_voters",] == 2
    assert found["meshcron_refused_total", "gate", "handshake"] == 3
    assert found["meshcron_refused_total", "api", "wrong_token"] == 0
    assert stranger("GET", "/metrics").status == 401
    cluster.no_leader()
    found = metrics(admin)
    assert (found["meshcron_ready",], found["meshcron_is_leader",], found["meshcron_has_leader",]) == (0, 0, 0)


def test_wrong_tokens_are_counted(admin: Client, port: int) -> None:
    """Not those that were not sent."""
    Client(port)("GET", "/v1/")
    for _ in range(3):
        assert Client(port, "wrong")("GET", "/v1/").status == 401
    assert metrics(admin)["meshcron_refused_total", "api", "wrong_token"] == 3
