"""The majority is gone for good (FAULTS 19): nothing is taken any more, `recover` on the survivor, and life goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.checker import COMMAND, read_starts
from tests.integration.agent.real_agent import meshcron, wait_for
from tests.integration.mesh.real_cluster import MeshAgent, RealCluster, Watch

JOIN_SECONDS = 60.0
"""Two newcomers are members within seconds, and vote after 10 s of good conduct."""


def recover(agent: MeshAgent, cluster: RealCluster) -> tuple[int, str]:
    """What it says, on either stream."""
    where = ("--data-dir", agent.folder, "--key-file", cluster.key_file, "--mdns-interface", "127.0.0.1")
    done = meshcron("recover", *where)
    return done.returncode, done.stdout + done.stderr


def node_id(agent: MeshAgent) -> str:
    """Whose directory it is, whether its agent runs or not."""
    return str(json.loads((agent.folder / "node.json").read_text())["identity"]["node_id"])


def reasons(agent: MeshAgent) -> set[str]:
    """Why executions of the job are recorded as lost."""
    return {one["reason"] for one in agent.executions("before") if one["status"] == "lost"}


@pytest.mark.slow
def test_19_the_majority_is_lost_for_good(folder: Path) -> None:
    """Two of three data directories are gone. Writes are answered 503 until the survivor is recovered; it is not while
    others can go on. Two new agents then vote beside it. Of the old ones one comes back with its disk: it never leads,
    says why, and is a new agent with the jobs as they are now. From the recovery on no tick is missing and none
    doubled. What the lost majority alone knew is gone; no agent starts a tick again that it had started before."""
    folder.mkdir()
    cluster = RealCluster(folder, ["left", "gone", "found", "new1", "new2"])
    left, gone, found, new1, new2 = every = cluster.agents
    cluster.agents = [left, gone, found]
    try:
        cluster.start(voters=3)
        starts = folder / "before"
        left.add("before", COMMAND.format(file=starts), "* * * * * *", concurrency="allow")
        for agent in cluster.agents:
            wait_for(lambda: agent.jobs() == ["before"], "the job everywhere")  # noqa: B023 - called here

        left.kill()
        code, said = recover(left, cluster)
        assert code == 1, said
        assert "start this agent" in said or "holds a newer log" in said
        old_id = node_id(found)
        gone.kill()
        shutil.rmtree(gone.folder)
        code, said = recover(left, cluster)
        assert (code, "nothing was changed" in said) == (1, True), said  # two of three are there
        found.kill()
        kept = found.folder.rename(folder / "kept")
        left.start()
        wait_for(lambda: left.client("GET", "/v1/leader").status != 200, "the loss of the leader")
        write = {"name": "after", "schedule": "@every 1h", "command": "echo after"}
        assert left.client("POST", "/v1/jobs", write).status == 503

        code, said = recover(left, cluster)
        assert (code, "is in use by another agent" in said) == (1, True), said
        left.kill()
        code, said = recover(left, cluster)
        assert code == 0, said
        assert "generation 1" in said
        assert "not reached: found, gone" in said
        left.start()
        left.add("after", "echo after", "@every 1h")
        assert left.mesh["generation"] == 1
        wait_for(lambda: "recovered" in reasons(left), "the record of what was lost")

        cluster.agents = [left]
        count = len(read_starts(starts))
        wait_for(lambda: len(read_starts(starts)) > count, "the end of what the others may have decided ahead")
        watch = Watch(cluster, "recovered", everywhere=False)  # more and more agents are targets of the other job
        watch.begin()
        cluster.agents = [left, new1, new2]
        for agent in (new1, new2):
            agent.start()
        cluster.heal(voters=3, seconds=JOIN_SECONDS)
        for agent in (new1, new2):
            assert sorted(agent.jobs()) == ["after", "before", "single-recovered"]

        kept.rename(found.folder)
        found.start()
        wait_for(lambda: node_id(found) != old_id, "a new identity", 40)
        wait_for(lambda: found.client("GET", "/ready").status == 200, "its place among them", 40)
        assert sorted(found.jobs()) == ["after", "before", "single-recovered"]
        assert found.leader_name in {"left", "new1", "new2"}
        (why,) = found.folder.glob("set-aside-*/why")
        assert "its cluster was recovered without it" in why.read_text()
        assert "this cluster was recovered (generation 1)" in found.log
        assert old_id not in {one["id"] for one in left.members}
        cluster.agents.append(found)
        watch.end()
        again = Counter((one.tick_us, one.agent, one.attempt) for one in read_starts(starts))
        assert {one.agent for one in read_starts(starts)} == {agent.name for agent in every}
        assert max(again.values()) == 1, [one for one, count in again.items() if count > 1]
    finally:
        for agent in every:
            if agent.running:
                agent.kill()
