"""Whom a start with a damaged database asks, and whose word means that the cluster goes on without it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from meshcron.core.agent import Agent
from meshcron.messages import Endpoint, GateMessage, MemberInfo, Profile, Refused, Wait, Welcome
from meshcron.runtime import others
from meshcron.runtime.credentials import new_identity, new_key
from meshcron.runtime.others import OTHERS_FILE, Others, leader_without, leads_without, noted, others_of

US, B, C = "a" * 32, "b" * 32, "c" * 32
NAMES = {US: "one", B: "two", C: "three"}
KNOWN = Others("cluster", (("192.0.2.2", 8946), ("192.0.2.3", 8946)))


def place(last: int) -> Endpoint:
    return Endpoint(f"192.0.2.{last}", 8946, 8947, 8948)


def member(node_id: str, *, voter: bool = True, endpoint: Endpoint | None = None) -> MemberInfo:
    return MemberInfo(
        node_id=node_id, name=NAMES[node_id], number=1, public_key="", voter=voter, endpoint=endpoint or place(9)
    )


def profile(node_id: str) -> Profile:
    return Profile(node_id=node_id, name=NAMES[node_id], public_key="", endpoint=place(2), tags={}, facts={}, session=1)


def welcome(leader: str, voters: str, cluster: str = "cluster") -> Welcome:
    """Of B's gate."""
    members = tuple(member(node_id, voter=node_id[0] in voters) for node_id in NAMES)
    return Welcome(
        profile=profile(B), cluster=cluster, generation=0, roster_index=1, members=members, leader=leader, last_index=9
    )


@pytest.mark.parametrize(
    ("answer", "leader"),
    [
        (welcome(B, "abc"), "two"),
        (welcome(C, "abc"), "three"),
        (welcome(C, "bc"), "three"),  # we hold the log, and do not vote
        (welcome("", "abc"), ""),  # they have no leader yet, or no majority
        (welcome(US, "abc"), ""),  # ours was the lead until just now
        (welcome(US, "a"), ""),  # we are the only voter
        (welcome(B, "ab"), ""),  # it cannot lead for long without us
        (welcome(B, "ac"), ""),
        (welcome(B, "abc", "another"), ""),
        (Wait(profile(B), "cluster", "others admit it", virgin=False, led=True), ""),
        (Refused("it was removed from this cluster"), ""),
    ],
)
def test_the_cluster_goes_on_without_us(answer: GateMessage, leader: str) -> None:
    """Where one that votes leads, and those that vote besides us are a majority."""
    assert leads_without(US, "cluster", answer) == leader


def test_the_note_names_the_others_that_vote() -> None:
    """None where nobody does. Who was not heard since the start may be where it was; once all are heard, what was is
    forgotten."""
    members = [member(US), member(B, endpoint=place(3)), member(C, endpoint=place(2))]
    assert others_of("cluster", US, members, None) == KNOWN
    assert others_of("cluster", US, members, Others("cluster", (("192.0.2.9", 1),))) == KNOWN
    assert others_of("cluster", US, [member(US), member(B, voter=False)], KNOWN) is None
    silent = [replace(one, endpoint=None) for one in members]
    assert others_of("cluster", US, silent, None) is None
    assert others_of("cluster", US, silent, KNOWN) == KNOWN
    moved = Others("cluster", (*KNOWN.gates, ("192.0.2.9", 8946)))
    assert others_of("cluster", US, [*silent[:2], member(C)], KNOWN) == moved
    assert others_of("new", US, [*silent[:2], member(C)], KNOWN) == Others("new", (("192.0.2.9", 8946),))
    assert others_of("", US, [], KNOWN) == KNOWN


def test_a_garbled_note_is_none(tmp_path: Path) -> None:
    """It only says whom to ask."""
    assert noted(tmp_path) is None
    for text in (b"", b"\xff", b"{}", b"[1]"):
        (tmp_path / OTHERS_FILE).write_bytes(text)
        assert noted(tmp_path) is None


def test_the_note_follows_what_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written when it changes, gone with the last other voter; a full disk ends nothing."""
    written: list[Others | None] = []
    write = others._write

    def watched(folder: Path, found: Others | None) -> None:
        written.append(found)
        if len(written) == 1:
            raise OSError(28, "No space left on device")
        write(folder, found)

    async def story() -> None:
        alone, three = (member(US),), (member(US), member(B), member(C))
        now: list[tuple[MemberInfo, ...]] = [three]
        agent = cast(Agent, SimpleNamespace(cluster="cluster", roster=lambda: now[0]))
        task = asyncio.ensure_future(others.keep_noted(tmp_path, agent, US))

        async def until(wanted: Others | None) -> None:
            async with asyncio.timeout(10):
                while noted(tmp_path) != wanted:  # noqa: ASYNC110 it is a file that is waited for
                    await asyncio.sleep(0.001)

        both = others_of("cluster", US, three, None)
        assert both is not None
        await until(both)
        assert (tmp_path / OTHERS_FILE).stat().st_mode & 0o777 == 0o600
        now[0] = alone
        await until(None)
        assert written == [both, both, None]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    monkeypatch.setattr(others, "_write", watched)
    monkeypatch.setattr(others, "NOTE_SECONDS", 0.001)
    asyncio.run(story())


@pytest.mark.parametrize(
    ("rounds", "leader"),
    [
        ([[], [], []], ""),
        ([[welcome("", "abc")], [welcome("", "abc"), welcome(C, "abc")]], "three"),
        ([[Refused("no")], [welcome(US, "abc")], [welcome("", "abc")]], ""),
    ],
)
def test_it_asks_more_than_once(monkeypatch: pytest.MonkeyPatch, rounds: list[list[GateMessage]], leader: str) -> None:
    """Who starts in the same moment has no leader yet. It asks where the note says, and where it is told to join."""
    asked: list[object] = []
    left = list(rounds)

    class Asking:
        def __init__(self, *_: Any) -> None:
            pass

        async def ask(self, places: Sequence[tuple[str, int]], interfaces: Any) -> list[GateMessage]:
            asked.append((tuple(places), interfaces))
            return left.pop(0)

    monkeypatch.setattr(others, "Inquiry", Asking)
    monkeypatch.setattr(others, "LOOK_SECONDS", 0)
    us = replace(new_identity(), node_id=US)
    join = [("192.0.2.7", 1)]
    assert asyncio.run(leader_without(KNOWN, us, new_key(), join, None)) == leader
    assert left == []
    assert asked == [((*KNOWN.gates, ("192.0.2.7", 1)), None)] * len(rounds)
