"""Tags -> targets: which members run a tick (API.md, Jobs, `tags`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

FACT_PREFIX = "meshcron."
"""Selects by what a machine says of itself (`meshcron.host`, `.os`, `.arch`) instead of by a tag of the user's."""


class Candidate(Struct, frozen=True):
    """A member with what can be selected: its tags and facts, and whether it counts as failed."""

    number: int
    tags: dict[str, str]
    facts: dict[str, str]
    failed: bool = False
    node_id: str = ""


class Selected(NamedTuple):
    """Roster numbers, lowest first."""

    targets: tuple[int, ...]
    down: tuple[int, ...]
    """Those that should run it and have failed: each gets its own record."""


def select(
    tags: Mapping[str, str] | None,
    candidates: Iterable[Candidate],
    load: Callable[[Candidate], int],
    at_most: int | None = None,
) -> Selected:
    """The members whose tags match all of `tags`; no tags = every member.

    `"web:2"` means at most 2 of them, and so does `at_most`: the lowest count of all wins. Taken are the living ones of
    the smallest `load` (executions), of equal ones those with the lowest numbers; members that have failed are named
    only as far as living ones are lacking.
    """
    wanted = _wanted(tags)
    matching = [one for one in candidates if _has_all(one, wanted)]
    counts = [count for count in (at_most, *(count for _, count in wanted.values())) if count]
    most = min(counts, default=len(matching))
    if most < len(matching):
        matching = sorted(matching, key=lambda one: (one.failed, load(one), one.number))[:most]
    targets = tuple(sorted(one.number for one in matching if not one.failed))
    return Selected(targets, tuple(sorted(one.number for one in matching if one.failed)))


def matches(tags: Mapping[str, str] | None, one: Candidate) -> bool:
    """Whether a member has all of `tags`, whatever their counts."""
    return _has_all(one, _wanted(tags))


def _wanted(tags: Mapping[str, str] | None) -> dict[str, tuple[str, int]]:
    return {key: _value_and_count(value) for key, value in (tags or {}).items()}


def _has_all(one: Candidate, wanted: Mapping[str, tuple[str, int]]) -> bool:
    return all(_has(one, key, value) for key, (value, _) in wanted.items())


def _has(one: Candidate, key: str, value: str) -> bool:
    found = one.facts.get(key) if key.startswith(FACT_PREFIX) else one.tags.get(key)
    return found == value


def tag_value(text: str) -> str:
    """What a tag of a job asks for, without its count."""
    return _value_and_count(text)[0]


def _value_and_count(text: str) -> tuple[str, int]:
    """`web:2` -> ("web", 2); `web` -> ("web", 0) = no count."""
    value, colon, count = text.rpartition(":")
    if colon and count.isascii() and count.isdigit() and int(count) > 0:
        return value, int(count)
    return text, 0
