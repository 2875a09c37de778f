"""Outputs go with their records, and before them where the disk should not hold more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

from meshcron.model import SECOND_US, Execution, Status
from meshcron.runtime.housekeeping import (
    CAP_SWEEP_SECONDS,
    FIRST_SWEEP_SECONDS,
    LOOK_SECONDS,
    MINUTE_US,
    SLICE,
    SWEEP_SECONDS,
    Housekeeping,
)
from meshcron.runtime.process_folder import Remains

NOW_US = 1_900_000_000 * SECOND_US
DAY_US = 86_400 * SECOND_US


class Disk:
    """What lies there, and what was asked of it."""

    def __init__(self) -> None:
        self.there: dict[str, Remains] = {}
        self.records: dict[str, Execution] = {}
        self.busy: set[str] = set()
        self.forgotten: list[str] = []
        self.kept_bytes = 0
        self.walks = 0

    def add(
        self, name: str, *, minutes_ago: int = 1, size: int = 100, status: str = "success", folder: bool = False
    ) -> None:
        """An output; `status` "" = without a record."""
        self.there[name] = Remains(name, NOW_US - minutes_ago * MINUTE_US, size, folder)
        if status:
            self.records[name] = Execution(
                id=name, uid=1, run_id="r", index=1, revision=1, attempt=1, trigger="schedule", scheduled_wall_us=0,
                due_cluster_us=0, start_by_cluster_us=0, status=Status(status),
            )  # fmt: skip

    def remains(self) -> Iterator[Remains]:
        self.walks += 1
        yield from list(self.there.values())

    def is_over(self, execution_id: str) -> bool:
        return execution_id not in self.busy

    def forget(self, execution_id: str) -> None:
        self.forgotten.append(execution_id)

    def drop_output(self, execution_ids: Iterable[str]) -> None:
        for execution_id in execution_ids:
            del self.there[execution_id]


def keeper(disk: Disk, **more: Any) -> Housekeeping:
    usual: dict[str, Any] = {
        "holds_log": lambda: True,
        "recovered_wall_us": lambda: 0,
        "orphan_age_us": DAY_US,
        "total_bytes_max": 10_000,
        "wall_clock_us": lambda: NOW_US,
    }
    return Housekeeping(disk, disk.records.get, **(usual | more))


def sweep(disk: Disk, **more: Any) -> list[str]:
    """One whole sweep; what is left."""
    for _ in keeper(disk, **more).sweep():
        pass
    return sorted(disk.there)


def test_an_output_goes_with_its_record() -> None:
    """Pruned, or of a deleted job: it goes. With a record it stays, however it ended."""
    disk = Disk()
    disk.add("kept")
    disk.add("lost", status="lost")
    disk.add("pruned", status="")
    assert sweep(disk) == ["kept", "lost"]


def test_nothing_that_may_still_change_is_touched() -> None:
    """It runs, is written by what it left behind, or waits to be committed: neither age nor the cap counts."""
    disk = Disk()
    disk.add("old", status="", minutes_ago=10**6, size=50_000)
    disk.add("open", status="running", folder=True, size=50_000)
    disk.busy = {"old", "open"}
    assert sweep(disk) == ["old", "open"]
    assert disk.forgotten == []


def test_who_does_not_hold_the_log_keeps_what_it_ran_for_a_while() -> None:
    """It knows of no record: outputs of its own go by age, and beyond the cap."""
    disk = Disk()
    disk.add("yesterday", status="", minutes_ago=600)
    disk.add("now", status="")
    assert sweep(disk, holds_log=lambda: False, orphan_age_us=601 * MINUTE_US) == ["now", "yesterday"]
    assert sweep(disk, holds_log=lambda: False, orphan_age_us=600 * MINUTE_US) == ["now"]
    assert sweep(disk) == []


def test_what_a_damaged_database_may_have_forgotten_stays_for_a_while() -> None:
    """Written before a recovery and without a record: an orphan, evidence for some days. Later ones were pruned."""
    disk = Disk()
    disk.add("before", status="", minutes_ago=600)
    disk.add("after", status="", minutes_ago=60)
    assert sweep(disk, recovered_wall_us=lambda: NOW_US - 300 * MINUTE_US) == ["before"]
    assert sweep(disk, recovered_wall_us=lambda: NOW_US, orphan_age_us=601 * MINUTE_US) == ["before"]
    assert sweep(disk, recovered_wall_us=lambda: NOW_US, orphan_age_us=600 * MINUTE_US) == []


def test_a_folder_an_earlier_session_left_is_put_away() -> None:
    """Its outcome is committed, nobody forgot it: its output is kept as any other. One that is open is adopted."""
    disk = Disk()
    disk.add("over", folder=True)
    disk.add("open", folder=True, status="running")
    disk.add("plain")
    assert sweep(disk) == ["open", "over", "plain"]
    assert disk.forgotten == ["over"]


def test_over_the_cap_the_oldest_go() -> None:
    """To nine tenths of it; what is too old to have a record does not count any more."""
    disk = Disk()
    for number in range(20):
        disk.add(f"e{number:02}", minutes_ago=100 - number, size=100)
    disk.add("pruned", status="", size=10_000)
    assert sweep(disk, total_bytes_max=2000) == [f"e{number:02}" for number in range(20)]
    assert sweep(disk, total_bytes_max=1000) == [f"e{number:02}" for number in range(11, 20)]


def test_of_one_minute_no_more_go_than_need_to() -> None:
    """A burst in one minute: some of it goes, not all."""
    disk = Disk()
    for number in range(300):
        disk.add(f"e{number:03}", size=10)
    assert len(sweep(disk, total_bytes_max=2000)) == 180


def test_a_slice_is_small() -> None:
    """PROTOCOL 8: so many executions a turn, and no more."""
    disk = Disk()
    asked: list[int] = []
    for number in range(3 * SLICE + 1):
        disk.add(f"e{number}")
    count = 0

    def record(execution_id: str) -> Execution | None:
        nonlocal count
        count += 1
        return disk.records.get(execution_id)

    keep = Housekeeping(
        disk, record, holds_log=lambda: True, recovered_wall_us=lambda: 0, orphan_age_us=0, total_bytes_max=1000,
        wall_clock_us=lambda: NOW_US,
    )  # fmt: skip
    for _ in keep.sweep():
        asked.append(count)
        count = 0
    assert max(asked) == SLICE
    assert sum(asked) == 3 * SLICE + 1


class Loop:
    """An event loop's clock and timers, in virtual time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(self, self.now + seconds, partial(callback, *arguments))
        self.timers.append(timer)
        return timer

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        while self.timers and (timer := min(self.timers, key=lambda timer: timer.when)).when <= until:
            self.now = timer.when
            self.timers.remove(timer)
            timer.callback()
        self.now = until


