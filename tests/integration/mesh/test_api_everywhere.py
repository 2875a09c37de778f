"""Any agent answers the API: what is written through one is read there at once, and soon everywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.agent.real_agent import meshcron, wait_for
from tests.integration.mesh.real_cluster import MeshAgent, RealCluster

FAIL_OVER_SECONDS = 3.0
"""As in test_faults.py; a call to an agent that has ended would wait for twice as long."""

SOON_SECONDS = 1.0
"""An acknowledged write is read on every agent within this (PROTOCOL 10, 14)."""


def test_members_and_leader_are_true_everywhere(cluster: RealCluster) -> None:
    """Each agent tells of the same members under their names, tags and true ports, and of one leader; only that one
    says that it leads."""
    for agent in cluster.agents:
        assert {one["Name"]: one["Tags"] for one in agent.members} == {
            "one": {"role": "web"},
            "two": {"role": "web"},
            "three": {"role": "db"},
        }
        for one in agent.members:
            assert (one["Addr"], one["statusText"], one["voter"]) == ("127.0.0.1", "alive", True)
            assert cluster[one["Name"]].call("GET", "/v1/")["agent"]["name"] == one["Name"]
        ports = {one["Name"]: one["Port"] for one in agent.members}
        assert ports == {each.name: each.record["mesh_port"] for each in cluster.agents}
        assert agent.leader_name == cluster.leader.name
        assert agent.client("GET", "/v1/isleader").status == (200 if agent is cluster.leader else 404)
    assert len({(agent.mesh["cluster"], agent.mesh["term"], agent.mesh["voters"]) for agent in cluster.agents}) == 1


@pytest.fixture
def name(cluster: RealCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a job that the test adds."""
    job: str = request.node.name.replace("_", "-")[:60].rstrip("-")
    yield job
    cluster.leader.client("DELETE", f"/v1/jobs/{job}")


def test_a_write_through_any_agent_is_read_back_at_once(cluster: RealCluster, name: str) -> None:
    """Twenty edits through each agent, each read back from the same agent by the next request: never an older one; and
    within a second from every other."""
    for agent in cluster.agents:
        for number in range(20):
            command = f"echo {agent.name} {number}"
            agent.add(name, command)
            assert agent.call("GET", f"/v1/jobs/{name}")["command"] == command
        for other in cluster.agents:
            wait_for(lambda: other.call("GET", f"/v1/jobs/{name}")["command"] == command, "the edit", SOON_SECONDS)  # noqa: B023
    through = cluster.followers[0]
    through.call("DELETE", f"/v1/jobs/{name}")
    assert through.client("GET", f"/v1/jobs/{name}").status == 404


def test_a_run_through_any_agent_is_read_back_at_once(cluster: RealCluster, name: str) -> None:
    """Its executions are read from the agent's own disk: each of thirty runs is there for the next request, and after
    the history was cleared there is none."""
    for agent in cluster.agents:
        agent.add(name, "true", tags={"role": "db"})
        for number in range(1, 31):
            run = agent.client("POST", f"/v1/jobs/{name}/run").headers["X-Meshcron-Run"]
            shown = agent.call("GET", f"/v1/runs/{run}")
            assert len(shown) == 1, f"run {number} through {agent.name}"
            assert len(agent.executions(name)) == number
        wait_for(lambda: all(one["status"] == "success" for one in agent.executions(name)), "thirty runs")  # noqa: B023
        assert agent.client("DELETE", f"/v1/jobs/{name}/executions").status == 200
        assert agent.executions(name) == []
        agent.call("DELETE", f"/v1/jobs/{name}")


def test_a_refusal_through_a_follower_is_the_leaders(cluster: RealCluster, name: str) -> None:
    """Status, shape and headers of an answer are the same through any agent: 400, 404, 412, and the ETag of a job."""
    cluster.leader.add(name)
    answers = []
    for agent in cluster.agents:
        client = agent.client
        exists = client("PUT", f"/v1/jobs/{name}", {"schedule": "@manually", "command": "x"}, {"If-None-Match": "*"})
        wrong = client("POST", "/v1/jobs", {"name": name, "schedule": "sometimes", "command": "x"})
        unknown = client("POST", "/v1/jobs/no-such-job/run")
        etag = client("GET", f"/v1/jobs/{name}").headers["ETag"]
        answers.append(((exists.status, wrong.status, unknown.status), wrong.error, unknown.error, etag))
    assert answers[0][0][1:] == (400, 404)
    assert answers[0][3]
    assert [one == answers[0] for one in answers] == [True] * 3, answers


