"""A real file system that is full (FAULTS 22). Needs root for a tmpfs of its own."""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshcron.store.reserve import RESERVE_BYTES
from tests.integration.agent.real_agent import RealAgent, contents, refusal, wait_for

KIB = 1024
MIB = 1024 * KIB
BLOCK = 4 * KIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")


class Disk:
    """A small file system, and a file that takes what is free of it."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self._filler = mount / "filler"

    @property
    def free(self) -> int:
        """Bytes."""
        disk = os.statvfs(self.mount)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all but so many bytes."""
        with self._filler.open("ab") as file:
            while self.free > leave:
                try:
                    os.write(file.fileno(), b"x" * min(MIB, max(BLOCK, self.free - leave)))
                except OSError:
                    return

    def clear(self) -> None:
        """Give it back."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """As many bytes as the test says."""
    size = getattr(request, "param", 4 * MIB)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "meshcron-test", tmp_path], check=True)
    try:
        yield Disk(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def agent(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAgent]:
    """One whose data lies on the small disk; its log does not."""
    real = RealAgent(disk.mount / "data", log=tmp_path_factory.mktemp("log") / "log")
    yield real
    if real.running:
        real.kill()


def add_until_refused(agent: RealAgent) -> list[str]:
    """Add jobs until one is not acknowledged; the names of those that were."""
    acknowledged: list[str] = []
    for number in range(5000):
        body = {"name": f"job_{number:04}", "schedule": "@manually", "command": f"echo {'x' * 2000}"}
        try:
            answer = agent.client("POST", "/v1/jobs", body)
        except (OSError, http.client.HTTPException):
            return acknowledged
        if answer.status != 201:
            assert answer.status == 503, answer
            return acknowledged
        acknowledged.append(f"job_{number:04}")
    raise AssertionError("the disk never filled up")


def last_line(agent: RealAgent) -> str:
    return agent.log.strip().splitlines()[-1]


def test_it_fills_up_while_the_agent_runs(disk: Disk, agent: RealAgent) -> None:
    """The agent ends with code 1 and a line; with room again every job that was acknowledged is there."""
    agent.start()
    disk.fill(leave=200 * KIB)
    acknowledged = add_until_refused(agent)
    assert len(acknowledged) > 3
    assert agent.process is not None
    assert agent.process.wait(20) == 1
    assert "the disk cannot be written: " in last_line(agent)
    assert last_line(agent).endswith("database or disk is full; free some space on its disk")
    assert "Traceback" not in agent.log
    disk.clear()
    agent.start()
    assert set(acknowledged) <= set(agent.jobs())
    assert len(agent.jobs()) <= len(acknowledged) + 1


def test_it_is_full_at_a_start(disk: Disk, agent: RealAgent) -> None:
    """Refused in a line, whatever little is left; nothing that counts is overwritten by half."""
    agent.start()
    agent.add("kept")
    agent.kill()
    precious = ("database", "database.sums", "node.json", "cluster.key", "admin.token", "local.token")
    before = {name: contents(agent.folder)[name] for name in precious}
    for blocks in range(3):
        disk.fill(leave=blocks * BLOCK)
        line = refusal(agent.folder)
        assert str(agent.folder) in line
        assert line.endswith("; free some space on its disk")
        assert {name: contents(agent.folder)[name] for name in precious} == before
        disk.clear()
    agent.start()
    assert agent.jobs() == ["kept"]


@pytest.mark.parametrize("disk", [size * BLOCK for size in (2, 4, 12, 36, 48, 60)], indirect=True)
def test_it_is_too_small_for_a_first_start(disk: Disk, agent: RealAgent) -> None:
    """Whatever the step that fails: a line. With more room the same folder is made whole."""
    line = refusal(agent.folder)
    assert str(agent.folder) in line
    assert line.endswith("; free some space on its disk")
    subprocess.run(["mount", "-o", f"remount,size={4 * MIB}", disk.mount], check=True)
    agent.start()
    agent.add("first")


@pytest.mark.parametrize("disk", [40 * MIB], indirect=True)
def test_the_reserve_goes_first(disk: Disk, agent: RealAgent) -> None:
    """On a full disk the agent goes on in what it had put by, and says so; it is put by anew once there is room."""
    agent.start()
    reserve = agent.folder / "reserve"
    assert reserve.stat().st_size == RESERVE_BYTES
    disk.fill()
    agent.add("still", command=f"echo {'x' * 60_000}")
    wait_for(lambda: not reserve.exists(), "the reserve is given back")
    agent.add("and_still")
    assert "the disk is full: the reserve was given back; free some space" in last_line(agent)
    agent.call("POST", "/v1/jobs/and_still/run?wait=10")
    assert agent.executions("and_still")[0]["status"] == "success"
    agent.kill()
    disk.clear()
    agent.start()
    assert agent.jobs() == ["and_still", "still"]
    assert reserve.stat().st_size == RESERVE_BYTES
