"""Who an agent is, when disks are wiped or copied and when several start in the same instant."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from meshcron.store import directory
from tests.integration.agent.real_agent import contents, meshcron, refusal, wait_for
from tests.integration.mesh.real_cluster import MeshAgent, RealCluster, Watch

PAIR_SECONDS = 20.0
"""Two that start in the same instant are one cluster after 3 s."""

PASSING = shutil.ignore_patterns("agent.json", "lock", "executions", "*.new")
"""Of the process that runs there, and what comes and goes while it does: a copy would meet some of it half gone."""


def pair_story(folder: Path, rounds: int) -> None:
    """Two fresh nodes of one key start in the same instant: one cluster, each time. Jobs added at once run on both, and
    each tick has its one start and record."""
    folder.mkdir()
    for number in range(rounds):
        pair = RealCluster(folder / str(number), ["left", "right"])
        try:
            for agent in pair.agents:
                agent.spawn()
            for agent in pair.agents:
                agent.wait()
            pair.heal(voters=1, seconds=PAIR_SECONDS)
            pair.agents[number % 2].add("first", "echo both")
            for agent in pair.agents:
                wait_for(lambda: agent.jobs() == ["first"], "the job on both")  # noqa: B023 - called here
            watch = Watch(pair, "pair")
            watch.begin()
            watch.end()
        finally:
            pair.close()
        shutil.rmtree(pair.folder)


def test_20_two_fresh_nodes_in_the_same_instant(folder: Path) -> None:
    """A short dose."""
    pair_story(folder, 1)


@pytest.mark.slow
def test_20_two_fresh_nodes_in_the_same_instant_ten_times(folder: Path) -> None:
    """A longer one."""
    pair_story(folder, 10)


@pytest.mark.named
def test_20_two_fresh_nodes_in_the_same_instant_a_hundred_times(folder: Path) -> None:
    """The full dose."""
    pair_story(folder, 100)


@pytest.mark.slow
def test_21_a_wiped_disk(cluster: RealCluster) -> None:
    """A voter's data directory is gone, and the others have started since, so that nobody remembers its starts. It
    comes back on its old ports, under its name and key. Where node.json alone is left it does not start: under its old
    node id it would vote again in a term in which it has voted. Under a new one it is a new member, which takes the
    name after 30 s of silence and holds what the others hold. The old one keeps only its seat, until an operator
    removes it: then the new one votes."""
    watch = Watch(cluster, "wiped", everywhere=False)  # the old member is a target of its own until it is removed
    watch.begin()
    wiped, other = cluster.followers[0], cluster.leader
    old_id = wiped.record["node_id"]
    ports = [(f"--{name}-port", str(wiped.record[f"{name}_port"])) for name in ("gate", "mesh", "pub")]
    same_place = [word for port in ports for word in port]
    watch.kill(wiped)
    for one in cluster.agents:
        if one is not wiped:
            watch.kill(one)
            one.start()
    wait_for(lambda: other.leader_name, "a leader without it")
    for path in wiped.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "node.json":
            path.unlink()
    before = contents(wiped.folder)
    wiped.spawn(*same_place)
    assert wiped.process is not None
    assert wiped.process.wait(30) == 1, wiped.log
    assert "hard_state: missing, though the agent has started before" in wiped.log.strip().splitlines()[-1]
    assert contents(wiped.folder) == before
    shutil.rmtree(wiped.folder)
    wiped.spawn(*same_place)
    wait_for(lambda: {one["id"]: one["Name"] for one in other.members}.get(old_id) != wiped.name, "its return", 60)
    [left] = [one["Name"] for one in other.members if one["id"] == old_id]
    assert [one["voter"] for one in other.members if one["Name"] == wiped.name] == [False]
    assert meshcron("members", "rm", left, MESHCRON_DATA_DIR=str(other.folder)).returncode == 0
    cluster.heal()
    assert old_id not in {one["id"] for agent in cluster.agents for one in agent.members}
    assert wiped.jobs() == other.jobs()
    watch.back(wiped)
    watch.end()
    watch.remove()


def believe(folder: Path) -> None:
    """Have a copied folder's node.json say that it was made where it lies, as no check at a start can tell."""
    file = folder / "node.json"
    kept = msgspec.json.decode(file.read_bytes(), type=directory._NodeFile)
    there = folder.stat()
    place = msgspec.structs.replace(kept.place, st_dev=there.st_dev, st_ino=there.st_ino)
    kept = msgspec.structs.replace(kept, place=place)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(kept, check=directory._check(kept))))


@pytest.mark.slow
def test_a_copy_that_no_check_at_its_start_can_tell(cluster: RealCluster, tmp_path: Path) -> None:
    """It runs beside its original: the others refuse it and it ends, in a line that says what to do; no tick is started
    twice. Told to go on, it is one more member."""
    original = cluster.followers[0]
    watch = Watch(cluster, "twin", everywhere=False)
    watch.begin()
    copy = MeshAgent(tmp_path / "copy", cluster.key_file)
    assert original.process is not None
    original.pause()  # `-wal` and hard_state of one instant: else the copy may be refused as damaged
    try:
        os.waitid(os.P_PID, original.process.pid, os.WSTOPPED)
        shutil.copytree(original.folder, copy.folder, ignore=PASSING)
    finally:
        original.resume()
    believe(copy.folder)
    copy.name = original.name
    copy.spawn()
    assert copy.process is not None
    try:
        assert copy.process.wait(30) == 1, copy.log
        assert "copy of this data directory" in copy.log
        assert "--adopt-data-dir" in copy.log
        assert original.running
        copy.name = "copy"
        copy.start("--adopt-data-dir")
        wait_for(lambda: len(cluster.leader.members) == 4, "a fourth member")
    finally:
        cluster.leader.client("DELETE", "/v1/members/copy")
        if copy.running:
            copy.kill()
    watch.end()
    watch.remove()


def test_a_copy_of_a_data_directory(cluster: RealCluster, tmp_path: Path) -> None:
    """Copied while its agent runs: it does not start as a second self, in one line that says what to do. Told to go on
    all the same, it is no second cluster with the same jobs either: its database is set aside, and under a new node id
    it is one more member. No tick is disturbed."""
    watch = Watch(cluster, "copied", everywhere=False)  # a fourth member is a target of the other job
    watch.begin()
    copy = MeshAgent(tmp_path / "copy", cluster.key_file)
    shutil.copytree(cluster.followers[0].folder, copy.folder, ignore=PASSING)
    assert "--adopt-data-dir" in refusal(copy.folder, "--key-file", cluster.key_file)
    try:
        copy.start("--adopt-data-dir")
        wait_for(lambda: len(cluster.leader.members) == 4, "a fourth member")
        wait_for(lambda: copy.client("GET", "/ready").status == 200, "its place among them")
        assert copy.leader_name == cluster.leader.name
        assert {one["Name"]: one["voter"] for one in copy.members} == dict.fromkeys(cluster.names, True) | {
            "copy": False
        }
        wait_for(lambda: copy.jobs() == cluster.leader.jobs(), "the jobs")
        assert list(copy.folder.glob("set-aside-*/database"))
        assert not (copy.folder / "recovered").exists()
    finally:
        cluster.leader.client("DELETE", "/v1/members/copy")
        copy.kill()
    watch.end()
    watch.remove()
