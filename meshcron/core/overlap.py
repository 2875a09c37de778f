"""What becomes of a run that meets one of the same job which is not over (API.md, Jobs, `concurrency`).

The same for a tick, a child, a start of an agent and a person's request: asked here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from meshcron import entries
from meshcron.core.state import JobState, State
from meshcron.entries import Entry

OVERLAP = "overlap: the last run is still open"
OVERLAP_WAITING = "overlap: one run waits already"

STOPS_MAX = 1000
"""Executions, and as many retries, that one StopEntry ends. An id of the one takes 35 bytes, a run of the other some
50: together 85 KB of the 256 KiB of an entry."""


class Verdict(Struct, frozen=True):
    """`run` now, wait as `queued` or `replace`, or not at all: `skip` for this reason."""

    what: Literal["run", "queued", "replace", "skip"]
    reason: str = ""


def may_run(state: State, job: JobState) -> bool:
    """Whether a run may start, or be armed ahead: overlap is allowed, or nothing is open."""
    return job.job.concurrency == "allow" or not state.is_busy(job)


def judge(state: State, job: JobState) -> Verdict:
    """What becomes of a run that is due now."""
    if may_run(state, job):
        return Verdict("run")
    if job.job.concurrency == "forbid":
        return Verdict("skip", OVERLAP)
    kind: Literal["queued", "replace"] = "queued" if job.job.concurrency == "queue" else "replace"
    return Verdict("skip", OVERLAP_WAITING) if state.has_owed(kind, job.uid) else Verdict(kind)


def make_way(state: State, job: JobState, waiting: entries.Queued) -> Iterable[Entry]:
    """The entries of a run that waits; one that replaces first stops all that the job has open, and retries that
    wait. A leader that dies between two of them leaves the job busy: the next one decides anew, and stops the rest."""
    if waiting.kind == "replace":
        retries = {row.run_id for row in state.owed_to(job.uid) if row.kind == "retry"}
        ids, run_ids = tuple(sorted(job.open_ids)), tuple(sorted(retries))
        for at in range(0, max(len(ids), len(run_ids)), STOPS_MAX):
            end = at + STOPS_MAX
            yield entries.StopEntry(ids[at:end], run_ids[at:end], kill=True)
    yield waiting
