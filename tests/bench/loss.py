"""A fifth of all packets is lost, and a busy loop wants a processor: nobody is taken for dead.

All agents are asked all the while, on their own machines (lans.py), whom they call failed; all of them live.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import lans
from agents import Agent
from bench import Bench
from failed import Failed
from goals import FALSE_DEATHS, LOSS_PERCENT
from table import Figure, milliseconds, quantile, unmeasured

from tests.netns.network import why_not

WATCH_SECONDS = 60.0
LOOK_SECONDS = 0.05
"""Between two looks: a beat comes each 250 ms, and with it whoever was failed is alive again."""

TRIP_GAP_SECONDS = 0.1
HOG_SECONDS = 120
"""It ends by itself should nobody end it."""

HOG = f"import time\nend = time.monotonic() + {HOG_SECONDS}\nwhile time.monotonic() < end: pass"
NAME = f"false deaths, {LOSS_PERCENT} % loss and a CPU hog, {WATCH_SECONDS:.0f} s"
GOAL = str(FALSE_DEATHS)


@dataclass
class Seen:
    """What the looks came to."""

    looks: int = 0
    silent: int = 0
    """Looks that the agent did not answer."""
    deaths: list[tuple[str, str]] = field(default_factory=list)
    """Who called whom failed; anew only after it was called alive."""
    leaders: int = 0
    """Changes of the leader, as the first agent tells of them."""
    late: list[float] = field(default_factory=list)
    """Seconds that the bench's own sleeps were late, beside the agents and the hog."""


@contextmanager
def hog() -> Iterator[None]:
    """A process that only wants a processor."""
    process = subprocess.Popen([sys.executable, "-c", HOG])
    try:
        yield
        if process.poll() is not None:
            raise Failed("the hog ended too early")
    finally:
        process.kill()
        process.wait()


def failed_of(agent: Agent) -> tuple[str, set[str]]:
    """Whom it takes for the leader, and whom it calls failed."""
    members = agent.call("GET", "/v1/members")
    leader = next((one["Name"] for one in members if one["leader"]), "")
    return leader, {one["Name"] for one in members if one["statusText"] == "failed"}


def watch(agents: list[Agent], seconds: float) -> Seen:
    """Ask each of them, again and again."""
    seen, leader = Seen(), ""
    called: dict[str, set[str]] = {agent.name: set() for agent in agents}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for agent in agents:
            seen.looks += 1
            try:
                led_by, failed = failed_of(agent)
            except Failed:
                seen.silent += 1
                continue
            seen.deaths += [(agent.name, name) for name in sorted(failed - called[agent.name])]
            called[agent.name] = failed
            if agent is agents[0] and led_by:
                seen.leaders += leader not in ("", led_by)
                leader = led_by
        began = time.perf_counter()
        time.sleep(LOOK_SECONDS)
        seen.late.append(time.perf_counter() - began - LOOK_SECONDS)
    return seen


def lossy(lan: lans.Lan) -> tuple[Seen, list[float]]:
    """With the hog and the loss: what was seen, and how long bare round trips took meanwhile."""
    over = threading.Event()
    trips: list[float] = []
    beside = threading.Thread(target=lambda: trips.extend(lan.trips(TRIP_GAP_SECONDS, over.is_set)))
    with hog():
        lan.network.lose(LOSS_PERCENT)
        try:
            beside.start()
            seen = watch(lan.agents, WATCH_SECONDS)
        finally:
            over.set()
            lan.network.heal()
            beside.join()
    if not trips:
        raise Failed("no bare round trip came to its end")
    return seen, trips


def measure(bench: Bench) -> Iterator[Figure]:
    """Where there can be networks. An agent that answered none of the looks was not watched."""
    if reason := why_not():
        yield unmeasured(NAME, GOAL, reason)
        return
    with lans.running(bench, "loss") as lan:
        seen, trips = lossy(lan)
        lan.unite()
    said = f"{len(seen.deaths)} in {seen.looks} looks ({seen.silent} unanswered), {seen.leaders} changes of leader"
    who = "; ".join(f"{observer} of {name}" for observer, name in sorted(set(seen.deaths)))
    yield Figure(
        NAME,
        f"{said}{': ' if who else ''}{who}",
        GOAL,
        f"bare round trip p50 / p99 {milliseconds([quantile(trips, 0.5), quantile(trips, 0.99)])}, "
        f"a timer late p99 {milliseconds([quantile(seen.late, 0.99)])}",
        len(seen.deaths) <= FALSE_DEATHS and not seen.silent,
    )
