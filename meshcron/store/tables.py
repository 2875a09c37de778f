"""What is read back: everything at a start, and for the API pages of executions, each by an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from meshcron.model import OPEN_STATUSES, Execution, Status
from meshcron.rows import BallotRow, Loaded, MarkRow
from meshcron.store.log import read_log
from meshcron.store.queries import queries
from meshcron.store.shapes import BY_TABLE, executions_from

_SQL = queries()
_COLUMNS = ", ".join(BY_TABLE["executions"].columns)
_LAST_WALL_US = (1 << 63) - 1
_INDEX_DIGITS = 9
"""Of a public id: the log index modulo 10**9 (model.Execution.public_id)."""
_PUBLIC_DIGITS_MAX = 21
"""Seconds up to the year 33658, then the index: in microseconds they fit SQLite's integer."""


class _HistoryFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """What `history` may be asked for; a default filters nothing."""

    uid: int | None = None
    agent: str = ""
    status: Status | None = None
    since_wall_us: int = 0
    until_wall_us: int = _LAST_WALL_US


class Tables:
    """The committed rows. Every query is paged and walks an index; the connection is used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def load(self) -> Loaded:
        """Everything an agent reads at start, in key order. Raises DamagedStore (a broken chain of the log),
        sqlite3.Error and msgspec.MsgspecError (a row that is none): the caller takes these as damage too."""
        mark = self._all("mark")
        return Loaded(
            ballot=self.ballot(),
            log=read_log(self._connection),
            meta=self.meta(),
            jobs=self._all("jobs"),
            job_states=self._all("job_states"),
            open_executions=self._executions("open_executions"),
            owed=self._all("owed"),
            members=[row.member for row in self._all("members")],
            tokens=[row.token for row in self._all("tokens")],
            calls=self._all("calls"),
            seen=self._all("seen"),
            specs=self._all("specs"),
            mark=mark[0] if mark else MarkRow(0, 0, 0),
        )

    def ballot(self) -> BallotRow:
        """The term and vote this agent has promised."""
        found = self._all("ballot")
        return found[0] if found else BallotRow(0, "")

    def meta(self) -> dict[str, str]:
        """The catalog's scalars by name."""
        return {row.key: row.value for row in self._all("meta")}

    def executions(self, uid: int, *, newest_first: bool, offset: int, limit: int) -> list[Execution]:
        """A page of one job's executions in order of the log, open ones included."""
        name = "executions_newest_first" if newest_first else "executions_oldest_first"
        return self._executions(name, uid=uid, offset=offset, limit=limit)

    def execution_count(self, uid: int) -> int:
        """How many executions of a job are kept, open ones included."""
        return self._number("execution_count", uid=uid)

    def execution(self, uid: int, public_id: str) -> Execution | None:
        """One execution of a job by the id people see."""
        digits, _, agent = public_id.partition("-")
        if not (digits.isascii() and digits.isdigit() and _INDEX_DIGITS < len(digits) <= _PUBLIC_DIGITS_MAX):
            return None
        second, index = int(digits[:-_INDEX_DIGITS]), int(digits[-_INDEX_DIGITS:])
        for candidate in range(index, self._number("newest_index", uid=uid) + 1, 10**_INDEX_DIGITS):
            found = self._executions("execution_by_public_id", uid=uid, index=candidate, second=second, agent=agent)
            if found:
                return found[0]
        return None

    def execution_by_id(self, execution_id: str) -> Execution | None:
        """One execution by the cluster's own id."""
        found = self._executions("execution_by_id", id=execution_id)
        return found[0] if found else None

    def run_executions(self, run_id: str) -> list[Execution]:
        """Every execution of a run, oldest first."""
        return self._executions("run_executions", run_id=run_id)

    def history(self, *, filters: Mapping[str, object], offset: int, limit: int) -> list[Execution]:
        """Executions of all jobs, newest tick first (of one job: newest in the log first). `filters`: uid, agent,
        status, since_wall_us, until_wall_us (both included). Raises msgspec.ValidationError for others."""
        source, order, values = _history(filters)
        sql = f"SELECT {_COLUMNS} {source} ORDER BY {order} LIMIT :limit OFFSET :offset"
        return executions_from(self._connection.execute(sql, {**values, "limit": limit, "offset": offset}))

    def _all(self, table: str) -> list[Any]:
        shape = BY_TABLE[table]
        sql = f"SELECT {', '.join(shape.columns)} FROM {table} ORDER BY {', '.join(shape.key_columns)}"
        return shape.rows(self._connection.execute(sql).fetchall())

    def _executions(self, name: str, **values: object) -> list[Execution]:
        return executions_from(self._connection.execute(_SQL[name].replace(":columns", _COLUMNS), values))

    def _number(self, name: str, **values: object) -> int:
        found: int | None = self._connection.execute(_SQL[name], values).fetchone()[0]
        return found or 0


def _history(filters: Mapping[str, object]) -> tuple[str, str, dict[str, object]]:
    """Source, order and values of a history query: the index that leaves the fewest rows to look at."""
    chosen = msgspec.convert(dict(filters), _HistoryFilter)
    values: dict[str, object] = {
        "uid": chosen.uid,
        "agent": chosen.agent,
        "status": chosen.status.value if chosen.status else "",
        "since_wall_us": chosen.since_wall_us,
        "until_wall_us": chosen.until_wall_us,
    }
    if chosen.uid is not None:
        return _SQL["from_history_of_job"], "idx DESC, rowid DESC", values
    if chosen.status in OPEN_STATUSES:
        name = "from_history_open"
    elif chosen.status not in {None, Status.SUCCESS}:
        name = "from_history_amiss"
    elif chosen.agent:
        name = "from_history_of_agent"
    else:
        name = "from_history"
    return _SQL[name], "scheduled_wall_us DESC, rowid DESC", values
