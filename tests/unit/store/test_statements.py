"""The SQL that writes: few statements, exact values."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from meshcron.model import OPEN_STATUSES
from meshcron.rows import DropHistory, MetaRow, Row
from meshcron.store import statements
from meshcron.store.batch import fold
from meshcron.store.queries import queries, schema
from meshcron.store.shapes import SHAPES


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript(schema())
    yield made
    made.close()


def write(connection: sqlite3.Connection, rows: list[Row]) -> list[str]:
    """Write rows and tell the statements it took."""
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    for batch in fold(rows):
        statements.write_rows(connection, batch)
    connection.set_trace_callback(None)
    return seen


def test_a_group_is_a_handful_of_statements(connection: sqlite3.Connection, build: Any) -> None:
    """A busy loop takes the interpreter lock between any two steps: 500 rows must not be 500 steps."""
    assert len(write(connection, [build.execution(n) for n in range(500)])) <= 12
    assert connection.execute("SELECT count(*) FROM executions").fetchone() == (500,)


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 127, 1025])
def test_any_number_of_rows_is_written_once(connection: sqlite3.Connection, count: int) -> None:
    """The pieces fit together, whatever is left for the last."""
    write(connection, [MetaRow(f"k{n}", "v") for n in range(count)])
    assert connection.execute("SELECT count(*) FROM meta").fetchone() == (count,)


def test_the_widest_statement_stays_under_its_limit() -> None:
    """So that a prepared statement stays small."""
    for shape in SHAPES.values():
        rows = [tuple([0] * len(shape.columns))] * 5000
        assert all(
            len(part) * len(shape.columns) <= statements.PARAMETERS_MAX
            for part in statements._cut(rows, len(shape.columns))
        )
        assert {len(part) for part in statements._cut(rows, len(shape.columns))} <= {2**n for n in range(12)}


def test_text_with_a_nul_is_kept_whole(connection: sqlite3.Connection, build: Any) -> None:
    """Output may hold anything; SQLite's JSON functions would end it at the NUL."""
    write(connection, [build.execution(1, output_tail="a\0b\0")])
    stored = connection.execute("SELECT output_tail FROM executions").fetchone()[0]
    assert stored == "a\0b\0"


def test_history_is_dropped_by_the_index_of_its_job(connection: sqlite3.Connection) -> None:
    """A prune must not walk a million rows of other jobs."""
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statements._drop_history_sql(2)}", (1, 3, 0, 2, 3, 0)).fetchall()
    text = " | ".join(row[3] for row in plan)
    assert "SEARCH executions USING INDEX executions_by_job (uid=?)" in text
    assert "SCAN executions" not in text


def test_open_executions_outlive_any_prune(connection: sqlite3.Connection, build: Any) -> None:
    """Whatever is asked: what has no end yet is never forgotten."""
    rows = [build.execution(n, status=status) for n, status in enumerate(sorted(OPEN_STATUSES), start=1)]
    write(connection, [*rows, build.execution(9), DropHistory(1, 0, 2**60)])
    found = connection.execute("SELECT status FROM executions ORDER BY status").fetchall()
    assert [status for (status,) in found] == sorted(OPEN_STATUSES)


def test_sql_and_model_agree_on_what_is_open() -> None:
    """The schema and the queries spell the states out; a new open state must change them all."""
    spelt = {
        frozenset(re.findall(r"'(\w+)'", states)) - {"success"}
        for text in [schema(), *queries().values()]
        for states in re.findall(r"status (?:NOT )?IN \(([^)]*)\)", text)
    }
    assert spelt == {frozenset(status.value for status in OPEN_STATUSES)}
