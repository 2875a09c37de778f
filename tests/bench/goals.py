"""What is to be met, one value a figure, one constant a column; ratios are to the limit (docs/BENCHMARKS.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goals:
    """A column of the table: how many agents it runs, and what they are to reach together."""

    column: str
    agents: int
    tags: dict[str, str]
    """Of each job: with several agents they have one of them run it."""
    lateness_p50_s: float
    lateness_p99_s: float
    burst_share: float
    sustained_share: float
    sustained_load: float
    """What is due for that, of the same limit: a little more than could be run."""
    get_share: float
    posts_per_s: float
    idle_rss_mib: float
    idle_cpu_percent: float
    many_ready_s: float
    many_rss_mb: float


ONE_AGENT = Goals(
    column="one agent",
    agents=1,
    tags={},
    lateness_p50_s=0.002,
    lateness_p99_s=0.006,
    burst_share=0.70,
    sustained_share=0.70,
    sustained_load=1.0,
    get_share=0.60,
    posts_per_s=1500,
    idle_rss_mib=45,
    idle_cpu_percent=0.5,
    many_ready_s=5,
    many_rss_mb=400,
)
THREE_VOTERS = Goals(
    column="three voters",
    agents=3,
    tags={"bench": "yes:1"},
    lateness_p50_s=0.003,
    lateness_p99_s=0.008,
    burst_share=0.50,
    sustained_share=0.50,
    sustained_load=0.6,
    get_share=0.60,
    posts_per_s=800,
    idle_rss_mib=50,
    idle_cpu_percent=2,
    many_ready_s=5,
    many_rss_mb=400,
)

ANSWER_S, RUN_S = 0.8, 1.0
"""From `up` of one agent to its first answer, and to its first run."""

SIMULATOR_EVENTS_PER_S = 20_000

MEMBERS_S, VOTERS_S = 3.0, 15.0
"""From the start of three agents until all of them tell of three living members, and of three voters."""

KILLED_P50_S, KILLED_P99_S, SILENT_P99_S = 0.2, 0.6, 1.3
"""From a leader's kill -9, or its SIGSTOP or cut, until the next one answers a write."""

SEEN_KILLED_S, SEEN_CUT_S = 0.5, 2.5
"""From an agent's kill -9, or the cut of its cable, until all others call it failed."""

LOSS_PERCENT, FALSE_DEATHS = 20, 0
"""Members that anybody calls failed where all of them live, but so many of all packets are lost."""
