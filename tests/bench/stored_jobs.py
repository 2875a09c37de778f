"""Many job definitions as rows: what an agent that was given them one by one would hold on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import msgspec

from meshcron.model import SECOND_US, Job
from meshcron.rows import JobRow, JobStateRow
from meshcron.store.directory import machine_id
from meshcron.store.store import Store
from meshcron.store.writer import Writer

FIRST_UID = 1_000_000_000
"""Far from the uids that an agent gives: the log index of the entry that made the job."""

DAY_US = 86_400 * SECOND_US
GROUP = 1000
WRITE_SECONDS = 60.0


def rows(count: int, wall_us: int) -> Iterator[tuple[JobRow, JobStateRow]]:
    """Jobs of the size of the reference's example, whose ticks spread over the day after tomorrow."""
    for number in range(count):
        uid, second = FIRST_UID + number, number % 86_400
        schedule = f"{second % 60} {second // 60 % 60} {second // 3600} * * *"
        job = Job(name=f"stored-{number}", schedule=schedule, command="/usr/bin/date", owner="John Doe")
        due_us = (wall_us // DAY_US + 2) * DAY_US + second * SECOND_US
        yield (
            JobRow(uid, uid, job.name, msgspec.json.encode(job).decode(), True, False, wall_us),
            JobStateRow(uid, 0, wall_us, due_us, 0, 0, 0, 0, "", 0),
        )


def fill(folder: Path, count: int) -> None:
    """Write them into the data directory of an agent that does not run."""
    store = Store(folder, machine_id())
    store.open(lambda: store.identity)
    durable = Event()
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        durable.set()

    writer = Writer(
        store,
        on_persisted=lambda n: durable.set() if n == count // GROUP else None,
        on_failure=failed,
        on_low_disk=lambda: None,
        hop=lambda callback, *arguments: callback(*arguments),
        clock=time.monotonic,
    )
    writer.start()
    pairs = rows(count, time.time_ns() // 1000)
    for group in range(1, count // GROUP + 1):
        writer.submit(group, tuple(row for _ in range(GROUP) for row in next(pairs)))
    durable.wait(WRITE_SECONDS)
    writer.close()
    store.close()
    if failures:
        raise failures[0]
