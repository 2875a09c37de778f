"""Faults that real processes can meet, by their numbers in the matrix of faults (docs): under each of them no tick is
missing and none doubled, on every agent's own word."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from meshcron.runtime.failpoint import STEPS
from tests.checker import COMMAND, OPEN, SECOND_US, Findings, read_records, read_starts
from tests.integration.agent.real_agent import wait_for
from tests.integration.mesh.real_cluster import RUNS_MAX, MeshAgent, RealCluster, Watch, now_us
from tests.unit.api.api_client import Client

FAIL_OVER_SECONDS = 3.0
"""The goal is 0.6 s after a kill and 1.3 s after a stop; a busy machine takes its time."""

REACHED_TIMES = 30
"""With two jobs a second each step is reached so often some seconds after they were added."""

REACHED_SECONDS = 60.0

ARMED_MIN = 2
"""Of a job with a tick a second, 2.5 s ahead."""

FLAPS = 3

STABLE_SECONDS = 30
"""An agent that is there for so long is handed the lead where its priority is higher (PROTOCOL 4)."""

STAYS_SECONDS = STABLE_SECONDS + 10

HAND_OVER_SECONDS = 2.0 * STABLE_SECONDS

SLACK_SECONDS = 10
"""Its conduct counts from when it is heard; the test looks when all of it is well."""

LEADS_TRIES = 20

FLOOD_MIN = 200
"""Runs in 12 s, on however busy a machine; there may be 2,000."""

RSS_GROWTH_BYTES = 40 * 1024 * 1024
"""What an agent may grow by under a flood; it bounds its buffers long before."""


def until_another_leads(cluster: RealCluster, old: str) -> float:
    """Seconds until all others agree on a new leader."""
    began = time.monotonic()
    others = [agent for agent in cluster.agents if agent.name != old]
    wait_for(lambda: len(said := {one.leader_name for one in others}) == 1 and not said & {old, ""}, "a new leader")
    return time.monotonic() - began


def kill_leaders(cluster: RealCluster, watch: Watch, kills: int, seed: int) -> Findings:
    """Kill -9 whoever leads, at any instant of a second; the others go on; then it comes back."""
    chance = random.Random(seed)
    for _ in range(kills):
        time.sleep(chance.uniform(0, 2))
        leader = cluster.leader
        watch.kill(leader)
        assert until_another_leads(cluster, leader.name) < FAIL_OVER_SECONDS
        watch.wait_for_more(chance.randint(1, 3))
        cluster.heal()
        watch.back(leader)
    return watch.end()


def until_it_leads(cluster: RealCluster, agent: MeshAgent) -> None:
    """The voter of the highest rank follows whoever leads when that one is killed; seldom another one is quicker."""
    for _ in range(LEADS_TRIES):
        if (leader := cluster.leader) is agent:
            return
        leader.kill()
        until_another_leads(cluster, leader.name)
        cluster.heal()
    raise AssertionError(f"{agent.name} never leads:\n{agent.log}")


def leader_that_fails(cluster: RealCluster, fail: str) -> MeshAgent:
    """It leads, with a failpoint. There is no job yet that might reach the step too soon."""
    agent = max(cluster.agents, key=lambda one: str(one.record["node_id"]))
    agent.kill()
    agent.start(MESHCRON_FAIL=fail)
    cluster.heal()
    until_it_leads(cluster, agent)
    return agent


@pytest.mark.slow
@pytest.mark.parametrize("step", [pytest.param(step, id=f"{number}-{step}") for number, step in enumerate(STEPS, 1)])
def test_1_to_5_the_leader_dies_at_a_step(cluster: RealCluster, step: str) -> None:
    """Exactly there, in the middle of a launch: every tick runs once and has one record. 1: before its decision is
    committed. 2: after that, before the order. 3: before it hears that the order was accepted. 4: while the job runs,
    which runs on. 5: when the outcome is committed, before its agent knows."""
    dying = leader_that_fails(cluster, f"{step}:{REACHED_TIMES}")
    watch = Watch(cluster, f"dies-at-{step}", then="; sleep 1.5" if step == "started" else "")
    watch.away(dying)  # from now on, at whatever moment
    watch.begin()
    wait_for(lambda: not dying.running, f"its end at {step}", REACHED_SECONDS)
    assert dying.process is not None
    assert dying.process.returncode == -signal.SIGKILL
    assert dying.log.strip().splitlines()[-1].endswith(f"step={step}")
    assert until_another_leads(cluster, dying.name) < FAIL_OVER_SECONDS
    watch.wait_for_more(2)
    cluster.heal()
    watch.back(dying)
    watch.end(late_us=int(FAIL_OVER_SECONDS) * SECOND_US)
    watch.remove()


def test_1_to_5_the_leader_is_killed(cluster: RealCluster, watch: Watch) -> None:
    """A short dose for every run of the tests."""
    kill_leaders(cluster, watch, kills=1, seed=1)


@pytest.mark.slow
def test_1_to_5_the_leader_is_killed_fifteen_times(cluster: RealCluster, watch: Watch) -> None:
    """At random instants, so in each step of a launch now and then. On agents that are there no tick is late by more
    than 200 ms: that is the goal, and so it was in each of four runs on two cores that others kept busy."""
    found = kill_leaders(cluster, watch, kills=15, seed=2)
    assert found.late == [], found.story()


@pytest.mark.named
def test_1_to_5_the_leader_is_killed_two_hundred_times(cluster: RealCluster, watch: Watch) -> None:
    """The full dose; MESHCRON_SEED replays the instants."""
    kill_leaders(cluster, watch, kills=200, seed=int(os.environ.get("MESHCRON_SEED", "3")))


def test_6_the_leader_stands_still(cluster: RealCluster, watch: Watch) -> None:
    """Ten seconds of SIGSTOP: another one leads soon; the old one, once it goes on, steps down before it acts, and no
    tick is started twice."""
    old = cluster.leader
    watch.away(old)
    old.pause()
    assert until_another_leads(cluster, old.name) < FAIL_OVER_SECONDS
    watch.wait_for_more(9)
    old.resume()
    assert old.client("GET", "/v1/isleader").status != 200
    cluster.heal()
    watch.back(old)
    watch.end()


@pytest.mark.slow
def test_7_an_agent_stands_still(cluster: RealCluster, watch: Watch) -> None:
    """Ten seconds of SIGSTOP with ticks armed: those that may start within a minute start once, those that may within
    two seconds are recorded as late; the others and the leader are not disturbed."""
    leader, agent = cluster.leader, cluster.followers[-1]
    file = cluster.folder / "starts-still"
    for deadline in ("2s", "60s"):
        job = {"concurrency": "allow", "start_deadline": deadline, "history": {"runs": 1000, "days": 1}}
        leader.add(f"within-{deadline}", COMMAND.format(file=file), "* * * * * *", **job)
    watch.wait_for_more(5)
    watch.away(agent)
    agent.pause()
    paused_us = now_us()
    watch.wait_for_more(10)
    resumed_us = now_us()
    agent.resume()
    cluster.heal()
    watch.back(agent)
    assert cluster.leader is leader
    watch.end()
    started = [one for one in read_starts(file) if one.agent == agent.name]
    for deadline, meets_it in (("2s", False), ("60s", True)):
        name = f"within-{deadline}"
        told = [
            (one.tick_us, "late" if one.reason.startswith("late: ") else one.reason or one.status)
            for one in read_records(leader.executions(name))
            if one.agent == agent.name and paused_us < one.tick_us < resumed_us - SECOND_US
        ]
        armed = [tick_us for tick_us, how in told if how != "agent down"]
        assert len(armed) >= ARMED_MIN, told
        assert {how for _, how in told} == {"success" if meets_it else "late", "agent down"}, told
        late = [one for one in started if one.job == name and one.tick_us in dict(told)]
        assert sorted(one.tick_us for one in late) == (armed if meets_it else [])
        assert all(one.start_us > resumed_us for one in late)
        leader.call("DELETE", f"/v1/jobs/{name}")


@pytest.mark.slow
def test_14_the_agent_of_top_priority_flaps(folder: Path) -> None:
    """It comes back, and is handed the lead once it was stable for half a minute. It dies and comes back, again and
    again: another one leads after its first death, and goes on leading whatever comes back; the terms rise by that one
    election. At last it stays for longer than it had to the first time: within the hold-down of five minutes it is not
    handed the lead again."""
    cluster = RealCluster(folder, ["top", "two", "three"])
    top = cluster.agents[0]
    top.flags = (*top.flags, "--priority", "1000")
    try:
        cluster.start(voters=3)
        watch = Watch(cluster, "flaps")
        watch.begin()
        watch.kill(top)
        until_another_leads(cluster, top.name)
        cluster.heal()
        began = time.monotonic()
        watch.back(top)
        assert cluster.leader is not top
        wait_for(lambda: cluster.leader is top, "the hand-over", HAND_OVER_SECONDS)
        assert time.monotonic() - began > STABLE_SECONDS - SLACK_SECONDS
        leaders, terms = set(), set()
        for stays in (2,) * FLAPS + (STAYS_SECONDS,):
            watch.kill(top)
            until_another_leads(cluster, top.name)
            cluster.heal()
            watch.wait_for_more(stays)
            leaders.add(cluster.leader.name)
            terms.add(cluster.leader.mesh["term"])
            watch.back(top)
        assert len(leaders) == len(terms) == 1
        assert top.name not in leaders
        watch.end()
    finally:
        cluster.close()


def test_18_all_are_killed_at_once(cluster: RealCluster, watch: Watch) -> None:
    """And come back with other ports: they find each other, have what was acknowledged a moment before, and make up for
    the ticks of that time."""
    cluster.leader.add("acknowledged", "echo still here")
    before = [agent.record for agent in cluster.agents]
    for agent in cluster.agents:
        watch.away(agent)
        assert agent.process is not None
        agent.process.send_signal(signal.SIGKILL)
    for agent in cluster.agents:
        agent.kill()
        agent.spawn()
    cluster.heal()
    for agent, old in zip(cluster.agents, before, strict=True):
        watch.back(agent)
        assert agent.record["node_id"] == old["node_id"]
        assert agent.record["mesh_port"] != old["mesh_port"]
        assert agent.call("GET", "/v1/jobs/acknowledged")["command"] == "echo still here"
    cluster.leader.call("DELETE", "/v1/jobs/acknowledged")
    watch.end(late_us=30 * SECOND_US)


@pytest.mark.slow
def test_35_a_slow_subscriber(cluster: RealCluster, watch: Watch) -> None:
    """An agent that reads nothing for 12 s while up to 2,000 orders are published: the leader's memory is bounded, the
    other agents run them all, and the slow one catches up or was away. It is given up after 3 s, before much waits for
    it; at the transport, in `test_a_subscriber_that_does_not_read_is_left_out`, more is published than may wait."""
    leader, slow = cluster.leader, cluster.followers[0]
    leader.add("flood", "true", concurrency="allow", history={"runs": RUNS_MAX, "days": 1})
    before = leader.rss_bytes
    watch.away(slow)
    slow.pause()
    end = time.monotonic() + 12
    runs = 0
    while runs < 2000 and time.monotonic() < end:
        leader.call("POST", "/v1/jobs/flood/run")
        runs += 1
    wait_for(lambda: time.monotonic() > end, seconds=15)
    assert leader.rss_bytes - before < RSS_GROWTH_BYTES
    slow.resume()
    cluster.heal()
    watch.back(slow)
    assert runs > FLOOD_MIN

    def ended() -> list[dict[str, Any]]:
        told = leader.executions("flood")
        return [] if any(one["status"] in OPEN for one in told) else told

    told = wait_for(ended, "the end of all runs", 60)
    for agent in cluster.agents:
        how = Counter(one["status"] for one in told if one["node_name"] == agent.name)
        assert how.total() == runs, f"{agent.name}: {how}"
        assert how["success"] == runs or agent is slow, f"{agent.name}: {how}"
        assert how["success"] > 0, "what was ordered before it was missed"
        assert how.keys() <= {"success", "skipped"}, f"{agent.name}: {how}"
    assert {one["reason"] for one in told if one["status"] == "skipped"} <= {"agent down"}
    leader.call("DELETE", "/v1/jobs/flood")
    watch.end(late_us=10 * SECOND_US)


def test_36_random_bytes_on_every_port(cluster: RealCluster, watch: Watch) -> None:
    """Three seconds of noise, with and without a right beginning of the protocol: no agent ends, loses its lead, grows
    or fills its log, and no tick is disturbed."""
    chance = random.Random(36)
    leader = cluster.leader
    before = {agent.name: (agent.rss_bytes, agent.log.count("\n")) for agent in cluster.agents}
    ports = [agent.record[port] for agent in cluster.agents for port in ("gate_port", "mesh_port", "pub_port")]
    ports += [agent.client.port for agent in cluster.agents]
    greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0CURVE"
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                begin = chance.choice([b"", greeting, b"GET / HTTP/1.1\r\n", greeting.ljust(64, b"\0")])
                connection.sendall(begin + chance.randbytes(chance.randint(1, 4000)))
        time.sleep(0.02)
    assert cluster.leader is leader
    for agent in cluster.agents:
        rss, lines = before[agent.name]
        assert agent.running
        assert agent.rss_bytes - rss < RSS_GROWTH_BYTES
        assert agent.log.count("\n") - lines < 20, agent.log[-4000:]
    watch.end()


def test_38_another_key_stays_outside(cluster: RealCluster, watch: Watch, folder: Path) -> None:
    """An agent with another key, told where our gates are: it is no member, forms a cluster of its own, and ours
    says so, and is not disturbed."""
    stranger = RealCluster(folder, ["stranger"])
    gates = [word for agent in cluster.agents for word in ("--join", f"127.0.0.1:{agent.record['gate_port']}")]
    try:
        stranger.agents[0].start(*gates)
        watch.wait_for_more(3)
        wait_for(lambda: stranger.agents[0].leader_name == "stranger", "a cluster of its own")
        assert [one["Name"] for one in stranger.agents[0].members] == ["stranger"]
        assert stranger.agents[0].mesh["cluster"] != cluster.leader.mesh["cluster"]
        assert any("knocks refused: another key" in agent.log for agent in cluster.agents)
        assert [len(agent.members) for agent in cluster.agents] == [3, 3, 3]
        watch.end()
    finally:
        stranger.close()


def mix_story(cluster: RealCluster, watch: Watch, seconds: float, seed: int) -> None:
    """Again and again one agent, whichever, is killed or stands still for up to five seconds."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        agent = chance.choice(cluster.agents)
        if chance.random() < 0.5:
            watch.kill(agent)
            time.sleep(chance.uniform(0, 5))
        else:
            watch.away(agent)
            agent.pause()
            time.sleep(chance.uniform(0, 5))
            agent.resume()
        cluster.heal()
        watch.back(agent)
        time.sleep(chance.uniform(0, 3))
    watch.end()


