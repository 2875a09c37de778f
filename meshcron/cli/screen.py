"""What a command prints: JSON for programs, aligned tables and human times for people."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click

from meshcron.cli import times

GAP = "  "
"""Between two columns."""

NOTHING = "-"
"""What a cell without a value shows, so that columns can still be counted."""

COLOURS = {
    "success": "green",
    "alive": "green",
    "failed": "red",
    "timeout": "red",
    "lost": "red",
    "killed": "yellow",
    "skipped": "yellow",
    "leaving": "yellow",
    "disabled": "yellow",
    "running": "cyan",
    "armed": "cyan",
    "waiting": "yellow",
}
"""Of the words of a state, where they stand for one. Click drops colours where stdout is no terminal, root.py where
NO_COLOR is set."""

STATES = frozenset({"STATE", "state", "status"})
"""The columns and fields that hold one: a job may be named "failed", and "lost" is a word of its settings, too."""


class Screen:
    """Where one command prints. `as_json` and `utc` are its options, `now_us` the time it began."""

    def __init__(self, *, as_json: bool, utc: bool, now_us: int) -> None:
        self.as_json = as_json
        self.utc = utc
        self.now_us = now_us

    def data(self, value: Any) -> None:
        """The API's own answer, indented."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=not _prints_unicode()))

    def line(self, text: str) -> None:
        """One line for people."""
        click.echo(clean(text))

    def aside(self, text: str) -> None:
        """A line that is not the command's output: on stderr, so that a pipe never sees it."""
        click.echo(clean(text), err=True)

    def warning(self, text: str) -> None:
        """A line about a danger, on stderr, in red."""
        click.echo(click.style(f"warning: {clean(text)}", fg="red"), err=True)

    def table(self, titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Aligned columns under their titles; columns in which every cell is a number are set to the right."""
        cells = [[_cell(value) for value in row] for row in rows]
        right = [_all_numbers([row[at] for row in cells]) for at in range(len(titles))]
        lines = [list(titles), *cells]
        widths = [max(width(line[at]) for line in lines) for at in range(len(titles))]
        for number, line in enumerate(lines):
            padded = [_pad(cell, widths[at], right=right[at]) for at, cell in enumerate(line)]
            click.echo(_title(padded) if number == 0 else _coloured(titles, line, padded))

    def fields(self, rows: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line; those without a value are left out."""
        shown = [(name, clean(str(value))) for name, value in rows if value not in (None, "", (), [], {})]
        longest = max((width(name) for name, _ in shown), default=0)
        for name, value in shown:
            click.echo(click.style(_pad(name, longest), bold=True) + GAP + _coloured([name], [value], [value]))

    def when(self, text: object) -> str:
        """An instant of the API: `2026-01-31 14:05:00 (in 3m)`, or "-" for never."""
        instant_us = times.read(text)
        return NOTHING if instant_us is None else self.moment(instant_us)

    def ago(self, instant_us: int) -> str:
        """An instant in microseconds relative to now; in UTC and absolute where that was asked for."""
        return times.absolute(instant_us, utc=True) if self.utc else times.relative(instant_us, self.now_us)

    def moment(self, instant_us: int) -> str:
        """An instant in microseconds, absolute and relative."""
        absolute = times.absolute(instant_us, utc=self.utc)
        return f"{absolute} ({times.relative(instant_us, self.now_us)})"


def width(text: str) -> int:
    """Columns a text takes on a terminal: two for a wide letter of East Asia, none for a combining mark."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def clean(text: str) -> str:
    """Text without what could move the cursor or change the terminal; a job's command may hold anything."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def pairs(values: object) -> str:
    """`role=web, os=linux` of an object, sorted by key."""
    if not isinstance(values, dict):
        return ""
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items()))


def write(chunk: bytes) -> None:
    """A job's own bytes, unchanged, at once."""
    click.echo(chunk, nl=False)


def _prints_unicode() -> bool:
    return sys.stdout is not None and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _cell(value: object) -> str:
    return clean(" ".join(str(value).split())) if value not in (None, "") else NOTHING


def _all_numbers(column: Sequence[str]) -> bool:
    return any(cell.isdecimal() for cell in column) and all(cell.isdecimal() or cell == NOTHING for cell in column)


def _pad(cell: str, columns: int, *, right: bool = False) -> str:
    blanks = " " * (columns - width(cell))
    return blanks + cell if right else cell + blanks


def _title(padded: Sequence[str]) -> str:
    return click.style(GAP.join(padded).rstrip(), bold=True)


def _coloured(names: Sequence[str], cells: Sequence[str], padded: Sequence[str]) -> str:
    styled = [
        click.style(shown, fg=COLOURS[cell]) if name in STATES and cell in COLOURS else shown
        for name, cell, shown in zip(names, cells, padded, strict=True)
    ]
    return GAP.join(styled).rstrip()
