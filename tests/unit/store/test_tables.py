"""What is read back: the whole at a start, and pages of executions for the API."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from meshcron.model import Execution, Member, Status, Token
from meshcron.rows import (
    CallRow,
    Drop,
    JobRow,
    JobStateRow,
    MemberRow,
    OwedRow,
    SeenRow,
    SpecRow,
    TokenRow,
)
from meshcron.store import tables
from meshcron.store.queries import queries


def ids(found: list[Execution]) -> list[int]:
    return [int(one.id, 16) for one in found]


def test_everything_is_loaded_in_key_order(agent: Any, build: Any) -> None:
    """Whatever the order in which it was written."""
    jobs = [JobRow(uid, revision, f"j{uid}", "{}", revision == 2, False, 5) for uid in (3, 1) for revision in (2, 1)]
    states = [JobStateRow(uid, 1, 2, 3, 4, 5, 6, 7, "success", 8) for uid in (3, 1)]
    owed = [OwedRow(key, 1, "child", "r", 1, "parent", 1, 2, "n", "") for key in "ba"]
    members = [Member(node_id=node, name=node, number=n, voter=n == 1) for n, node in enumerate("ba")]
    tokens = [Token(id=key, name=key, role="viewer", sha256="s", created_wall_us=1) for key in "ba"]
    calls = [CallRow(key, 3, 4, "paused", "true") for key in "ba"]
    seen = [SeenRow(key, "ended", 1, 2, 3, 4, 5, key == "a", "{}", "{}") for key in "ba"]
    specs = [SpecRow(key, "{}") for key in "ba"]
    agent.write(*jobs, *states, *owed, *map(MemberRow, members), *map(TokenRow, tokens), *calls, *seen, *specs)
    agent.stop()
    loaded = agent.start().loaded
    assert loaded.jobs == jobs[::-1]
    assert loaded.job_states == states[::-1]
    assert (loaded.owed, loaded.members, loaded.tokens) == (owed[::-1], members[::-1], tokens[::-1])
    assert loaded.calls == calls[::-1]
    assert (loaded.seen, loaded.specs) == (seen[::-1], specs[::-1])


def test_only_open_executions_are_loaded(agent: Any, build: Any) -> None:
    """Oldest first; the rest is read by the page."""
    rows = [build.execution(n, status=status) for n, status in enumerate(Status, start=1)]
    agent.write(*rows[::-1])
    agent.stop()
    loaded = agent.start().loaded
    assert loaded.open_executions == [row.execution for row in rows if not row.execution.status.final]


@pytest.fixture
def filled(agent: Any, build: Any) -> Any:
    """Executions 1-40 of jobs 1-4 on two agents; every fifth failed, the last two are open."""
    for n in range(1, 41):
        status = Status.ARMED if n > 38 else Status.FAILED if n % 5 == 0 else Status.SUCCESS
        agent.submit(
            build.execution(n, uid=n % 4 + 1, agent=("alpha", "beta")[n % 2], status=status, run_id=f"run{n // 3}")
        )
    agent.write()
    return agent.store.tables


@pytest.mark.parametrize(("offset", "limit"), [(0, 3), (3, 3), (8, 5), (10, 5), (99, 5)])
def test_a_jobs_executions_come_by_the_page(filled: Any, offset: int, limit: int) -> None:
    """Newest or oldest first, the same ones; beyond the end nothing."""
    job_2 = [n for n in range(1, 41) if n % 4 == 1]
    newest = filled.executions(2, newest_first=True, offset=offset, limit=limit)
    oldest = filled.executions(2, newest_first=False, offset=offset, limit=limit)
    assert ids(newest) == job_2[::-1][offset : offset + limit]
    assert ids(oldest) == job_2[offset : offset + limit]
    assert filled.execution_count(2) == len(job_2)
    assert filled.execution_count(99) == 0


def test_an_execution_is_found_by_the_id_people_see(filled: Any, build: Any) -> None:
    """Only under its own job."""
    one = build.execution(7, uid=4).execution
    found = filled.execution(4, one.public_id.replace("alpha", "beta"))
    assert found is not None
    assert ids([found]) == [7]
    assert filled.execution(1, found.public_id) is None


@pytest.mark.parametrize(
    "public_id",
    ["", "-", "x", "12", "000000007-beta", "7000000007", "7000000008-beta", "8000000007-beta", "7000000007-bet",
     "7000000007-beta-", "\u0667000000007-beta", "9" * 40 + "-beta", "-7000000007-beta", "7000000007\0-beta"],
)  # fmt: skip
def test_what_is_no_id_of_ours_is_not_found(filled: Any, public_id: str) -> None:
    """Whatever stands in a URL."""
    assert filled.execution(4, public_id) is None


def test_ids_of_agents_and_indices_that_look_alike_are_told_apart(agent: Any, build: Any) -> None:
    """The index is shown modulo 10**9, a record without an agent as `none`, and an agent may be named so."""
    rows = [
        build.execution(1, index=5, scheduled_wall_us=1_000_000, agent=""),
        build.execution(2, index=5 + 10**9, scheduled_wall_us=2_999_999, agent=""),
        build.execution(3, index=6, scheduled_wall_us=1_000_000, agent="none"),
        build.execution(4, index=5, scheduled_wall_us=1_000_000, agent="a-b"),
    ]
    agent.write(*rows)
    for row in rows:
        assert agent.store.tables.execution(1, row.execution.public_id) == row.execution


def test_an_execution_is_found_by_its_own_id_and_gone_when_dropped(agent: Any, build: Any) -> None:
    """The cluster's own, which nobody else sees."""
    row = build.execution(3)
    agent.write(row)
    assert agent.store.tables.execution_by_id(row.execution.id) == row.execution
    agent.write(Drop("executions", (row.execution.id,)))
    assert agent.store.tables.execution_by_id(row.execution.id) is None


