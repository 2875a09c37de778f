"""Tags -> targets: which members run a tick (API.md, Jobs, `tags`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

FACT_PREFIX = "meshcron."
"""Selects by what a machine says of itself (`meshcron.host`, `.os`, `.arch`) instead of by a tag of the user's."""


class Candidate(Struct, frozen=True):
    """A live member with what can be selected: its tags and facts, and how busy it is."""

    number: int
    tags: dict[str, str]
    facts: dict[str, str]
    running: int = 0


def select(tags: Mapping[str, str] | None, candidates: Iterable[Candidate]) -> tuple[int, ...]:
    """Roster numbers of the members whose tags match all of `tags`, lowest first; no tags = every member.

    `"web:2"` means at most 2 of them: the lowest count of all tags wins, chosen among the least busy.
    """
    wanted = {key: _value_and_count(value) for key, value in (tags or {}).items()}
    matching = [one for one in candidates if all(_has(one, key, value) for key, (value, _) in wanted.items())]
    most = min((count for _, count in wanted.values() if count), default=len(matching))
    chosen = sorted(matching, key=lambda one: (one.running, one.number))[:most]
    return tuple(sorted(one.number for one in chosen))


def _has(one: Candidate, key: str, value: str) -> bool:
    found = one.facts.get(key) if key.startswith(FACT_PREFIX) else one.tags.get(key)
    return found == value


def _value_and_count(text: str) -> tuple[str, int]:
    """`web:2` -> ("web", 2); `web` -> ("web", 0) = no count."""
    value, colon, count = text.rpartition(":")
    if colon and count.isascii() and count.isdigit() and int(count) > 0:
        return value, int(count)
    return text, 0
