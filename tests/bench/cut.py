"""An agent's cable is cut: how soon another leader answers a write, how soon all others call the cut one failed, and
whether a tick is late on them meanwhile.

As in failover.py, but each agent is on a machine of its own (lans.py): no connection closes, and what is sent is lost.
The cut one lives on alone, and comes back by itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import lans
from bench import Bench
from failover import APART_SECONDS, SEED, TICKS_GOAL, TICKS_LATE, Calm, Watched, seen, ticks_late, written
from goals import SEEN_CUT_S, SILENT_P99_S
from table import Figure, milliseconds, quantile, unmeasured

from tests.netns.network import why_not

LEADERS = 20
OTHERS = 10
TRIPS = 1000
LED, SEEN = f"fail-over, {LEADERS} cuts, p50 / p99", f"{OTHERS} cut agents seen by all, p50 / p99"
ACROSS = "cuts"
LED_GOAL, SEEN_GOAL = f"p99 <= {SILENT_P99_S:g} s", f"<= {SEEN_CUT_S:g} s"


@dataclass
class Cuts:
    """Seconds."""

    led: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    """By the switch, to cut: so much later than it is counted from a cut may have begun."""


def rounds(watched: Watched, lan: lans.Lan, chance: random.Random) -> Cuts:
    """Leaders, then other agents, each at any instant of a second, and plugged in again."""
    cuts = Cuts()
    for number in range(LEADERS + OTHERS):
        time.sleep(APART_SECONDS + chance.random())
        lan.unite()
        leads = number < LEADERS
        agent = lan.entrance if leads else chance.choice(lan.others(lan.entrance))
        others = lan.others(agent)

        def gone() -> float:
            began, took = lan.cut(agent)  # noqa: B023 - called at once
            cuts.took.append(took)
            return written(others, began) if leads else seen(others, agent.name, began)  # noqa: B023

        (cuts.led if leads else cuts.seen).append(watched.without(agent, gone, lan.network.heal))
    return cuts


def bare(lan: lans.Lan) -> list[float]:
    """Round trips without an agent."""
    left = iter(range(TRIPS))
    return lan.trips(0.0, lambda: next(left, None) is None)


def measure(bench: Bench) -> Iterator[Figure]:
    """One cluster for all of it, where there can be networks."""
    if reason := why_not():
        yield unmeasured(LED, LED_GOAL, reason)
        yield unmeasured(TICKS_LATE.format(across=ACROSS), TICKS_GOAL, reason)
        yield unmeasured(SEEN, SEEN_GOAL, reason)
        return
    with lans.running(bench, "cut") as lan:
        watched = Watched(lan, bench.folder / "cut-starts")
        watched.begin(bench.goals.tags)
        calm, trips = Calm.of(lan), bare(lan)
        cuts = rounds(watched, lan, random.Random(SEED))
        trips += bare(lan)
        found = watched.judged()
    cut = f"the cut itself {milliseconds([quantile(cuts.took, 0.5), quantile(cuts.took, 0.99)])}"
    trip = f"a bare round trip {quantile(trips, 0.5) * 1e6:.0f} / {quantile(trips, 0.99) * 1e6:.0f} us"
    p50, p99 = quantile(cuts.led, 0.5), quantile(cuts.led, 0.99)
    yield Figure(LED, f"{p50:.2f} / {p99:.2f} s", LED_GOAL, f"{calm.write}, {cut}", p99 <= SILENT_P99_S)
    yield ticks_late(ACROSS, found)
    p50, p99 = quantile(cuts.seen, 0.5), quantile(cuts.seen, 0.99)
    yield Figure(SEEN, f"{p50:.2f} / {p99:.2f} s", SEEN_GOAL, f"{calm.look}, {trip}", p99 <= SEEN_CUT_S)
