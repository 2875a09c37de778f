"""The status page, health and readiness over HTTP."""

from __future__ import annotations

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
