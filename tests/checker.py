"""The checker (after Jepsen's Chronos test): jobs write down each of their starts outside of meshcron; ticks, starts
and the API's records are matched one to one, and what is missing, doubled or late is named.

As a program: `python -m tests.checker --starts FILE --data-dir DIR --job NAME=AGENT,AGENT ... --job NAME=1 ...`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

SECOND_US = 1_000_000

LATE_US = 200_000
"""The goal: no tick starts later than this, also across the death of the leader."""

SETTLE_US = 2 * SECOND_US
"""A tick so young may still be on its way to its record."""

SETTLE_SECONDS = 20.0
"""How long `checked` waits for the records of older ones, where nobody says otherwise."""

OPEN = frozenset({"armed", "waiting", "running"})
MAY_HAVE_STARTED = OPEN | {"success", "failed", "timeout", "killed", "lost"}

NOBODY_THERE = ("agent down", "missed: ")
"""How the reason begins when a target was away at the tick; and when all were, for longer than it may be late."""

FOR_GOOD_US = sys.maxsize

COMMAND = 'echo "$MESHCRON_JOB $MESHCRON_SCHEDULED_AT $MESHCRON_AGENT $MESHCRON_ATTEMPT $(date +%s%N)" >>{file}'
"""What a job that is to be checked runs; the line is short enough to be appended in one piece."""


class Start(NamedTuple):
    """A line that a job wrote."""

    job: str
    tick_us: int
    agent: str
    attempt: int
    start_us: int


class Record(NamedTuple):
    """What the API says of one tick, one agent and one attempt; `agent` "" = of the run as a whole."""

    job: str
    tick_us: int
    agent: str
    attempt: int
    status: str
    reason: str


class Down(NamedTuple):
    """An agent that was killed or stopped, and the ticks that this excuses: from those that were open when it went to
    those that were decided before it was heard again."""

    agent: str
    from_us: int = 0
    to_us: int = FOR_GOOD_US

    def explains(self, record: Record) -> bool:
        """Whether it was away then."""
        return self.agent == record.agent and self.from_us <= record.tick_us <= self.to_us

    def leaves_open(self, record: Record) -> bool:
        """Whether nobody is there who could end it: one that is back tells of all that it was given."""
        return self.to_us == FOR_GOOD_US and record.status in OPEN and self.explains(record)


class Job(NamedTuple):
    """A job with a tick each second, which allows overlap."""

    name: str
    targets: frozenset[str] | int
    """The agents that each tick must reach, or how many of them."""


@dataclass
class Findings:
    """A sentence for each fault."""

    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    """No faults: what a dead agent took with it."""
    ticks: int = 0
    worst_us: int = 0
    """The latest of all starts, on agents that were not down."""

    @property
    def clean(self) -> bool:
        """Nothing missing, nothing doubled; lateness is the caller's to judge."""
        return not (self.missing or self.doubled)

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return f"missing {len(self.missing)} doubled {len(self.doubled)} late>{LATE_US // 1000}ms {len(self.late)}"

    def add(self, more: Findings) -> None:
        """Those of another job."""
        self.missing += more.missing
        self.doubled += more.doubled
        self.late += more.late
        self.excused += more.excused
        self.ticks += more.ticks
        self.worst_us = max(self.worst_us, more.worst_us)

    def story(self) -> str:
        """All of it, for a test that failed."""
        return "\n".join([self.line, *self.missing, *self.doubled, *self.late])


def check(
    job: Job, starts: Iterable[Start], records: Iterable[Record], down: Collection[Down], until_us: int
) -> Findings:
    """Every tick from the job's first one up to `until_us`: has each target one record, each record its start, and was
    it a success? The records are those of a settled story: one that is open has been given its time.

    What is `down` may have left ticks `lost`, `skipped` for that reason where nothing started, or open where it never
    came back; that is accounted for, and nobody minds a late start. Everything else is not, nor is any second start.
    """
    found = Findings()
    told = _by_tick(each for record in records if record.job == job.name for each in _of_each(job, record))
    begun = _by_tick(start for start in starts if start.job == job.name)
    first_us = min([*told, *begun], default=until_us)
    for tick_us in range(first_us, until_us, SECOND_US):
        found.ticks += 1
        _check_targets(job, tick_us, told[tick_us], found)
        _match(tick_us, begun[tick_us], told[tick_us], down, found)
    if not found.ticks:
        found.missing.append(f"{job.name}: not a single tick")
    return found


