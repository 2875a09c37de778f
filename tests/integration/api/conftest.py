"""An agent to talk to: a real one in a process of its own, or the one at MESHCRON_TEST_URL with MESHCRON_TEST_TOKEN."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.agent.real_agent import RealAgent
from tests.integration.api.agent_under_test import Agent


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A running agent; each test leaves it without jobs of its own."""
    url = os.environ.get("MESHCRON_TEST_URL")
    if url:
        yield Agent(url.rstrip("/"), os.environ.get("MESHCRON_TEST_TOKEN", ""))
        return
    real = RealAgent(tmp_path_factory.mktemp("agent") / "data")
    real.start()
    try:
        yield Agent(real.url, real.token)
    finally:
        assert real.stop() == 0
