"""Evidence that a process is gone: seen within milliseconds of its death, and of nothing else (PROTOCOL 4)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from meshcron.net import evidence as module
from meshcron.net.evidence import BETWEEN_SECONDS, Evidence, Probe
from tests.integration.net.net_stage import HOST, Station, stations, until

ROOT = Path(__file__).parents[3]


class Child:
    """The peer "b" in a process of its own."""

    def __init__(self, other: Station) -> None:
        self._identity = Station("b")
        self._other = other
        self._process: subprocess.Popen[str]
        self.ports = [0, 0]

    def start(self) -> None:
        """Start, on the same ports as before if there was a before; the other is told where it is."""
        public, secret = (text.decode() for text in self._identity.pair)
        told = ["b", public, secret, self.ports, msgspec.to_builtins(self._other.peer)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.net.net_child", json.dumps(told)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.ports = json.loads(self._process.stdout.readline())
        peer = msgspec.structs.replace(
            self._other.peer, node_id="b", public_key=public, mesh_port=self.ports[0], pub_port=self.ports[1]
        )
        self._other.transport.set_peers([peer])

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill it, in whatever state it is."""
        self.signal(signal.SIGKILL)
        self._process.communicate()


@asynccontextmanager
async def with_child() -> AsyncIterator[tuple[Station, Child]]:
    """A station here, a talking one in another process, and the connections between them."""
    async with stations("a") as (a,):
        child = Child(a)
        child.start()
        try:
            await until(lambda: a.transport.connected("b") and a.heard)
            yield a, child
        finally:
            child.end()


async def test_a_killed_process_is_gone_at_once() -> None:
    """kill -9, in the middle of its talk; started again with the same ports, it is back by itself."""
    took = []
    async with with_child() as (a, child):
        for round_number in range(1, 6):
            began = time.monotonic()
            child.signal(signal.SIGKILL)
            await until(lambda number=round_number: len(a.gone) == number)  # type: ignore[misc]
            took.append(time.monotonic() - began)
            child.end()
            a.heard.clear()
            child.start()
            await until(lambda: a.transport.connected("b") and a.heard)
        print(f"gone after kill -9: median {statistics.median(took):.3f} s, worst {max(took):.3f} s")
        assert a.gone == ["b"] * 5


async def test_a_stopped_process_is_not_gone() -> None:
    """SIGSTOP: its connection ends by the ZMTP heartbeat after some seconds, but its host refuses nobody. After CONT
    it is heard again by itself."""
    async with with_child() as (a, child):
        child.signal(signal.SIGSTOP)
        stopped = await until(lambda: not a.transport.connected("b"))
        probes = a.transport._links["b"].evidence
        await until(lambda: probes._tries == 0)
        child.signal(signal.SIGCONT)
        a.heard.clear()
        back = await until(lambda: a.transport.connected("b") and a.heard)
        print(f"stopped: noticed after {stopped:.2f} s; continued: heard again after {back:.3f} s")
        assert a.gone == []


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else will by chance."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield held.getsockname()[1]


class Scripted:
    """Stands for Probe: each look calls the test, which says whether it is refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, look: Callable[[int], bool]) -> None:
        self.looks = 0
        self._look = look
        self._refused: Callable[[bool], None]
        monkeypatch.setattr(module, "Probe", self._made)

    def _made(self, _address: str, _port: int, refused: Callable[[bool], None]) -> Scripted:
        self._refused = refused
        return self

    def start(self) -> None:
        self.looks += 1
        self._refused(self._look(self.looks))

    def close(self) -> None:
        """Nothing is under way."""


async def test_two_refusals_in_a_row_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is there again every other time belongs to a live process; after some tries nobody looks any more."""
    gone: list[int] = []
    script = Scripted(monkeypatch, lambda number: number % 2 == 1)
    evidence = Evidence(HOST, 1, lambda: gone.append(script.looks))
    evidence.connection(False)
    await until(lambda: evidence._tries == 0 and evidence._timer is None)
    assert gone == []
    assert script.looks >= module.TRIES


async def test_words_heard_in_between_void_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as something is heard from a peer before each refusal it is not gone; silent, it is."""
    gone: list[int] = []

    def look(number: int) -> bool:
        evidence.silent = number > 6
        return True

    script = Scripted(monkeypatch, look)
    evidence = Evidence(HOST, 1, lambda: gone.append(script.looks))
    evidence.connection(False)
    await until(lambda: gone)
    assert gone == [7]


async def test_a_connection_that_is_back_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnected before the second refusal: nothing is said of it, and nobody looks any more."""
    gone: list[int] = []

    def look(_number: int) -> bool:
        asyncio.get_running_loop().call_soon(evidence.connection, True)
        return True

    script = Scripted(monkeypatch, look)
    evidence = Evidence(HOST, 1, lambda: gone.append(script.looks))
    evidence.connection(False)
    await until(lambda: script.looks and evidence._timer is None)
    assert (gone, script.looks, evidence._probe) == ([], 1, None)


async def test_it_is_said_once_for_a_lost_connection_and_not_in_haste(port: int) -> None:
    """A second loss right after is looked into only TRY_SECONDS after the first."""
    gone: list[float] = []
    loop = asyncio.get_running_loop()
    evidence = Evidence(HOST, port, lambda: gone.append(loop.time()))
    evidence.connection(False)
    evidence.connection(False)
    await until(lambda: len(gone) == 1)
    evidence.connection(True)
    evidence.connection(False)
    await until(lambda: len(gone) == 2)
    assert gone[1] - gone[0] >= module.TRY_SECONDS - BETWEEN_SECONDS
    evidence.close()


@pytest.mark.parametrize("host", ["localhost", "no.such.host.invalid", "", "::1", "256.1.1.1", "h\0st"])
async def test_what_is_no_address_is_no_evidence(host: str, port: int) -> None:
    """Names are not looked up; an address without a listener of ours refuses, or does not exist at all."""
    answers: list[bool] = []
    probe = Probe(host, port, answers.append)
    probe.start()
    await until(lambda: answers)
    assert answers == [False] or host == "::1"


async def test_a_silent_host_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full neither accepts nor refuses, as a host behind a cut does."""
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.05)
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(0)
        callers = []
        for _ in range(4):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
            callers.append(caller)
        answers: list[bool] = []
        probe = Probe(HOST, listener.getsockname()[1], answers.append)
        probe.start()
        assert answers == []
        await until(lambda: answers)
        assert answers == [False]
        for caller in callers:
            caller.close()
