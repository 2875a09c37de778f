"""An agent to talk to: the one at MESHCRON_TEST_URL with MESHCRON_TEST_TOKEN, else the API over a fake cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helper beside the tests that use it

from agent_under_test import Agent

FAKE = Path(__file__).parents[2] / "unit" / "api" / "api_fake.py"


@pytest.fixture(scope="session")
def agent() -> Iterator[Agent]:
    """A running agent, in a process of its own."""
    url = os.environ.get("MESHCRON_TEST_URL")
    if url:
        yield Agent(url.rstrip("/"), os.environ.get("MESHCRON_TEST_TOKEN", ""))
        return
    with subprocess.Popen(
        [sys.executable, FAKE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Agent(said["url"], said["token"])
        process.communicate(timeout=10)
