"""Networks of namespaces for these stories; skipped, with the reason, where none can be made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.everywhere import Everywhere
from tests.netns.machines import Lan
from tests.netns.network import why_not


@pytest.fixture(scope="session")
def networks_work() -> None:
    """Skips where there can be no network."""
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def trio(networks_work: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """Three voters. They are whole again at the end of each story that cuts them."""
    lan = Lan("trio", tmp_path_factory.mktemp("trio"), 3)
    try:
        lan.start()
        lan.wait_until_whole(voters=3)
        yield lan
    finally:
        lan.close()


@pytest.fixture
def ticks(trio: Lan, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Everywhere]:
    """A job each second on the three, which agree again when the story is over."""
    job = Everywhere(trio, request.node.name[:100].replace("[", "-").replace("]", ""), tmp_path / "starts")
    trio.wait_until_whole(voters=3)
    job.begin()
    yield job
    trio.network.heal()
    trio.wait_until_whole(voters=3)
    job.end()