def test_output_is_read_through_every_agent(cluster: RealCluster, name: str) -> None:
    """A job runs on all three; each agent shows the whole output of each run, 300 kB in several pieces."""
    cluster.followers[0].add(name, 'echo "$MESHCRON_AGENT"; head -c 300000 /dev/zero | tr "\\0" x')
    cluster.followers[0].call("POST", f"/v1/jobs/{name}/run")

    def ended(agent: MeshAgent) -> bool:
        return [one["status"] for one in agent.executions(name)] == ["success"] * 3

    for agent in cluster.agents:
        wait_for(lambda: ended(agent), "three runs")  # noqa: B023 - called before the next one
        for one in agent.executions(name):
            written = agent.client("GET", f"/v1/executions/{name}/{one['id']}/output").body
            assert written == f"{one['node_name']}\n".encode() + b"x" * 300_000


def test_run_wait_through_a_follower(cluster: RealCluster, name: str) -> None:
    """The command line on any machine: `run --wait` prints what the job writes elsewhere, and ends as it ends."""
    for agent in cluster.followers:
        agent.add(name, "echo it ran on $MESHCRON_AGENT; exit 7", tags={"role": "db"})
        done = meshcron("run", name, "--wait", MESHCRON_DATA_DIR=str(agent.folder))
        assert done.returncode == 7, done
        assert "it ran on three\n" in done.stdout


def test_without_a_leader_reads_answer_and_writes_say_when_to_retry(cluster: RealCluster, name: str) -> None:
    """Two of three stand still. The third shows what it holds; a write gets 503 with Retry-After, is not taken, and
    works once the others go on."""
    left, *others = cluster.followers[0], cluster.leader, cluster.followers[1]
    left.add(name, "echo before")
    for agent in others:
        agent.pause()
    try:
        wait_for(lambda: left.client("GET", "/ready").status == 503, "no leader")
        answer = left.client("POST", "/v1/jobs", {"name": name, "schedule": "@manually", "command": "echo after"})
        assert (answer.status, answer.error["code"]) == (503, "no_leader")
        assert int(answer.headers["Retry-After"]) >= 1
        assert left.client("GET", "/v1/leader").status == 503
        assert left.call("GET", f"/v1/jobs/{name}")["command"] == "echo before"
    finally:
        for agent in others:
            agent.resume()
    wait_for(lambda: left.client("GET", "/ready").status == 200, "a leader")
    assert left.call("GET", f"/v1/jobs/{name}")["command"] == "echo before"
    wait_for(
        lambda: left.client("POST", "/v1/jobs", {"name": name, "schedule": "@manually", "command": "x"}).status == 201
    )


def test_writes_asked_of_a_leader_that_stands_still(cluster: RealCluster, name: str) -> None:
    """Its connections stay and nothing moves. As soon as another one leads, a write with a key is done there, and one
    without hears that its outcome is unknown; repeated, it is done. Nothing waits for the old leader's silence."""
    through, old = cluster.followers[0], cluster.leader
    job = {"name": name, "schedule": "@manually", "command": "true"}
    old.pause()
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(2) as callers:
            plain = callers.submit(through.client, "POST", "/v1/jobs", job)
            keyed = callers.submit(through.client, "POST", "/v1/jobs", job, {"Idempotency-Key": "once"})
            answers = plain.result(), keyed.result()
        took = time.monotonic() - began
        assert through.leader_name not in {"", old.name}
    finally:
        old.resume()
    assert (answers[0].status, answers[0].error["code"]) == (503, "outcome_unknown")
    assert int(answers[0].headers["Retry-After"]) >= 1
    assert answers[1].status == 201, answers[1]
    assert took < FAIL_OVER_SECONDS
    cluster.heal()
    assert through.client("GET", f"/v1/jobs/{name}").headers["ETag"] == answers[1].headers["ETag"]


def test_what_was_acknowledged_survives_the_leader(cluster: RealCluster) -> None:
    """Writes through a follower, one after the other, while the leader is killed: each 201 is there afterwards, on
    every agent, and the writer hears soon that the leader has ended."""
    through, leader = cluster.followers[0], cluster.leader
    acknowledged, answers, slowest = [], set(), 0.0
    for number in range(60):
        if number == 20:
            leader.kill()
        name, began = f"write-{number}", time.monotonic()
        answer = through.client("POST", "/v1/jobs", {"name": name, "schedule": "@manually", "command": "true"})
        slowest = max(slowest, time.monotonic() - began)
        answers.add(answer.status)
        if answer.status == 201:
            acknowledged.append(name)
        else:
            time.sleep(0.1)
    assert answers <= {201, 503}
    assert slowest < FAIL_OVER_SECONDS
    assert acknowledged[-1] == "write-59"
    cluster.heal()
    for agent in cluster.agents:
        wait_for(lambda: set(acknowledged) <= set(agent.jobs()), "every acknowledged write")  # noqa: B023 - called here
    for name in cluster.leader.jobs():
        cluster.leader.call("DELETE", f"/v1/jobs/{name}")
