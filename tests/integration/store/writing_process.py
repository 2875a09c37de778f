"""A process that writes to a data directory as fast as it can and says what is durable; for test_crash.py.

Usage: writing_process.py FOLDER ROWS_A_GROUP. On standard output: `start N` once, then `N` for each group told as
persisted, N being the last log index in it; `low` and `failed: why` as the writer tells them.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from threading import Event

from meshcron.chain import chain
from meshcron.model import Execution
from meshcron.rows import BallotRow, ExecutionRow, LogRow, MetaRow, Row
from meshcron.store.directory import Identity
from meshcron.store.store import Store
from meshcron.store.writer import Writer

IN_FLIGHT_MAX = 8
BODY = b'{"pad":"' + b"x" * 300 + b'"}'


def identity() -> Identity:
    return Identity(node_id="a" * 32, public_key="p" * 40, secret_key="s" * 40, created_wall_us=1)


def execution(index: int) -> ExecutionRow:
    return ExecutionRow(
        Execution(
            id=f"{index:032x}",
            uid=index % 10,
            run_id=str(index),
            index=index,
            revision=1,
            attempt=1,
            trigger="schedule",
            scheduled_wall_us=index,
            due_cluster_us=index,
            start_by_cluster_us=index,
        )
    )


def main() -> int:
    folder, group = Path(sys.argv[1]), int(sys.argv[2])
    store = Store(folder, "machine")
    store.open(identity)
    print("start", store.start, flush=True)
    if len(sys.argv) > 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    told, over = Event(), Event()
    durable = [0]

    def persisted(n: int) -> None:
        durable[0] = n
        print(n, flush=True)
        told.set()

    def failed(error: BaseException) -> None:
        print("failed:", error, flush=True)
        over.set()
        told.set()

    writer = Writer(
        store,
        on_persisted=persisted,
        on_failure=failed,
        on_low_disk=lambda: print("low", flush=True),
        hop=lambda callback, *arguments: callback(*arguments),
        clock=time.monotonic,
    )
    writer.start()
    index, crc = store.log_end.index, store.log_end.crc or 0
    while not over.is_set():
        rows: list[Row] = []
        for _ in range(group):
            index += 1
            crc = chain(crc, index, 1, BODY)
            rows += [LogRow(index, 1, crc, BODY), execution(index)]
        rows += [MetaRow("applied", str(index)), BallotRow(index, "me")] if index % 50 < group else []
        writer.submit(index, tuple(rows))
        while index - durable[0] > IN_FLIGHT_MAX * group and not over.is_set() and durable[0]:
            told.wait(1)
            told.clear()
    writer.close()
    return 1


if __name__ == "__main__":
    sys.exit(main())
