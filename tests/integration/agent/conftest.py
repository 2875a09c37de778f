"""A real agent for a test, which it does not outlive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.real_agent import RealAgent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RealAgent]:
    """One that runs."""
    real = RealAgent(tmp_path / "data")
    real.start()
    yield real
    if real.running:
        real.stop()
