"""No entry outgrows the log (PROTOCOL 5, Sizes): the largest of each kind, by the limits of whoever proposes it.

A leader whose own entry is too large ends, and so does the next one. A new kind needs a row here.
"""

from __future__ import annotations

from typing import Any, get_args

import pytest
from msgspec.structs import replace

from meshcron import entries
from meshcron.api.fields import NAME_BYTES_MAX
from meshcron.api.forms import RUN_ENV_BYTES_MAX
from meshcron.api.settings import HEADER_BYTES_MAX
from meshcron.core import overlap, reboots, reports, scheduler
from meshcron.core.gate import LETTERS_MAX
from meshcron.core.intents import INTENTS_BYTES_MAX
from meshcron.core.pieces import json_bytes, pieces
from meshcron.core.roster import SIZES
from meshcron.entries import ENTRY_BYTES_MAX, Entry, Intent
from meshcron.messages import ResultItem, StartedItem
from meshcron.model import JOB_BYTES_MAX, OUTPUT_TAIL_BYTES, Ending, Job, Member, Token
from meshcron.net.codec import CLUSTER_LETTERS_MAX, INTEGER_MAX, MESSAGE_BYTES_MAX

WORST = "\x01"
"""The letter that takes most as JSON: six bytes."""

MEMBERS = MESSAGE_BYTES_MAX // 200
"""About as many as one Welcome can name: no more get into the mesh."""

NUMBER = 10**7
"""Of the roster: so many members have come and gone."""

INDEX = 10**12 - 1
"""Of an entry, and so of a job and of a run by hand: a thousand a second for thirty years."""

INSTANT = 253_402_300_799_000_000
"""The last of the year 9999."""

RUN = f"{INDEX}-b{NUMBER}-{INTEGER_MAX}"
"""The longest id of a run: of a start of an agent."""

