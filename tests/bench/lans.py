"""Agents on machines of their own, made of network namespaces as for tests/netns: their cables can be cut, and lose
packets. Needs root; no packet leaves those namespaces, and they are gone at the end."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from agents import Agent, Cluster, names, united
from bench import Bench
from failed import Failed

from tests.netns.machines import Inside
from tests.netns.network import Network, between, enter

ADDRESS = "10.77.0.{number}"
TRIP_SECONDS = 30.0
"""However often its packets are lost, a round trip takes less."""

Made = TypeVar("Made")


class ToInside(urllib.request.HTTPHandler):
    """Asks the loopback of a namespace."""

    def __init__(self, namespace: str) -> None:
        super().__init__()
        self._namespace = namespace

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        port = int(req.host.rpartition(":")[2])
        # Inside has a timeout of its own.
        return self.do_open(lambda host, timeout=0.0, **_: Inside(self._namespace, port), req)


class Plugged(Agent):
    """`meshcron up` on one machine of a network, with the default ports."""

    def __init__(self, namespace: str, name: str, folder: Path, bytecode: Path, *flags: str) -> None:
        super().__init__(name, folder, bytecode, *flags)
        self.namespace = namespace
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), ToInside(namespace))

    def _words(self) -> list[str]:
        """It ends with us, however we end: nobody could reach it afterwards."""
        return ["ip", "netns", "exec", self.namespace, "setpriv", "--pdeathsig", "KILL", *super()._words()]


class Lan(Cluster):
    """Agents that are each on a machine of its own."""

    def __init__(self, network: Network, agents: list[Plugged]) -> None:
        super().__init__(list(agents))
        self.network = network
        self._namespaces = [agent.namespace for agent in agents]

    def cut(self, agent: Agent) -> tuple[float, float]:
        """Pull its cable, both ways. Returns when that began, and how many seconds the switch took for it."""
        ways = between([agent.name], [other.name for other in self.others(agent)])
        began = time.perf_counter()
        self.network.cut(ways)
        return began, time.perf_counter() - began

    def trips(self, gap_seconds: float, over: Callable[[], bool]) -> list[float]:
        """Seconds that a byte takes over bare TCP from the first machine to the second and back, again and again until
        it is over. Both ends are here, in one thread: nothing waits for a processor but the packets."""
        here, there = self._namespaces[:2]
        near, far = connected(here, there, ADDRESS.format(number=2))
        took = []
        with near, far:
            while not over():
                began = time.perf_counter()
                for one, other in ((near, far), (far, near)):
                    one.send(b"x")
                    other.recv(1)
                took.append(time.perf_counter() - began)
                time.sleep(gap_seconds)
        return took


def inside(namespace: str, make: Callable[[], Made]) -> Made:
    """A socket stays where it was made: only the thread that makes it goes there."""
    made: list[Made] = []

    def enter_and_make() -> None:
        enter(namespace)
        made.append(make())

    thread = threading.Thread(target=enter_and_make)
    thread.start()
    thread.join()
    if not made:
        raise Failed(f"no socket in {namespace}")
    return made[0]


def connected(here: str, there: str, address: str) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection from one namespace to this address in another one."""
    with inside(there, lambda: socket.create_server((address, 0))) as server:
        near = inside(here, lambda: socket.create_connection(server.getsockname(), TRIP_SECONDS))
        far, _ = server.accept()
    for end in (near, far):
        end.settimeout(TRIP_SECONDS)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@contextmanager
def running(bench: Bench, name: str) -> Iterator[Lan]:
    """The column's agents on a network of this name, one cluster in which all vote; all gone at the end."""
    network = Network(name)
    try:
        network.start()
        lan = Lan(network, plugged(network, bench, bench.folder / name))
        try:
            lan.start()
            lan.unite()
            yield lan
        finally:
            lan.stop()
    except AssertionError as failure:  # so a network says what it cannot do
        raise Failed(str(failure)) from failure
    finally:
        network.close()


def plugged(network: Network, bench: Bench, folder: Path) -> list[Plugged]:
    """A machine for each of the column's agents; they find each other by mDNS."""
    folder.mkdir(parents=True)
    flags, agents = united(folder), []
    for number, name in enumerate(names(bench.goals.agents), start=1):
        network.add(name, ADDRESS.format(number=number))
        agents.append(Plugged(network.namespace(name), name, folder / name, bench.bytecode, *flags))
    return agents
