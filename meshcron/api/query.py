"""The parameters behind the `?` of a request, read one by one; a bad value is an InvalidRequest naming it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from meshcron.api import fields
from meshcron.api.bodies import printable
from meshcron.errors import InvalidRequest

INDEX_MAX = 2**53
"""Largest integer of a parameter: what every JSON client can hold."""

Item = TypeVar("Item")

_MEMBER = re.compile(r"(\w+)\[(.+)\]")


class Page(Struct, frozen=True):
    """Which part of a list is wanted, and in which order. `end` None = to the end; `sort` "" = the list's own order."""

    start: int
    end: int | None
    sort: str
    descending: bool

    @property
    def length(self) -> int | None:
        """How many items at most, None = all."""
        return None if self.end is None else max(0, self.end - self.start)

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The part of a whole list, which lies in its own order."""
        return (items[::-1] if self.descending else items)[self.start : self.end]


class Query:
    """Parameters by name. Of one given twice the last counts, unless `all` is asked."""

    def __init__(self, arguments: Mapping[str, Sequence[bytes]]) -> None:
        self._arguments = arguments

    def __contains__(self, name: str) -> bool:
        return name in self._arguments

    def all(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return [_text(name, value) for value in self._arguments.get(name, ())]

    def text(self, name: str) -> str | None:
        """The value of a parameter, None when it is not given."""
        values = self._arguments.get(name)
        return _text(name, values[-1]) if values else None

    def whole(self, name: str, least: int = 0, most: int = INDEX_MAX) -> int | None:
        """The value as an integer."""
        given = self.text(name)
        if given is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,20}", given):
            raise InvalidRequest(name, f"{printable(given)!r} is not a whole number", f"{least} to {most}")
        return fields.whole(least, most)(int(given), name)

    def flag(self, name: str) -> bool | None:
        """The value as true or false; given without a value it is true."""
        given = self.text(name)
        return None if given is None else given == "" or fields.flag_word(given, name)

    def instant(self, name: str) -> int | None:
        """The value as an RFC 3339 time, in microseconds."""
        given = self.text(name)
        return None if given is None else fields.instant(given, name)

    def members(self, name: str) -> Iterator[tuple[str, str]]:
        """The parameters `name[key]=value`, as pairs of key and value."""
        for argument in self._arguments:
            match = _MEMBER.fullmatch(argument)
            if match and match[1] == name:
                for value in self.all(argument):
                    # Tornado decodes names as Latin-1: back to the bytes that came.
                    yield _text(name, match[2].encode("latin-1")), value

    def page(self, columns: Collection[str] | None = None, *, descending: bool = False) -> Page:
        """`_start`, `_end`, `_sort`, `_order` (API.md, point 7); `descending` is the default order.

        `columns`: of a list that has one order only, what that may be called; None where the caller checks.
        """
        start = self.whole("_start") or 0
        end = self.whole("_end")
        if end is not None and end < start:
            raise InvalidRequest("_end", "is less than _start", "the number of the first item after the page")
        order = (self.text("_order") or ("DESC" if descending else "ASC")).upper()
        fields.choice("ASC", "DESC")(order, "_order")
        sort = self.text("_sort") or ""
        if sort and columns is not None and sort not in columns:
            hint = "one of " + ", ".join(sorted(columns)) if columns else "leave it out"
            raise InvalidRequest("_sort", "is not a column to sort by", hint)
        return Page(start=start, end=end, sort=sort, descending=order == "DESC")


def _text(name: str, value: bytes) -> str:
    try:
        return fields.line(fields.TEXT_CHARS_MAX)(value.decode("utf-8"), name)
    except UnicodeDecodeError:
        raise InvalidRequest(printable(name), "is not UTF-8", "percent-encode UTF-8") from None
