"""Whose word counts about an execution, and how long a word may be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from meshcron.core.reports import ID_CHARS_MAX, REASON_CHARS_MAX, bounded, may_report, owner
from meshcron.messages import ResultItem
from meshcron.model import OUTPUT_TAIL_BYTES
from tests.unit.core.disk import NODE, ending
from tests.unit.core.lab import Lab

OTHER = "f" * 32


@pytest.fixture
def lab() -> Lab:
    """A leader with one open execution, its own."""
    lab = Lab().start()
    lab.put(schedule="@manually")
    lab.run()
    return lab


def test_an_execution_is_reported_by_its_agent(lab: Lab) -> None:
    """And by the leader, whatever its name was; of what is not known anybody may tell."""
    item = ResultItem(execution_id=lab.only().id, kind="ended")
    state = lab.agent.state
    assert owner(state, item.execution_id) == NODE
    assert may_report(state, NODE, "leader", item)
    assert may_report(state, "leader", "leader", item)
    assert not may_report(state, OTHER, "leader", item)
    unknown = replace(item, execution_id="0" * 32)
    assert owner(state, unknown.execution_id) == ""
    assert may_report(state, OTHER, "leader", unknown)
    assert not may_report(state, OTHER, "leader", replace(item, execution_id="0" * (ID_CHARS_MAX + 1)))


def test_an_honest_report_stays_as_it_is() -> None:
    """A longer one is cut: of the output its end stays, of the reason its beginning."""
    honest = ResultItem(execution_id="x", kind="failed", reason="no such user: bob", ending=ending())
    assert bounded(honest) is honest
    tail = "a" * OUTPUT_TAIL_BYTES + "end"
    long = replace(honest, reason="why " * 1000, ending=replace(ending(), output_tail=tail))
    cut = bounded(long)
    assert cut.ending is not None
    assert cut.ending.output_tail == tail[3:]
    assert cut.reason == long.reason[:REASON_CHARS_MAX]