@pytest.mark.slow
def test_50_a_mix_of_faults_for_a_minute(cluster: RealCluster, watch: Watch) -> None:
    """A short dose."""
    mix_story(cluster, watch, seconds=60, seed=50)


@pytest.mark.named
def test_50_a_mix_of_faults(cluster: RealCluster, watch: Watch) -> None:
    """For as long as MESHCRON_SOAK_SECONDS says; MESHCRON_SEED replays the choices."""
    seconds = float(os.environ.get("MESHCRON_SOAK_SECONDS", "3600"))
    mix_story(cluster, watch, seconds, seed=int(os.environ.get("MESHCRON_SEED", "4")))


def test_a_write_repeated_after_the_leader_was_killed_is_answered_as_the_first_time(cluster: RealCluster) -> None:
    """Kill -9 in place of an answer: who repeats his request with the same key, at another agent, gets the answer that
    he missed, and it has run once."""
    leader, (one, other) = cluster.leader, cluster.followers
    secret = one.call("POST", "/v1/tokens", {"name": "repeats", "role": "editor"})["token"]
    job = {"name": "repeated", "schedule": "@manually", "command": "true", "tags": {"role": "web:1"}}
    key = {"Idempotency-Key": "once"}
    made = Client(one.client.port, secret)("POST", "/v1/jobs", job, key)
    ran = Client(one.client.port, secret)("POST", "/v1/jobs/repeated", None, key)
    assert (made.status, ran.status) == (201, 200)
    leader.kill()
    until_another_leads(cluster, leader.name)
    again = Client(other.client.port, secret)
    assert again("POST", "/v1/jobs", job, key).json == made.json
    repeated = again("POST", "/v1/jobs/repeated", None, key)
    assert (repeated.headers["X-Meshcron-Run"], repeated.json) == (ran.headers["X-Meshcron-Run"], ran.json)
    cluster.heal()
    assert len(cluster.leader.executions("repeated")) == 1
    assert cluster.leader.client("GET", "/v1/jobs/repeated").headers["ETag"] == made.headers["ETag"]
    cluster.leader.call("DELETE", "/v1/jobs/repeated")