def test_a_run_is_listed_whole(filled: Any) -> None:
    """Oldest first."""
    assert ids(filled.run_executions("run4")) == [12, 13, 14]
    assert filled.run_executions("run99") == []


FILTERS: dict[str, list[Any]] = {
    "uid": [None, 2],
    "agent": [None, "beta", "gamma"],
    "status": [None, "success", "failed", "armed", "lost"],
    "since_wall_us": [None, 9_000_000],
    "until_wall_us": [None, 30_000_000],
}


@pytest.mark.parametrize("chosen", list(itertools.product(*FILTERS.values())))
def test_history_filters_as_it_says(filled: Any, chosen: tuple[Any, ...]) -> None:
    """Every combination, against a plain loop over all of it."""
    filters = {name: value for name, value in zip(FILTERS, chosen, strict=True) if value is not None}
    every = [one for uid in range(1, 5) for one in filled.executions(uid, newest_first=True, offset=0, limit=99)]
    wanted = [
        one
        for one in sorted(every, key=lambda one: -one.index)
        if one.uid == filters.get("uid", one.uid)
        and one.agent == filters.get("agent", one.agent)
        and one.status == filters.get("status", one.status)
        and filters.get("since_wall_us", 0) <= one.scheduled_wall_us <= filters.get("until_wall_us", 2**60)
    ]
    assert filled.history(filters=filters, offset=0, limit=99) == wanted
    assert filled.history(filters=filters, offset=2, limit=3) == wanted[2:5]


@pytest.mark.parametrize("filters", [{"status": "no"}, {"uid": "x"}, {"owner": "me"}])
def test_other_filters_are_an_error(filled: Any, filters: dict[str, object]) -> None:
    """A caller of ours has it wrong."""
    with pytest.raises(msgspec.ValidationError):
        filled.history(filters=filters, offset=0, limit=1)


@pytest.mark.parametrize(
    ("filters", "sorts"),
    [
        ({}, False),
        ({"uid": 1, "status": "failed"}, False),
        ({"agent": "alpha"}, False),
        ({"agent": "alpha", "status": "success"}, False),
        ({"status": "failed"}, False),
        ({"status": "success"}, False),
        ({"status": "armed"}, True),
    ],
)
def test_history_walks_an_index(agent: Any, filters: dict[str, object], sorts: bool) -> None:
    """A million rows are not looked at for one page; only what is open, and little, is put in order."""
    source, order, values = tables._history(filters)
    sql = f"EXPLAIN QUERY PLAN SELECT * {source} ORDER BY {order} LIMIT 10"
    plan = " | ".join(row[3] for row in agent.store.database.reader.execute(sql, values))
    assert "USING INDEX" in plan
    assert ("TEMP B-TREE" in plan) is sorts


@pytest.mark.parametrize("name", [name for name in queries() if "executions" in name or "execution_" in name])
def test_pages_walk_an_index(agent: Any, name: str) -> None:
    """Each of the named queries; a run is put in order, which is a handful of rows."""
    sql = f"EXPLAIN QUERY PLAN {queries()[name].replace(':columns', 'id')}"
    values = dict.fromkeys(("uid", "limit", "offset", "index", "second", "agent", "id", "run_id"), 1)
    plan = " | ".join(row[3] for row in agent.store.database.reader.execute(sql, values))
    assert "INDEX" in plan
    assert "TEMP B-TREE" not in plan or name == "run_executions"