def _of_each(job: Job, record: Record) -> list[Record]:
    """What is said of the run as a whole, said of each of its targets, where it is known which they are."""
    if record.agent or isinstance(job.targets, int):
        return [record]
    return [record._replace(agent=one) for one in sorted(job.targets)]


def _by_tick(things: Iterable[Any]) -> defaultdict[int, list[Any]]:
    sorted_: defaultdict[int, list[Any]] = defaultdict(list)
    for thing in things:
        sorted_[thing.tick_us].append(thing)
    return sorted_


def _check_targets(job: Job, tick_us: int, records: Sequence[Record], found: Findings) -> None:
    """One record for each target of the tick, no more."""
    agents = [record.agent for record in records if record.attempt <= 1]
    if isinstance(job.targets, int):
        wanted, too_many = job.targets - len(agents), len(agents) - job.targets
        found.missing += [f"{job.name} {_clock(tick_us)}: no record of {wanted} of {job.targets}"] * max(0, wanted)
        found.doubled += [f"{job.name} {_clock(tick_us)}: records of {agents}"] * max(0, too_many)
        return
    found.missing += [f"{job.name} {_clock(tick_us)}: no record of {one}" for one in sorted(job.targets - {*agents})]
    for one in sorted(set(agents)):
        if agents.count(one) > 1 or one not in job.targets:
            found.doubled.append(f"{job.name} {_clock(tick_us)}: {agents.count(one)} records of {one or 'no agent'}")


def _match(
    tick_us: int, starts: Sequence[Start], records: Sequence[Record], down: Collection[Down], found: Findings
) -> None:
    """Starts and records of one tick, one to one."""
    left = defaultdict(list)
    for start in starts:
        left[start.agent, start.attempt].append(start)
    for record in records:
        where = f"{record.job} {_clock(tick_us)} on {record.agent}"
        away = [one for one in down if one.explains(record)]
        started = left.pop((record.agent, record.attempt), [])
        if len(started) > 1:
            found.doubled.append(f"{where}: started {len(started)} times")
        if started and record.status not in MAY_HAVE_STARTED:
            found.doubled.append(f"{where}: started, but recorded as {record.status}: {record.reason}")
        elif not started or record.status != "success":
            _account(where, record, bool(started), away, found)
        if started and record.attempt <= 1 and not away:
            late_us = started[0].start_us - tick_us
            found.worst_us = max(found.worst_us, late_us)
            if late_us > LATE_US:
                found.late.append(f"{where}: {late_us // 1000} ms late")
    for start in (one for several in left.values() for one in several):
        found.doubled.append(f"{start.job} {_clock(tick_us)} on {start.agent}: started without a record")


def _account(where: str, record: Record, started: bool, away: Collection[Down], found: Findings) -> None:
    """A record without a start, or one that never became a success."""
    excused = any(
        one.leaves_open(record)
        or record.status == "lost"
        or (not started and record.status == "skipped" and record.reason.startswith(NOBODY_THERE))
        for one in away
    )
    what = f"{record.status}{': ' if record.reason else ''}{record.reason}"
    said = f"{where}: {'started' if started else 'no start'}, recorded as {what}"
    (found.excused if excused else found.missing).append(said)


def _clock(tick_us: int) -> str:
    return datetime.fromtimestamp(tick_us / SECOND_US).strftime("%H:%M:%S")  # noqa: DTZ006 - for a person, here


# where starts and records come from


