"""One cluster of three voters for all tests here: forming it takes a quarter of a minute. Each test finds it whole and
leaves it so, or the next one fails with that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.mesh.real_cluster import RealCluster, Watch


@pytest.fixture(scope="session")
def formed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    real = RealCluster(tmp_path_factory.mktemp("mesh"), ["one", "two", "three"])
    try:
        real.start(voters=3)
        yield real
    finally:
        real.close()


@pytest.fixture
def cluster(formed: RealCluster) -> RealCluster:
    """Three agents, three voters, all well."""
    formed.heal()
    return formed


@pytest.fixture
def watch(cluster: RealCluster, request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Two jobs with a tick each second, under the checker once the test calls `end`."""
    label = "".join(letter if letter.isalnum() else "-" for letter in request.node.name).strip("-").lower()
    watched = Watch(cluster, label[-60:].strip("-"))
    watched.begin()
    yield watched
    watched.remove()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For a cluster of the test's own."""
    return tmp_path / "own"
