"""Who is kept out, as an operator sees it: ports, counters, log lines; and how little a worker's machine can open."""

from __future__ import annotations

import os
import random
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshcron.runtime.credentials import new_key
from tests.integration.agent.real_agent import RealAgent, wait_for
from tests.unit.api.api_client import Client

CURVE_PORTS = ("gate_port", "mesh_port", "pub_port")
GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"
GREETING_BYTES = 64
LISTEN = "0A"
"""Of /proc/net/tcp, the state of a socket that listens."""

NOISE_SECONDS = 3.0
RSS_GROWTH_BYTES = 40 * 1024 * 1024
"""What an agent may grow by under a flood; it bounds its buffers long before."""

LOG_LINES = 40
"""A minute: a kind of complaint and sender speaks once in each."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RealAgent]:
    """One that stands alone, with a key it made itself."""
    made = RealAgent(tmp_path / "one")
    made.start()
    yield made
    made.kill()


def joined(agent: RealAgent, folder: Path, *flags: str) -> RealAgent:
    """Another one that knows where the first one's gate is."""
    return RealAgent(folder, "--name", folder.name, "--join", f"127.0.0.1:{agent.record['gate_port']}", *flags)


def metrics(agent: RealAgent) -> dict[tuple[str, ...], float]:
    """Name and label values -> value."""
    answer = agent.client("GET", "/metrics")
    assert answer.status == 200, answer
    families = text_string_to_metric_families(answer.body.decode())
    return {(each.name, *each.labels.values()): each.value for one in families for each in one.samples}


def refused(agent: RealAgent, at: str, why: str) -> float:
    return metrics(agent)["meshcron_refused_total", at, why]


