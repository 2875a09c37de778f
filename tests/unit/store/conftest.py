"""An agent's store with a writer, a clock in the test's hand, and the accidents that files meet."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshcron.chain import chain
from meshcron.model import Execution, Status
from meshcron.rows import ExecutionRow, Loaded, LogRow, Row
from meshcron.store.directory import Identity
from meshcron.store.log import LogBase
from meshcron.store.store import Store
from meshcron.store.writer import Writer

DEADLINE_SECONDS = 20.0
FILES = ("database", "database-wal", "database.sums", "hard_state")


def identity() -> Identity:
    return Identity(node_id="0123456789abcdef" * 2, public_key="p" * 40, secret_key="s" * 40, created_wall_us=1)


def entry(end: LogBase, body: bytes = b"{}", term: int = 1) -> LogRow:
    """The entry that follows."""
    index = end.index + 1
    return LogRow(index, term, chain(end.crc or 0, index, term, body), body)


def entries(count: int, after: LogBase | None = None, size: int = 40) -> list[LogRow]:
    """A chain of entries."""
    end, rows = after or LogBase(), []
    for _ in range(count):
        rows.append(entry(end, b'{"n":%d,"pad":"%s"}' % (end.index + 1, b"x" * size)))
        end = LogBase(rows[-1].index, rows[-1].term, rows[-1].crc)
    return rows


def execution(number: int, **changes: Any) -> ExecutionRow:
    """An execution of its own id; of job 1 unless said otherwise."""
    fields: dict[str, Any] = {
        "id": f"{number:032x}",
        "uid": 1,
        "run_id": f"1:0:{number}",
        "index": number,
        "revision": 1,
        "attempt": 1,
        "trigger": "schedule",
        "scheduled_wall_us": number * 1_000_000,
        "due_cluster_us": number,
        "start_by_cluster_us": number + 1,
        "node_id": "n" * 32,
        "agent": "alpha",
        "status": Status.SUCCESS,
    }
    return ExecutionRow(Execution(**(fields | changes)))


class Agent:
    """A store and its writer. What the writer tells is called in its own thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.persisted: list[int] = []
        self.failures: list[BaseException] = []
        self.low_on_disk = 0
        self.submitted = 0
        self.loaded: Loaded
        self._told = threading.Condition()
        self.store = Store(path, "machine")

    def start(self, *, adopt: bool = False) -> Agent:
        self.store = Store(self.path, "machine")
        self.loaded = self.store.open(identity, adopt=adopt)
        self.persisted.clear()
        self.submitted = 0
        self.writer = Writer(
            self.store,
            on_persisted=self.persisted.append,
            on_failure=self.failures.append,
            on_low_disk=self._low_disk,
            hop=self._hop,
            clock=lambda: self.now,
        )
        self.writer.start()
        return self

    def submit(self, *rows: Row) -> int:
        self.submitted += 1
        self.writer.submit(self.submitted, rows)
        return self.submitted

    def write(self, *rows: Row) -> None:
        """Write these rows as one commit and wait until they are durable."""
        n = self.submit(*rows)
        self.wait(lambda: bool(self.persisted) and self.persisted[-1] >= n)
        assert not self.failures

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._told:
            assert self._told.wait_for(lambda: condition() or bool(self.failures), DEADLINE_SECONDS)

    def stop(self) -> None:
        self.writer.close()
        self.store.close()

    def begin_anew(self) -> None:
        """On an empty folder, after one that cannot be started any more."""
        for file in self.path.iterdir():
            file.unlink()
        self.start()

    def crash(self) -> None:
        """The files stay as they are at this moment, as after kill -9."""
        kept = {name: (self.path / name).read_bytes() for name in FILES}
        self.stop()
        for name, data in kept.items():
            (self.path / name).write_bytes(data)

    def look(self) -> Loaded:
        """What a start reads, without writing anything after."""
        store = Store(self.path, "machine")
        try:
            return store.open(identity)
        finally:
            store.close()

    def _hop(self, callback: Callable[..., object], *arguments: object) -> None:
        with self._told:
            callback(*arguments)
            self._told.notify_all()

    def _low_disk(self) -> None:
        self.low_on_disk += 1


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent that has started for the first time."""
    made = Agent(tmp_path / "data").start()
    yield made
    made.stop()
    shutil.rmtree(made.path)


class Damage:
    """Accidents, undone by `heal`."""

    def __init__(self) -> None:
        self._before: dict[Path, bytes] = {}

    def flip(self, path: Path, byte: int, bit: int = 0) -> None:
        """One bit of one byte."""
        data = bytearray(self._keep(path))
        data[byte] ^= 1 << bit
        path.write_bytes(data)

    def cut(self, path: Path, size: int) -> None:
        """All behind `size` bytes is gone."""
        path.write_bytes(self._keep(path)[:size])

    def heal(self) -> None:
        for path, data in self._before.items():
            path.write_bytes(data)

    def _keep(self, path: Path) -> bytes:
        return self._before.setdefault(path, path.read_bytes())


@pytest.fixture
def damage() -> Damage:
    return Damage()


@pytest.fixture
def build() -> object:
    """The makers of rows, for tests that import nothing from here."""

    class Build:
        entries = staticmethod(entries)
        entry = staticmethod(entry)
        execution = staticmethod(execution)
        identity = staticmethod(identity)
        agent = Agent

    return Build
