"""Damaged and full disks among three voters (FAULTS 22, 24, 25): the other two go on, no tick is lost or doubled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from meshcron.store.hard_state import HardStateFile
from meshcron.store.store import HARD_STATE
from meshcron.store.wal import scan
from tests.integration.agent.real_agent import contents, meshcron, refusal, wait_for
from tests.integration.agent.test_damage import FRAME_BYTES, WAL_HEADER_BYTES, flip
from tests.integration.agent.test_full_disk import MIB, Disk
from tests.integration.mesh.real_cluster import MeshAgent, RealCluster, Watch

DISK_BYTES = 40 * MIB
"""Room for the reserve of 8 MiB and what it keeps free."""

PAGE_BYTES = 4096

SOME_FRAMES = 100
"""Three times as many as a transaction has here: a bad one in the middle shows by what was committed behind it."""

RETURN_SECONDS = 60.0
"""Who comes back under another node id takes its name after 30 s of silence."""


def flip_the_database(folder: Path) -> Path:
    """A bit of a page that the `-wal` holds no newer copy of; returns the damaged file."""
    database, wal = folder / "database", (folder / "database-wal").read_bytes()
    newer = {int.from_bytes(wal[at : at + 4], "big") for at in range(WAL_HEADER_BYTES, len(wal), FRAME_BYTES)}
    page = max(set(range(2, database.stat().st_size // PAGE_BYTES + 1)) - newer)
    flip(database, page * PAGE_BYTES - 100)
    return database


def flip_the_wal(folder: Path) -> Path:
    """A bit in the middle of what counts in the `-wal`: behind it may stand what an earlier round has left."""
    wal = folder / "database-wal"
    flip(wal, WAL_HEADER_BYTES + scan(wal).frames // 2 * FRAME_BYTES + 1000)
    return wal


def roll_back(folder: Path) -> Path:
    """The database knows nothing of a term that this agent has promised: as if put back to an earlier day."""
    file = HardStateFile(folder / HARD_STATE)
    file.open()
    file.write_both(replace(file.state, term=file.state.term + 1))
    file.close()
    return folder / "database"


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip_the_wal, flip_the_database, roll_back])
def test_24_a_flipped_bit_on_a_follower(cluster: RealCluster, damage: Callable[[Path], Path]) -> None:
    """Killed, damaged, started: it asks the others, which go on without it, sets its files aside, says so, and is back
    by itself as a new member. The old one keeps its seat until it is removed."""
    watch = Watch(cluster, damage.__name__.replace("_", "-"), everywhere=False)  # the old member is a target, too
    watch.begin()
    hurt, other = cluster.followers[0], cluster.leader
    old_id = hurt.record["node_id"]
    wait_for(lambda: scan(hurt.folder / "database-wal").frames > SOME_FRAMES, "more than the last transaction")
    watch.kill(hurt)
    said_before, aside_before = len(hurt.log), set(hurt.folder.glob("set-aside-*"))
    file = damage(hurt.folder)
    damaged = contents(hurt.folder)
    hurt.start()
    assert hurt.record["node_id"] != old_id
    said = hurt.log[said_before:]
    [loud] = [line for line in said.splitlines() if "the database is damaged" in line]
    [aside] = set(hurt.folder.glob("set-aside-*")) - aside_before
    assert str(file) in loud
    assert str(aside) in loud
    assert f"{other.name} leads its cluster" in loud
    there = contents(aside)
    assert {"database", "database-wal", HARD_STATE, "why"} <= there.keys()
    kept = there.keys() - {"why", "database-shm"}  # SQLite's own, made anew whenever it looks
    assert {name: there[name] for name in kept} == {name: damaged[name] for name in kept}
    wait_for(
        lambda: {one["id"]: one["Name"] for one in other.members}.get(old_id) != hurt.name, "its return", RETURN_SECONDS
    )
    [left] = [one["Name"] for one in other.members if one["id"] == old_id]
    assert meshcron("members", "rm", left, MESHCRON_DATA_DIR=str(other.folder)).returncode == 0
    cluster.heal()
    assert hurt.jobs() == other.jobs()
    watch.back(hurt)
    watch.end()
    watch.remove()


@pytest.mark.slow
def test_a_damaged_voter_is_refused_where_nobody_says_that_others_lead(cluster: RealCluster) -> None:
    """All have lost their power, and the only one that is back has a damaged disk: what lies there may be all that is
    left. It is refused and touches nothing, also beside one other, which leads nobody; salvaged, it is none of the
    voters any more. Without the cluster key nobody can be asked."""
    hurt, beside, third = cluster.agents
    wait_for((hurt.folder / "others").exists, "the note of the others")
    for agent in cluster.agents:
        agent.kill()
    file = flip_the_database(hurt.folder)
    (hurt.folder / "agent.json").unlink()
    before = contents(hurt.folder)
    assert "its key is not here" in refusal(hurt.folder)
    for _ in range(2):
        line = refusal(hurt.folder, "--key-file", cluster.key_file)
        assert line.startswith(f"{file}: ")
        assert "`meshcron recover --salvage` sets the damaged files aside" in line
        assert "It cannot join anew by itself: nobody says that others lead its cluster" in line
        assert contents(hurt.folder) == before
        if not beside.running:
            beside.start()
    third.start()
    wait_for(lambda: beside.leader_name in {beside.name, third.name}, "a leader without it")
    hurt.start()
    assert "the database is damaged" in hurt.log
    [left] = [
        one["Name"] for one in beside.members if one["id"] not in {each.record["node_id"] for each in cluster.agents}
    ]
    assert meshcron("members", "rm", left, MESHCRON_DATA_DIR=str(beside.folder)).returncode == 0
    cluster.heal()


def ballot(folder: Path) -> tuple[int, str]:
    """Term and vote, as the file that must never fall has them."""
    file = HardStateFile(folder / HARD_STATE)
    file.open()
    file.close()
    return file.state.term, file.state.voted_for


@pytest.mark.slow
def test_25_a_torn_end_of_the_log(cluster: RealCluster, watch: Watch) -> None:
    """The `-wal` of a killed follower is cut at ever less: into nothing, into its half, a hundred frames before its
    end, in its last frame, at its last byte. Each start goes on with all that it has promised, or is refused and
    touches nothing; its vote is never forgotten. From where it can, it follows again."""
    torn = cluster.followers[0]
    watch.wait_for_more(3)
    watch.kill(torn)
    before = ballot(torn.folder)
    wal = torn.folder / "database-wal"
    whole = wal.read_bytes()
    (torn.folder / "agent.json").unlink()  # no start touches anything else
    (torn.folder / "others").unlink()  # without this note it asks nobody, and does not join anew
    refused = 0
    for size in (0, len(whole) // 2, len(whole) - 100 * FRAME_BYTES, len(whole) - FRAME_BYTES // 2, len(whole) - 1):
        wal.write_bytes(whole[: max(0, size)])
        files = contents(torn.folder)
        torn.spawn()
        wait_for(lambda: not torn.running or (torn.folder / "agent.json").exists(), "a start or a refusal")
        if torn.running:
            break
        refused += 1
        assert contents(torn.folder) == files
        assert "`meshcron recover --salvage`" in torn.log.strip().splitlines()[-1]
    assert refused
    if not torn.running:
        wal.write_bytes(whole)
    cluster.heal()
    after = ballot(torn.folder)
    assert after[0] > before[0] or after == before
    watch.back(torn)
    watch.end()


@contextmanager
def small_disks(folders: list[Path]) -> Iterator[dict[str, Disk]]:
    """A file system for each folder, by its name."""
    try:
        for folder in folders:
            folder.mkdir(parents=True)
            words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "meshcron-test", str(folder)]
            subprocess.run(words, check=True)
        yield {folder.name: Disk(folder) for folder in folders}
    finally:
        for folder in folders:
            if folder.is_mount():
                subprocess.run(["umount", folder], check=True)


def until_it_ends(agent: MeshAgent, leader: MeshAgent) -> None:
    """Its disk is full: writes go on until it cannot do them, and it ends with a line that says so."""
    body = {"schedule": "@manually", "command": f"echo {'x' * 60_000}"}
    for number in range(2000):
        if not agent.running:
            break
        try:
            leader.client("POST", "/v1/jobs", body | {"name": f"fat-{number % 3}"})
        except OSError:
            break  # the leader itself
    assert agent.process is not None
    assert agent.process.wait(20) == 1
    assert agent.log.strip().splitlines()[-1].endswith("; free some space on its disk")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_22_a_full_disk(folder: Path) -> None:
    """Of a follower: it gives its reserve back, then it acknowledges nothing more and ends. Of the leader: it ends, and
    another one leads. Each comes back once there is room, and every tick has its record."""
    names = ["one", "two", "three"]
    with small_disks([folder / name for name in names]) as disks:
        cluster = RealCluster(folder, names)
        try:
            cluster.start(voters=3)
            watch = Watch(cluster, "full")
            watch.begin()
            for full in (cluster.followers[0], cluster.leader):
                disks[full.name].fill()
                watch.away(full)
                until_it_ends(full, cluster.leader)
                assert not (full.folder / "reserve").exists()
                others = [one for one in cluster.agents if one is not full]
                wait_for(
                    lambda: len({one.leader_name for one in others} - {"", full.name}) == 1,  # noqa: B023 - called here
                    "a leader of the others",
                )
                watch.wait_for_more(2)
                disks[full.name].clear()
                cluster.heal()
                watch.back(full)
            watch.end(late_us=10 * 1_000_000)
        finally:
            cluster.close()