ID = "f" * 32
CALL = "c" * 64
ONCE = entries.Once("f" * 64, INSTANT)
TEXT = WORST * LETTERS_MAX
NAME = "\u00e4" * (NAME_BYTES_MAX // 2)
MEMBER = Member(
    node_id=TEXT, name=TEXT, number=NUMBER, public_key=TEXT, priority=INTEGER_MAX, eligible=False, started=INTEGER_MAX
)
TOKEN = Token(
    id=TEXT, name=TEXT, role="operator", sha256=TEXT, created_wall_us=INTEGER_MAX, expires_wall_us=INTEGER_MAX
)
ENV = {f"A{n:03}": '"' * (RUN_ENV_BYTES_MAX // 256 - 4) for n in range(256)}
"""What a run by hand adds: of two bytes is whatever may stand in it."""

JOB = Job(name="job", schedule="@daily", command="")
JOB = replace(JOB, command="x" * (JOB_BYTES_MAX - json_bytes(replace(JOB, command="x")) + 1))

INTENT = Intent(
    INDEX,
    INDEX,
    NUMBER,
    INSTANT,
    1000,
    "schedule",
    INSTANT,
    INSTANT,
    (NUMBER,) * (MEMBERS // 2),
    INSTANT,
    RUN,
    f"retry|{ID}",
    "x" * 100,
    ENV,
    (NUMBER,) * (MEMBERS // 2),
)
SHORT_INTENT = Intent(2, 2, 0, INSTANT, 1, "schedule", INSTANT, INSTANT, (1,))
TAIL = Ending(
    exit_code=None,
    signal=INTEGER_MAX,
    finished_wall_us=INTEGER_MAX,
    output_tail=WORST * 2 * OUTPUT_TAIL_BYTES,
    output_bytes=INTEGER_MAX,
    output_truncated=True,
)
RESULT = reports.bounded(
    ResultItem(
        execution_id=WORST * reports.ID_CHARS_MAX,
        kind="timeout",
        reason=WORST * 2 * reports.REASON_CHARS_MAX,
        started_wall_us=INTEGER_MAX,
        success=True,
        ending=TAIL,
    )
)
SHORT_RESULT = ResultItem(execution_id="", kind="lost")


def intents(items: list[Intent]) -> list[Entry]:
    cut = pieces(items, json_bytes, INTENTS_BYTES_MAX)
    return [entries.Intents(INSTANT, INSTANT, INSTANT, tuple(some), CALL, ONCE) for some in cut]


def results(item: ResultItem) -> Entry:
    """As many of an outcome as one entry takes."""
    count = max(1, reports.RESULTS_BYTES_MAX // json_bytes(item))
    return entries.Results(INSTANT, (item,) * count, TEXT)


LARGEST: dict[type[Any], list[Entry]] = {
    entries.Noop: [entries.Noop(INSTANT, INSTANT, INSTANT)],
    entries.Formed: [entries.Formed(TEXT, MEMBER, (TOKEN, TOKEN))],
    entries.Recovered: [entries.Recovered(MEMBER, INSTANT, INTEGER_MAX)],
    entries.MemberPut: [entries.MemberPut(MEMBER, (TOKEN, TOKEN), NUMBER, ONCE, INSTANT)],
    entries.MemberStarted: [
        entries.MemberStarted(
            number=NUMBER, start=INTEGER_MAX, cluster_us=INSTANT, wall_us=INSTANT, uids=(INDEX,) * reboots.JOBS_MAX
        )
    ],
    entries.MemberRemove: [entries.MemberRemove(NUMBER, INSTANT, CALL)],
    entries.Roster: [entries.Roster((TEXT,) * (SIZES[0] + 1))],
    entries.HandOver: [entries.HandOver(TEXT, INSTANT)],
    entries.Dissolve: [entries.Dissolve(WORST * CLUSTER_LETTERS_MAX)],
    entries.Config: [entries.Config(INTEGER_MAX)],
    entries.JobPut: [
        entries.JobPut(
            job=JOB,
            seen_revision=INDEX,
            seen_cursor_wall_us=INSTANT,
            wall_us=INSTANT,
            cursor_wall_us=INSTANT,
            next_wall_us=INSTANT,
            call=CALL,
            once=ONCE,
        )
    ],
    entries.JobDelete: [entries.JobDelete(INDEX, INDEX, CALL, ONCE)],
    entries.Intents: [
        *intents([INTENT] * 20),
        *intents([INTENT]),
        *intents([SHORT_INTENT] * 10_000),
    ],
    entries.Started: [entries.Started((StartedItem(ID, INTEGER_MAX),) * reports.STARTED_ITEMS_MAX)],
    entries.Results: [results(RESULT), results(SHORT_RESULT)],
    entries.Skip: [
        entries.Skip(
            uid=INDEX,
            revision=INDEX,
            epoch=NUMBER,
            from_wall_us=INSTANT,
            to_wall_us=INSTANT,
            count=scheduler.COUNT_MOST,
            reason="x" * 100,
            next_wall_us=INSTANT,
            lost=True,
        )
    ],
    entries.Queued: [
        entries.Queued(
            uid=INDEX,
            revision=INDEX,
            epoch=NUMBER,
            tick_wall_us=INSTANT,
            next_wall_us=INSTANT,
            kind="replace",
            trigger="catch_up",
            run_id=RUN,
            owed_key=f"child|{RUN}",
            env=ENV,
            node_id=TEXT,
            call=CALL,
            once=ONCE,
        )
    ],
    entries.Reseat: [entries.Reseat(((INDEX, INDEX, NUMBER, INSTANT, INSTANT),) * scheduler.SLICE)],
    entries.StopEntry: [
        entries.StopEntry((ID,) * overlap.STOPS_MAX, (RUN,) * overlap.STOPS_MAX, kill=True),
        entries.StopEntry((ID,) * MEMBERS, (RUN,), kill=True, call=CALL, once=ONCE),
    ],
    entries.Pause: [entries.Pause(True, INSTANT, CALL, ONCE)],
    entries.Prune: [entries.Prune(INDEX, INTEGER_MAX, INSTANT, True, CALL, ONCE)],
    entries.TokenPut: [entries.TokenPut(replace(TOKEN, name=NAME), CALL, ONCE)],
    entries.TokenRevoke: [entries.TokenRevoke(WORST * HEADER_BYTES_MAX, CALL, ONCE)],
    entries.ClockStep: [entries.ClockStep(INSTANT, INSTANT, INSTANT, INSTANT)],
}


def test_every_kind_has_its_largest() -> None:
    assert LARGEST.keys() == set(get_args(Entry))
    assert all(isinstance(entry, kind) for kind, some in LARGEST.items() for entry in some)


@pytest.mark.parametrize("kind", LARGEST, ids=lambda kind: kind.__name__)
def test_the_largest_of_each_kind_fits_into_the_log(kind: type[Any]) -> None:
    assert max(len(entries.encode(entry)) for entry in LARGEST[kind]) <= ENTRY_BYTES_MAX
