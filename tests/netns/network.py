"""Machines on one switch, made of network namespaces. Nothing of the machine that runs the tests is touched.

Each machine is a namespace with `eth0`; the switch is one more with a bridge and a port per machine. Its faults are
rules of nft's bridge family there: a packet is dropped on its way from one port to another, so one way can be cut.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path

PREFIX = "mesh-test"

CLONE_NEWNET = 0x40000000
"""Linux, setns(2); Python knows it from 3.12 on."""

NAMESPACES = Path("/run/netns")

LIBC = ctypes.CDLL(None, use_errno=True)

Way = tuple[str, str]
"""From one machine to another."""


def run(*words: str, said: str = "") -> None:
    """A command that succeeds, with `said` on its standard input."""
    done = subprocess.run(words, input=said, capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"


def why_not() -> str:
    """Why no network can be made here, "" where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "nft", "setpriv") if shutil.which(tool) is None]
    if missing:
        return f"there is no {' and no '.join(missing)}"
    trial = Network("trial")
    try:
        trial.start()
        trial.add("one", "10.77.0.1")
        trial.lose(20)
    except AssertionError as why:
        return f"this kernel makes no such network: {why}"
    finally:
        trial.close()
    return ""


def both_ways(*pairs: Way) -> set[Way]:
    """There and back."""
    return {*pairs, *((there, here) for here, there in pairs)}


def between(some: Iterable[str], others: Iterable[str]) -> set[Way]:
    """All ways from these machines to those, and back."""
    far = list(others)
    return both_ways(*((one, other) for one in some for other in far))


class Network:
    """A switch and its machines, gone after `close`. `name` tells the networks of one process apart."""

    def __init__(self, name: str) -> None:
        self._prefix = f"{PREFIX}-{os.getpid()}-{name}"
        self._machines: dict[str, str] = {}

    @property
    def _switch(self) -> str:
        return f"{self._prefix}-switch"

    def namespace(self, machine: str) -> str:
        """Where its processes run."""
        return f"{self._prefix}-{machine}"

    def start(self) -> None:
        """An empty switch. What a killed test left behind is removed."""
        sweep()
        run("ip", "netns", "add", self._switch)
        # Without a querier on the switch, snooping would forget who listens to mDNS.
        run("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", self._switch, "link", "set", "br0", "up")

    def add(self, machine: str, address: str) -> None:
        """One more machine, on a network of 24 bits."""
        inside = self.namespace(machine)
        port = ("ip", "-n", self._switch, "link")
        run("ip", "netns", "add", inside)
        self._machines[machine] = address
        run(*port, "add", f"p-{machine}", "type", "veth", "peer", "name", "eth0", "netns", inside)
        run(*port, "set", f"p-{machine}", "master", "br0", "up")
        run("ip", "-n", inside, "link", "set", "lo", "up")
        run("ip", "-n", inside, "link", "set", "eth0", "up")
        run("ip", "-n", inside, "address", "add", f"{address}/24", "dev", "eth0")

    def remove(self, machine: str) -> None:
        """One machine less."""
        del self._machines[machine]
        run("ip", "netns", "delete", self.namespace(machine))

    def move(self, machine: str, address: str) -> None:
        """Another address instead of the one it had."""
        inside = self.namespace(machine)
        run("ip", "-n", inside, "address", "flush", "dev", "eth0")
        run("ip", "-n", inside, "address", "add", f"{address}/24", "dev", "eth0")
        self._machines[machine] = address

    def cut(self, ways: Iterable[Way]) -> None:
        """Nothing arrives on these ways from now on, and everything on all others.

        Where only one way is cut ARP still passes: without its answers the other way would soon be dead too.
        """
        cut = set(ways)
        one = [f'iifname "p-{a}" oifname "p-{b}" ' for a, b in sorted(cut) if (b, a) in cut]
        half = [f'iifname "p-{a}" oifname "p-{b}" ether type ip ' for a, b in sorted(cut) if (b, a) not in cut]
        self._rules([f"{which}drop" for which in one + half])

    def lose(self, percent: int) -> None:
        """So many of all packets are lost, by chance."""
        self._rules([f"ether type ip numgen random mod 100 < {percent} drop"])

    def heal(self) -> None:
        """Everything arrives."""
        self._rules([])

    def _rules(self, rules: list[str]) -> None:
        """In one step: no packet meets a half of them."""
        chain = ["type filter hook forward priority 0;", *rules]
        anew = ["add table bridge faults", "delete table bridge faults", "table bridge faults {", "chain passing {"]
        table = "\n".join([*anew, *chain, "}", "}", ""])
        run("ip", "netns", "exec", self._switch, "nft", "-f", "-", said=table)

    def close(self) -> None:
        """Remove it all; the interfaces go with their namespaces."""
        for name in [*map(self.namespace, self._machines), self._switch]:
            if (NAMESPACES / name).exists():
                run("ip", "netns", "delete", name)
        self._machines.clear()


def sweep() -> None:
    """Remove the namespaces of tests that were killed before they could."""
    for left in NAMESPACES.glob(f"{PREFIX}-*-*"):
        process = left.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path("/proc", process).exists():
            run("ip", "netns", "delete", left.name)


def enter(namespace: str) -> None:
    """The calling thread goes there, for good. Raises OSError."""
    with (NAMESPACES / namespace).open() as handle:
        if LIBC.setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def connection(namespace: str, port: int, seconds: float) -> socket.socket:
    """A connection to a port of the namespace's own loopback. Raises OSError."""
    made: list[socket.socket | OSError] = []

    def enter_and_connect() -> None:
        try:
            enter(namespace)
            made.append(socket.create_connection(("127.0.0.1", port), timeout=seconds))
        except OSError as error:
            made.append(error)

    # Only this thread enters; a socket stays where it was made.
    thread = threading.Thread(target=enter_and_connect)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]
