"""The store's figures: commits, groups, start, page queries; the limit of the disk measured beside them.

    python tests/bench/room_store.py [--folder DIR] [--jobs N] [--history N] [--busy]

With `--busy` another thread of the process computes without pause, as a loop under load does. The single commits come
with a bare SQLite commit of one row in the same folder as their limit.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from meshcron.chain import chain
from meshcron.model import Execution, Status
from meshcron.rows import BallotRow, ExecutionRow, JobRow, JobStateRow, LogRow, MetaRow, Row
from meshcron.store import wal
from meshcron.store.directory import Identity
from meshcron.store.inspection import inspect
from meshcron.store.log import LogBase
from meshcron.store.store import Store
from meshcron.store.writer import Writer

DEFINITION = '{"name":"job","schedule":"*/5 * * * * *","command":"' + "x" * 200 + '"}'
OUTPUT = "o" * 200


def identity() -> Identity:
    return Identity(node_id="a" * 32, public_key="p" * 40, secret_key="s" * 40, created_wall_us=1)


class Running:
    """A store with its writer."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder, "machine")
        began = time.perf_counter()
        self.loaded = self.store.open(identity)
        self.open_seconds = time.perf_counter() - began
        self.n = 0
        self.durable = 0
        self.told = threading.Condition()
        self.writer = Writer(
            self.store,
            on_persisted=self.persisted,
            on_failure=lambda error: print("failed:", error),
            on_low_disk=lambda: print("low on disk"),
            hop=lambda callback, *arguments: callback(*arguments),
            clock=time.monotonic,
        )
        self.writer.start()
        self.end = self.store.log_end

    def persisted(self, n: int) -> None:
        with self.told:
            self.durable = n
            self.told.notify()

    def submit(self, *rows: Row) -> None:
        self.n += 1
        self.writer.submit(self.n, rows)

    def wait(self) -> None:
        with self.told:
            self.told.wait_for(lambda: self.durable == self.n)

    def entry(self, body: bytes = b"x" * 300) -> LogRow:
        index = self.end.index + 1
        row = LogRow(index, 1, chain(self.end.crc or 0, index, 1, body), body)
        self.end = LogBase(index, 1, row.crc)
        return row

    def stop(self) -> None:
        self.writer.close()
        self.store.close()


def execution(number: int, status: Status, jobs: int = 1000) -> ExecutionRow:
    digest = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
    return ExecutionRow(
        Execution(
            id=digest,
            uid=number % jobs + 1,
            run_id=f"{number % jobs}:0:{number}",
            index=number,
            revision=1,
            attempt=1,
            trigger="schedule",
            scheduled_wall_us=number * 1000,
            due_cluster_us=number,
            start_by_cluster_us=number,
            node_id="n" * 32,
            agent=f"agent{number % 5}",
            status=status,
            output_tail=OUTPUT if status.final else "",
        )
    )


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            sum(range(200))

    thread = threading.Thread(target=spin)
    if wanted:
        thread.start()
    yield
    over.set()
    if wanted:
        thread.join()


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {p50 * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms"


def bare_commits(folder: Path, count: int) -> list[float]:
    connection = sqlite3.connect(folder / "bare", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a, b)")
    seconds = []
    for n in range(count):
        began = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, b"x" * 300))
        seconds.append(time.perf_counter() - began)
    connection.close()
    return seconds


