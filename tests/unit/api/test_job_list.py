"""Which jobs, in which order; however many there are, in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.api import job_list
from meshcron.api.job_list import COLUMNS, choose
from meshcron.api.query import Query
from meshcron.commands import JobView
from meshcron.errors import InvalidRequest
from tests.unit.api.api_fake import FakeCluster


def chosen(jobs: Sequence[JobView], **query: str | list[str]) -> tuple[list[str], int]:
    """Names of the jobs that a query chooses, and how many there are in all."""
    arguments = {
        name: [each.encode() for each in ([value] if isinstance(value, str) else value)]
        for name, value in query.items()
    }
    found, total = asyncio.run(choose(jobs, Query(arguments)))
    return [view.job.name for view in found], total


@pytest.fixture
def jobs() -> Sequence[JobView]:
    """Five jobs that differ in everything that is asked below."""
    cluster = FakeCluster()
    cluster.add_job("alpha", tags={"role": "web"}, metadata={"team": "x", "env": "prod"})
    cluster.add_job("beta", tags={"role": "db"}, disabled=True, displayname="Big Alphabet")
    cluster.add_job("delta", metadata={"team": "x"}, retries=2)
    cluster.add_job("gamma", retries=1)
    cluster.add_job("ÄTHER")
    cluster.views["alpha"] = msgspec.structs.replace(cluster.views["alpha"], last_status="success", success_count=7)
    cluster.views["gamma"] = msgspec.structs.replace(cluster.views["gamma"], last_status="running", open_runs=1)
    return cluster.job_views()


ALL = ["alpha", "beta", "delta", "gamma", "ÄTHER"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ALL),
        ({"_order": "DESC"}, ALL[::-1]),
        ({"_sort": "id", "_order": "ASC"}, ALL),
        ({"_sort": "retries", "_order": "DESC", "_end": "2"}, ["delta", "gamma"]),
        ({"_sort": "success_count", "_order": "desc", "_end": "1"}, ["alpha"]),
        ({"_start": "1", "_end": "3"}, ["beta", "delta"]),
        ({"_start": "4", "_end": "9"}, ["ÄTHER"]),
        ({"_start": "5"}, []),
        ({"q": "alpha"}, ["alpha", "beta"]),
        ({"q": "äther"}, ["ÄTHER"]),
        ({"q": ""}, ALL),
        ({"id": ["gamma", "beta", "none"]}, ["beta", "gamma"]),
        ({"status": "success"}, ["alpha"]),
        ({"status": "running"}, ["gamma"]),
        ({"status": "untriggered"}, ["beta", "delta", "ÄTHER"]),
        ({"status": ""}, ALL),
        ({"disabled": "true"}, ["beta"]),
        ({"disabled": "false"}, ["alpha", "delta", "gamma", "ÄTHER"]),
        ({"metadata[team]": "x"}, ["alpha", "delta"]),
        ({"metadata[team]": "x", "metadata[env]": "prod"}, ["alpha"]),
        ({"tags[role]": "db"}, ["beta"]),
        ({"tags[role]": "db", "disabled": "false"}, []),
        ({"unknown": "x", "pretty": ""}, ALL),
    ],
)
def test_choose(jobs: Sequence[JobView], query: dict[str, str], names: list[str]) -> None:
    """API.md, point 7."""
    assert chosen(jobs, **query)[0] == names


def test_an_unknown_status(jobs: Sequence[JobView]) -> None:
    """A word that no job's status can be is a slip, not an empty list."""
    with pytest.raises(InvalidRequest) as caught:
        chosen(jobs, status="bogus")
    assert caught.value.field == "status"
    assert "untriggered" in caught.value.hint


def test_total_counts_what_passes(jobs: Sequence[JobView]) -> None:
    """X-Total-Count: before paging, after the filters."""
    assert chosen(jobs, _start="1", _end="2")[1] == 5
    assert chosen(jobs, q="alpha", _end="1") == (["alpha"], 2)


def test_every_column_sorts(jobs: Sequence[JobView]) -> None:
    """Both ways, whatever stands in it."""
    for column in COLUMNS:
        for order in ("ASC", "DESC"):
            assert sorted(chosen(jobs, _sort=column, _order=order)[0]) == sorted(ALL)


@given(st.lists(st.integers(0, 9), max_size=60), st.booleans(), st.integers(0, 70), st.integers(0, 70))
def test_slices_change_nothing(retries: list[int], descending: bool, start: int, length: int) -> None:
    """Sorting in slices of seven is sorting."""
    cluster = FakeCluster()
    for number, count in enumerate(retries):
        cluster.add_job(f"job-{number:02d}", retries=count)
    jobs = cluster.job_views()
    whole = sorted(jobs, key=lambda view: view.job.retries, reverse=descending)
    job_list.SLICE, kept = 7, job_list.SLICE
    try:
        names, total = chosen(
            jobs,
            _sort="retries",
            _order="DESC" if descending else "ASC",
            _start=str(start),
            _end=str(start + length),
        )
    finally:
        job_list.SLICE = kept
    assert total == len(retries)
    assert names == [view.job.name for view in whole[start : start + length]]


def test_many_jobs_leave_the_loop_free() -> None:
    """While twenty slices are chosen from, the loop turns at least as often."""
    jobs = [msgspec.structs.replace(FakeCluster().add_job("a"), revision=n) for n in range(20 * job_list.SLICE)]
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> None:
        counting = asyncio.get_running_loop().create_task(count())
        await choose(jobs, Query({"_sort": [b"retries"]}))
        counting.cancel()

    asyncio.run(both())
    assert turns >= 40
