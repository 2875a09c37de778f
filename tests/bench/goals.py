"""What is to be met, one value a figure, one constant a column. DESIGN's speed table; ratios are to the limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goals:
    """A column of the table: how many agents it runs, and what they are to reach together."""

    column: str
    agents: int
    lateness_p50_s: float
    lateness_p99_s: float
    burst_share: float
    sustained_share: float
    get_share: float
    posts_per_s: float
    idle_rss_mib: float
    idle_cpu_percent: float
    answer_s: float
    run_s: float
    many_ready_s: float
    many_rss_mb: float
    simulator_events_per_s: float


ONE_AGENT = Goals(
    column="one agent",
    agents=1,
    lateness_p50_s=0.002,
    lateness_p99_s=0.006,
    burst_share=0.70,
    sustained_share=0.70,
    get_share=0.60,
    posts_per_s=1500,
    idle_rss_mib=45,
    idle_cpu_percent=0.5,
    answer_s=0.8,
    run_s=1.0,
    many_ready_s=5,
    many_rss_mb=400,
    simulator_events_per_s=20_000,
)