class Timer(NamedTuple):
    loop: Loop
    when: float
    callback: Callable[[], None]

    def cancel(self) -> None:
        self.loop.timers.remove(self)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_sweeps_come_again_and_again(loop: Loop) -> None:
    """The first soon after the start, then one an hour, until `close`."""
    disk = Disk()
    keep = keeper(disk)
    keep.start()
    disk.add("first", status="")
    loop.run(FIRST_SWEEP_SECONDS - 1)
    assert disk.walks == 0
    loop.run(1 + LOOK_SECONDS)
    assert (disk.walks, disk.there) == (1, {})
    disk.add("second", status="")
    loop.run(SWEEP_SECONDS - 2 * LOOK_SECONDS)
    assert disk.walks == 1
    loop.run(4 * LOOK_SECONDS)
    assert (disk.walks, disk.there) == (2, {})
    keep.close()
    loop.run(2 * SWEEP_SECONDS)
    assert (disk.walks, loop.timers) == (2, [])


@pytest.mark.parametrize("broken", [OSError(5, "Input/output error"), RuntimeError("a defect")])
def test_an_error_is_not_the_end_of_it(loop: Loop, broken: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next sweep comes; the disk's own errors are a line of the log, a defect is heard by the loop."""
    disk = Disk()
    keep = keeper(disk)
    keep.start()

    def remains() -> Iterator[Remains]:
        raise broken

    with monkeypatch.context() as patched:
        patched.setattr(disk, "remains", remains)
        if isinstance(broken, OSError):
            loop.run(FIRST_SWEEP_SECONDS + LOOK_SECONDS)
        else:
            with pytest.raises(RuntimeError):
                loop.run(FIRST_SWEEP_SECONDS + LOOK_SECONDS)
    disk.add("pruned", status="")
    loop.run(SWEEP_SECONDS + 2 * LOOK_SECONDS)
    assert disk.there == {}


def test_a_disk_that_fills_does_not_wait_for_the_hour(loop: Loop) -> None:
    """What was written since the last sweep is held against the cap, each ten seconds."""
    disk = Disk()
    keeper(disk, total_bytes_max=1000).start()
    loop.run(FIRST_SWEEP_SECONDS + LOOK_SECONDS)
    loop.run(CAP_SWEEP_SECONDS)
    disk.add("old", minutes_ago=5, size=600)
    disk.kept_bytes += 600
    loop.run(2 * LOOK_SECONDS)
    assert disk.walks == 1
    disk.add("new", size=800)
    disk.kept_bytes += 800
    loop.run(2 * LOOK_SECONDS)
    assert (list(disk.there), disk.walks) == (["new"], 3)
    disk.add("newer", size=800)
    disk.kept_bytes += 800
    loop.run(CAP_SWEEP_SECONDS - 3 * LOOK_SECONDS)
    assert disk.walks == 3
    loop.run(3 * LOOK_SECONDS)
    assert len(disk.there) == 1


def test_what_runs_over_the_cap_starts_no_storm(loop: Loop) -> None:
    """Nothing may be dropped and nothing new was kept: no further sweep before the hour."""
    disk = Disk()
    disk.add("daemon", size=5000)
    disk.busy = {"daemon"}
    keeper(disk, total_bytes_max=1000).start()
    loop.run(SWEEP_SECONDS)
    assert disk.walks == 2  # one to look, one to find that there is nothing to drop