def microseconds(text: str) -> int:
    """An instant of the API or of a job's environment."""
    return round(datetime.fromisoformat(text).timestamp() * SECOND_US)


def read_starts(file: Path) -> list[Start]:
    """What the jobs wrote; a line that is not whole yet is left out."""
    starts = []
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            job, tick, agent, attempt, nanoseconds = line.split()
            starts.append(Start(job, microseconds(tick), agent, int(attempt), int(nanoseconds) // 1000))
    return starts


def read_records(executions: Iterable[Mapping[str, Any]]) -> list[Record]:
    """The API's executions; a range of missed ticks is one record for each of them."""
    records = []
    for one in executions:
        first_us = microseconds(one["scheduled_at"])
        for number in range(max(1, one["count"])):
            tick_us = first_us + number * SECOND_US
            name, attempt = one["node_name"], one["attempt"]
            records.append(Record(one["job_name"], tick_us, name, attempt, one["status"], one["reason"]))
    return records


Executions = Callable[[str], list[dict[str, Any]]]
"""The API's executions of a job, by its name."""


def settled(
    jobs: Sequence[Job], executions: Executions, down: Collection[Down], until_us: int, seconds: float = SETTLE_SECONDS
) -> list[Record]:
    """The records of all ticks, once none before `until_us` is open but on an agent that is down for good; or, after so
    many seconds, whatever they are: `check` calls missing what is open then. The last look begins after that time: one
    at many records takes long, and what it reads first has had its time, too."""
    deadline = time.monotonic() + seconds
    while True:
        last = time.monotonic() >= deadline
        records = [record for job in jobs for record in read_records(executions(job.name))]
        open_ = (one for one in records if one.tick_us < until_us and one.status in OPEN)
        if last or all(any(each.leaves_open(one) for each in down) for one in open_):
            return records
        time.sleep(0.2)


def checked(
    jobs: Sequence[Job],
    file: Path,
    executions: Executions,
    down: Collection[Down] = (),
    seconds: float = SETTLE_SECONDS,
) -> Findings:
    """Check all ticks up to a moment ago, once they are settled or so many seconds are over."""
    until_us = int(time.time()) * SECOND_US - SETTLE_US
    records = settled(jobs, executions, down, until_us, seconds)
    starts, total = read_starts(file), Findings()
    for job in jobs:
        total.add(check(job, starts, records, down, until_us))
    return total


def main() -> int:
    """Exit code 0 = nothing missing, doubled or late."""
    parser = argparse.ArgumentParser(description="Match ticks, starts and records one to one.")
    parser.add_argument("--starts", type=Path, required=True, help="the file that the jobs append to")
    parser.add_argument("--data-dir", type=Path, required=True, help="of an agent that is asked for the records")
    parser.add_argument("--job", action="append", default=[], metavar="NAME=TARGETS", help="agents, or how many")
    parser.add_argument("--down", action="append", default=[], metavar="AGENT", help="was killed")
    words = parser.parse_args()
    url = json.loads((words.data_dir / "agent.json").read_text())["url"]
    token = (words.data_dir / "local.token").read_text().strip()

    def executions(name: str) -> list[dict[str, Any]]:
        where = f"{url}/v1/executions/{name}?_start=0&_end=5000"
        request = urllib.request.Request(where, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            records: list[dict[str, Any]] = json.load(answer)
            return records

    pairs = [text.partition("=") for text in words.job]
    jobs = [
        Job(name, int(targets) if targets.isdecimal() else frozenset(targets.split(","))) for name, _, targets in pairs
    ]
    found = checked(jobs, words.starts, executions, [Down(agent) for agent in words.down])
    for sentence in [*found.missing, *found.doubled, *found.late]:
        print(sentence, file=sys.stderr)
    if found.excused:
        print(f"{found.ticks} ticks; {len(found.excused)} starts went with {', '.join(words.down)}, each on record")
    print(found.line)
    return 1 if found.missing or found.doubled or found.late else 0


if __name__ == "__main__":
    sys.exit(main())
