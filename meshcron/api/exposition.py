"""What `/metrics` says, in Prometheus's text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from meshcron.api.views import MEMBER_STATUS
from meshcron.model import SECOND_US
from meshcron.service import AgentView, MemberView

__all__ = ["CONTENT_TYPE_LATEST", "exposition"]


def exposition(agent: AgentView, members: Sequence[MemberView], *, ready: bool, wrong_tokens: int) -> bytes:
    """This agent and its place in the cluster as metrics."""
    registry = CollectorRegistry()
    registry.register(_Once([*_place(agent, members, ready=ready), _refused(agent, wrong_tokens)]))
    return generate_latest(registry)


class _Once(Collector):
    """Values that are already there."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _place(agent: AgentView, members: Sequence[MemberView], *, ready: bool) -> Iterable[Metric]:
    """Gauges, each as it is now."""
    own = next((one for one in members if one.name == agent.name), None)
    names = {"name": agent.name, "version": agent.version, "cluster": agent.cluster, "fingerprint": agent.fingerprint}
    yield InfoMetricFamily("meshcron", "Which agent this is, and of which cluster.", names)
    for name, value, text in (
        ("up", 1, "1: the process answers."),
        ("ready", ready, "1: this agent can take writes."),
        ("start_time_seconds", agent.started_wall_us / SECOND_US, "When the process started, in seconds since 1970."),
        ("is_leader", agent.leader == agent.name, "1: this agent leads."),
        ("has_leader", bool(agent.leader), "1: this agent knows a leader."),
        ("term", agent.term, "The highest term it knows of; rises with every leadership."),
        ("generation", agent.generation, "Rises only by an operator's recover."),
        ("voters", sum(one.voter for one in members), "Members that vote."),
        ("commit_index", agent.commit_index, "The last entry it knows to be committed."),
        ("applied_index", agent.applied_index, "The last entry it has applied; 0 where it does not hold the log."),
        ("jobs", agent.jobs, "Jobs of the cluster; 0 where it does not hold the log."),
        ("open_executions", agent.open_executions, "Executions of the cluster without an end yet."),
        ("running", own.running if own else 0, "Executions that hold a slot on this agent."),
        ("paused", agent.paused, "1: the cluster is paused."),
    ):
        yield GaugeMetricFamily(f"meshcron_{name}", text, value)
    yield _members(members)


def _members(members: Sequence[MemberView]) -> Metric:
    count = Counter(MEMBER_STATUS[one.status] for one in members)
    metric = GaugeMetricFamily("meshcron_members", "Members by status.", labels=["status"])
    for status in MEMBER_STATUS.values():
        metric.add_metric([status], count[status])
    return metric


def _refused(agent: AgentView, wrong_tokens: int) -> Metric:
    """Whoever tries what he may not."""
    metric = CounterMetricFamily("meshcron_refused", "What was not let in, since the start.", labels=["at", "why"])
    for (at, why), count in sorted({**agent.refused, ("api", "wrong_token"): wrong_tokens}.items()):
        metric.add_metric([at, why], count)
    return metric
