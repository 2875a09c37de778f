"""Rows and their columns."""

from __future__ import annotations

import sqlite3

import pytest

from meshcron.model import Execution, Status
from meshcron.rows import ExecutionRow
from meshcron.store.queries import schema
from meshcron.store.shapes import BY_TABLE, CATALOG, Shape, executions_from


@pytest.mark.parametrize("shape", BY_TABLE.values(), ids=lambda shape: shape.table)
def test_the_schema_has_the_columns_of_the_rows(shape: Shape) -> None:
    """In that order, and its key is the table's: a field added to a row must be added to schema.sql (and migrated)."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema())
    columns = connection.execute(f"PRAGMA table_info({shape.table})").fetchall()
    connection.close()
    assert tuple(name for _, name, *_ in columns) == tuple(name.strip('"') for name in shape.columns)
    assert tuple(name for _, name, _, _, _, key in columns if key) == shape.key_columns


def test_the_catalog_is_all_but_what_is_the_agents_own() -> None:
    """Term, vote, what the runner has seen and its specs never leave the agent (PROTOCOL 5)."""
    assert set(BY_TABLE) - set(CATALOG) == {"ballot", "mark", "seen", "specs"}


def test_an_execution_comes_back_as_it_was() -> None:
    """Every field, each with a value that is not its default."""
    execution = Execution(
        id="e", uid=1, run_id="r", index=2, revision=3, attempt=4, trigger="retry", scheduled_wall_us=5,
        due_cluster_us=6, start_by_cluster_us=7, node_id="n", agent="a", status=Status.FAILED, reason="why",
        started_wall_us=8, finished_wall_us=9, exit_code=-1, signal=None, output_tail="ü\0", output_bytes=10,
        output_truncated=True, until_wall_us=11, count=0, env={"K": "v"}, stop="kill", run_failed=True,
    )  # fmt: skip
    shape = BY_TABLE["executions"]
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema())
    marks = ", ".join("?" * len(shape.columns))
    connection.execute(f"INSERT INTO executions VALUES ({marks})", shape.values(ExecutionRow(execution)))
    (found,) = executions_from(connection.execute("SELECT * FROM executions"))
    connection.close()
    assert found == execution
    assert type(found.status) is Status