def listening(pid: int) -> set[tuple[str, int]]:
    """Address and port of every socket of a process that listens."""
    inodes = {file.readlink().name for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found: set[tuple[str, int]] = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTEN and f"socket:[{words[9]}]" in inodes:
                address, port = words[1].split(":")
                numbers = bytes.fromhex(address)[::-1]
                found.add((".".join(map(str, numbers)), int(port, 16)))
    return found


def test_four_ports_and_three_speak_curve_only(agent: RealAgent) -> None:
    """Nothing else listens. Each CURVE port offers no other mechanism, hangs up on one that asks for none, and HTTP is
    no way into it."""
    assert agent.process is not None
    ports = [agent.record[name] for name in CURVE_PORTS]
    assert listening(agent.process.pid) == {("127.0.0.1", port) for port in (*ports, agent.client.port)}
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            caller.sendall(GREETING)
            said = b""
            while len(said) < GREETING_BYTES:
                piece = caller.recv(GREETING_BYTES - len(said))
                assert piece, "it hung up"
                said += piece
            assert said[12:32].rstrip(b"\0") == b"CURVE"
            caller.sendall(b"\0NULL".ljust(GREETING_BYTES - len(GREETING), b"\0"))
            assert caller.recv(1) == b""
    wait_for(lambda: refused(agent, "gate", "handshake") >= 1 and refused(agent, "mesh", "handshake") >= 2, "counted")


def test_another_key_stays_outside_and_both_say_so(agent: RealAgent, tmp_path: Path) -> None:
    """Told where our gate is, it knocks in vain: our counter rises, and its own log tells its operator in one line
    what is wrong, however often it tries."""
    before = refused(agent, "gate", "handshake")
    stranger = joined(agent, tmp_path / "stranger")
    stranger.start(MESHCRON_KEY=new_key().text)
    try:
        wait_for(lambda: stranger.client("GET", "/ready").status == 200, "a cluster of its own")
        wait_for(lambda: refused(stranger, "own_knock", "another_key") >= 3, "three knocks")
        assert refused(agent, "gate", "handshake") >= before + 3
        line = f"the gate at 127.0.0.1:{agent.record['gate_port']} does not accept this key: another cluster's?"
        assert stranger.log.count(line) == 1
        assert agent.log.count("knocks refused") == 1
        assert metrics(agent)["meshcron_members", "alive"] == 1
    finally:
        stranger.kill()


def test_what_a_worker_s_machine_opens(agent: RealAgent, tmp_path: Path) -> None:
    """Its own token shows the agents and who leads, there and passed on; no job, and nothing is changed with it."""
    agent.add("secret", "echo secret")
    folder = tmp_path / "worker"
    shutil.copyfile(agent.folder / "cluster.key", key := tmp_path / "key")
    key.chmod(0o600)
    worker = joined(agent, folder, "--voter", "never", "--key-file", str(key))
    worker.start()
    try:
        wait_for(lambda: worker.client("GET", "/ready").status == 200, "its leader")
        assert metrics(worker)["meshcron_has_leader",] == 1
        wait_for(lambda: metrics(agent)["meshcron_members", "alive"] == 2, "the worker is heard")
        for path in ("/v1/", "/v1/members", "/v1/leader", "/metrics"):
            assert worker.client("GET", path).status == 200
        for method, path in (("GET", "/v1/jobs"), ("GET", "/v1/executions/secret"), ("GET", "/v1/history")):
            assert worker.client(method, path).status == 403
        for method in ("POST", "DELETE"):
            assert worker.client(method, "/v1/jobs/secret").status == 403
        assert worker.client("POST", "/v1/leave").status == 403
        assert worker.client("POST", "/v1/jobs", {"name": "x", "schedule": "@daily", "command": "x"}).status == 403
        stranger = Client(worker.client.port)
        assert [stranger("GET", path).status for path in ("/metrics", "/v1/isleader", "/v1/")] == [401] * 3
        assert Client(agent.client.port, worker.token)("GET", "/v1/").status == 401  # it is valid on the worker only
        assert agent.jobs() == ["secret"]
    finally:
        worker.kill()


def hostile(agent: RealAgent, seconds: float) -> None:
    """Bytes at every port, with and without a right beginning, while somebody asks the API. The processor time that the
    agent used is printed: how much it may be depends on the machine."""
    assert agent.process is not None
    chance = random.Random(36)
    ports = [*(agent.record[name] for name in CURVE_PORTS), agent.client.port]
    rss, lines, cpu = agent.rss_bytes, agent.log.count("\n"), agent.cpu_seconds
    beginnings = [b"", GREETING, b"GET / HTTP/1.1\r\n", GREETING + b"\0CURVE".ljust(53, b"\0"), b"\x16\x03\x01"]
    slowest, callers = 0.0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(chance.choice(beginnings) + chance.randbytes(chance.randint(1, 4000)))
            callers += 1
        began = time.monotonic()
        assert agent.client("GET", "/v1/").status == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.01)
    grown, said, used = agent.rss_bytes - rss, agent.log.count("\n") - lines, agent.cpu_seconds - cpu
    print(f"{callers} callers in {seconds:g} s: {grown / 1e6:.1f} MB more, {said} lines, {used:.1f} s of CPU,", end=" ")
    print(f"the API took {slowest:.3f} s at most")
    assert agent.running
    assert grown < RSS_GROWTH_BYTES
    assert said < LOG_LINES * max(1, seconds / 60), agent.log[-4000:]
    assert slowest < 1.0
    assert refused(agent, "gate", "handshake") > callers / 16


def test_36_hostile_bytes(agent: RealAgent) -> None:
    """A short dose."""
    hostile(agent, NOISE_SECONDS)


@pytest.mark.slow
def test_36_hostile_bytes_for_a_minute(agent: RealAgent) -> None:
    """A longer one."""
    hostile(agent, 60.0)


@pytest.mark.named
def test_36_hostile_bytes_for_ten_minutes(agent: RealAgent) -> None:
    """The full dose, or as long as MESHCRON_SOAK_SECONDS says."""
    hostile(agent, float(os.environ.get("MESHCRON_SOAK_SECONDS", "600")))