def single(running: Running, count: int, make: Callable[[], tuple[Row, ...]]) -> list[float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        running.submit(*make())
        running.wait()
        seconds.append(time.perf_counter() - began)
    return seconds


def groups(running: Running, label: str, size: int, total: int, make: Callable[[], Row]) -> None:
    made = [tuple(make() for _ in range(size)) for _ in range(total // size)]
    seconds = []
    for rows in made:
        began = time.perf_counter()
        running.submit(*rows)
        running.wait()
        seconds.append(time.perf_counter() - began)
    print(f"{label:22} groups of {size:5}: {total / sum(seconds):8.0f} rows/s   {spread(seconds)} a commit")


def queued(running: Running, label: str, total: int, make: Callable[[], Row]) -> None:
    made = [make() for _ in range(total)]
    began = time.perf_counter()
    for row in made:
        running.submit(row)
    running.wait()
    print(f"{label:22} submitted one by one: {total / (time.perf_counter() - began):8.0f} rows/s")


def timed(label: str, call: Callable[[], object], times: int = 200) -> None:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    print(f"{label:40} {spread(seconds)}")


def writes(folder: Path, is_busy: bool) -> None:
    running = Running(folder / "writes")
    numbers = iter(range(1, 10**9))
    term = iter(range(1, 10**9))
    with busy(is_busy):
        print(f"bare SQLite commit                       {spread(bare_commits(folder, 500))}")
        print(f"single entry, submit to persisted        {spread(single(running, 500, lambda: (running.entry(),)))}")
        vote = single(running, 200, lambda: (BallotRow(next(term), "n" * 32),))
        print(f"vote, submit to persisted (two fsyncs)   {spread(vote)}")
        for size, total in ((50, 5000), (500, 40000)):
            groups(running, "entries", size, total, running.entry)
        for size, total in ((50, 5000), (500, 30000)):
            groups(running, "new executions", size, total, lambda: execution(next(numbers), Status.ARMED))
        numbers = iter(range(1, 10**9))
        groups(running, "executions become final", 500, 30000, lambda: execution(next(numbers), Status.SUCCESS))
        queued(running, "entries", 40000, running.entry)
        numbers = iter(range(10**6, 10**9))
        queued(running, "new executions", 20000, lambda: execution(next(numbers), Status.ARMED))
    print(f"most frames in the -wal: {(folder / 'writes' / wal_name()).stat().st_size // 4120}")
    running.stop()


def wal_name() -> str:
    return "database-wal"


def starts(folder: Path, jobs: int) -> None:
    running = Running(folder / "starts")
    for first in range(0, jobs, 1000):
        running.submit(*[JobRow(n, 1, f"job-{n}", DEFINITION, True, False, 1) for n in range(first, first + 1000)])
        running.submit(*[JobStateRow(n, 1, 2, 3, 4, 5, 6, 7, "success", 8) for n in range(first, first + 1000)])
    for _ in range(10):
        running.submit(*[running.entry() for _ in range(1000)])
    running.submit(*[execution(n, Status.RUNNING) for n in range(1, 1001)])
    running.wait()
    running.stop()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    again = Running(folder / "starts")
    size = again.store.database.path.stat().st_size
    print(f"start with {jobs} jobs, 10,000 entries, {size >> 20} MiB: open {again.open_seconds:.2f} s", end="")
    print(f"   peak RSS {before >> 10} -> {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
    began = time.perf_counter()
    loaded = again.store.tables.load()
    print(f"  of which load {time.perf_counter() - began:.2f} s ({len(loaded.jobs)} jobs)")
    again.stop()
    began = time.perf_counter()
    inspect(folder / "starts", again.store.hard_state.state)
    print(f"  of which inspection {time.perf_counter() - began:.2f} s")
    path = folder / "starts" / wal_name()
    began = time.perf_counter()
    found = wal.scan(path)
    print(f"  of which -wal scan {time.perf_counter() - began:.3f} s ({found.frames} frames)")


def reads(folder: Path, history: int) -> None:
    running = Running(folder / "reads")
    began = time.perf_counter()
    for first in range(1, history, 1000):
        status = Status.FAILED if first % 10_000 == 1 else Status.SUCCESS
        running.submit(*[execution(n, status) for n in range(first, first + 1000)])
        if first % 50_000 == 1:
            running.wait()
    running.wait()
    size = running.store.database.path.stat().st_size >> 20
    print(f"history of {history}: written at {history / (time.perf_counter() - began):.0f} rows/s, {size} MiB")
    tables = running.store.tables
    public_id = tables.executions(7, newest_first=True, offset=50, limit=1)[0].public_id
    run_id = tables.executions(7, newest_first=True, offset=0, limit=1)[0].run_id
    timed("newest 100 of a job", lambda: tables.executions(7, newest_first=True, offset=0, limit=100))
    timed("count of a job", lambda: tables.execution_count(7))
    timed("one by public id", lambda: tables.execution(7, public_id))
    timed("one run", lambda: tables.run_executions(run_id))
    for filters in ({}, {"status": "failed"}, {"agent": "agent3"}, {"agent": "agent3", "status": "failed"}):
        timed(f"history 100 {filters}", partial(tables.history, filters=filters, offset=0, limit=100))

    def commit() -> None:
        running.submit(MetaRow("k", "v"))
        running.wait()

    timed("single commit into it", commit)
    running.stop()
    again = Running(folder / "reads")
    print(f"start with it: open {again.open_seconds:.2f} s")
    again.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write (a disk, not a tmpfs)")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=200_000)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    base = Path(tempfile.mkdtemp(prefix="meshcron-store-", dir=options.folder))
    try:
        writes(base, options.busy)
        if options.jobs:
            starts(base, options.jobs)
        if options.history:
            reads(base, options.history)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
