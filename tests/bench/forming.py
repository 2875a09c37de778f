"""Three agents that are started in one instant: how soon they know each other, how soon all of them vote."""

from __future__ import annotations

import time
from collections.abc import Iterator

from agents import FORM_SECONDS, wait_until
from bench import Bench
from goals import MEMBERS_S, VOTERS_S
from table import Figure


def measure(bench: Bench) -> Iterator[Figure]:
    """By the word of each of them, asked all the while."""
    count = bench.goals.agents
    cluster = bench.made("forming")
    try:
        began = time.perf_counter()
        cluster.start()
        wait_until(f"{count} members", lambda: cluster.agree(voters=1), FORM_SECONDS)
        members = time.perf_counter() - began
        wait_until(f"{count} voters", lambda: cluster.agree(voters=count), FORM_SECONDS)
        voters = time.perf_counter() - began
    finally:
        cluster.stop()
    yield Figure(f"start to {count} members", f"{members:.1f} s", f"<= {MEMBERS_S:g} s", met=members <= MEMBERS_S)
    yield Figure(f"start to {count} voters", f"{voters:.1f} s", f"<= {VOTERS_S:g} s", met=voters <= VOTERS_S)
