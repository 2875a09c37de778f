"""The text of a cron expression: each fault has its column, and what is accepted comes back as CronFields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NoReturn

from meshcron.core.cron_fields import DAY, FIELDS, WEEKDAY, CronFields, Field, Part
from meshcron.errors import InvalidSchedule

_WORD = re.compile(r"[^ \t]+")
_NUMBER = re.compile(r"[0-9]+")
_SPREAD = re.compile(r"[Hh~](?:\(([^()-]*)-([^()-]*)\))?")
_LAST_WEEKDAY = re.compile(r"[Ll]([0-9A-Za-z]+)|([0-9]+|[A-Za-z]{3})[Ll]")
_NEAREST_WEEKDAY = re.compile(r"[0-9]*[Ww][0-9]*|[Ll][Ww]|[Ww][Ll]")

_SHOWN_CHARACTERS_MAX = 40

# The same few fields stand in most schedules: with them kept, a schedule is read in 15 us instead of 50. The longest
# take 30 kB.
_FIELDS_KEPT_MAX = 512


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the schedule's text and the column, from 1, where it stands."""

    text: str
    column: int

    def split(self, mark: str) -> list[Token]:
        tokens, column = [], self.column
        for piece in self.text.split(mark):
            tokens.append(Token(piece, column))
            column += len(piece) + 1
        return tokens

    def refuse(self, why: str, hint: str = "") -> NoReturn:
        raise InvalidSchedule(why, hint, self.column)

    @property
    def shown(self) -> str:
        long = len(self.text) > _SHOWN_CHARACTERS_MAX
        return self.text[:_SHOWN_CHARACTERS_MAX] + "..." if long else self.text


def read_fields(text: str, column: int = 1, *, name: str = "") -> CronFields:
    """The fields of `text`, whose first character stands at `column`: five as in crontab(5), or six with seconds
    first. `name` is the job's, for `H`. Raises InvalidSchedule with the column of the first fault."""
    words = [Token(match.group(), column + match.start()) for match in _WORD.finditer(text)]
    if not 5 <= len(words) <= 6:
        _refuse_count(words, column + len(text))
    if len(words) == 5:
        words.insert(0, Token("0", column))
    return CronFields(*(_read_field(field, word, name) for field, word in zip(FIELDS, words, strict=True)))


def _refuse_count(words: list[Token], end: int) -> NoReturn:
    hint = "minute hour day-of-month month day-of-week; a sixth field, the seconds, goes first"
    if len(words) == 7:
        words[6].refuse("a seventh field, the year, is not known here", hint)
    at = words[6] if len(words) > 6 else Token("", end)
    at.refuse(f"5 or 6 fields are needed, not {len(words)}", hint)


def _read_field(field: Field, word: Token, name: str) -> tuple[Part, ...]:
    try:
        return _read_common(field, word.text)
    except InvalidSchedule:
        return _read_list(field, word, name)  # for the column, or with the name


@lru_cache(maxsize=_FIELDS_KEPT_MAX)
def _read_common(field: Field, text: str) -> tuple[Part, ...]:
    return _read_list(field, Token(text, 1), "")


def _read_list(field: Field, word: Token, name: str) -> tuple[Part, ...]:
    """A list without its repetitions; beside a wildcard nothing else says anything."""
    parts = tuple(dict.fromkeys(_read_part(field, item, name) for item in word.split(",")))
    return next(((part,) for part in parts if part.wildcard), parts)


def _read_part(field: Field, item: Token, name: str) -> Part:
    base, *steps = item.split("/")
    if not base.text:
        item.refuse(f"an empty item in the field {field.noun}", field.hint)
    if len(steps) > 1:
        steps[1].refuse("a second step in one item", "one / an item, such as */5")
    step = _read_step(field, steps[0]) if steps else 0
    if base.text in ("*", "?"):
        return _stretch(field, field.low, field.high, step or 1, star=True)
    if base.text[0] in "Hh~":
        return _read_spread(field, base, step, name)
    special = _read_special(field, base)
    if special is not None:
        if steps:
            steps[0].refuse(f"{base.shown} takes no step")
        return special
    if "-" in base.text:
        return _stretch(field, *_read_range(field, base), step or 1)
    value = _read_value(field, base)
    return _stretch(field, value, max(value, field.high) if step else value, step or 1)


def _read_step(field: Field, token: Token) -> int:
    if not _NUMBER.fullmatch(token.text):
        token.refuse(f"the step {token.shown!r} of the field {field.noun} is no number", f"1-{field.size}")
    step = int(token.text)
    if step == 0:
        token.refuse("a step of 0 never moves on", f"1-{field.size}")
    if step > field.size:
        token.refuse(f"the step {token.shown} is above {field.size}, the whole field {field.noun}", f"1-{field.size}")
    return step


def _stretch(field: Field, low: int, high: int, step: int, *, star: bool = False) -> Part:
    """The numbers from low to high in steps, spelt plainly: one number as itself, 7 as Sunday's 0."""
    if field is WEEKDAY and high > field.high and low == field.low:
        high = field.high
    numbers = range(low, high + 1, step)
    if len(numbers) == 1:
        number = low % 7 if field is WEEKDAY else low
        return Part(str(number), (number,))
    values = tuple(number % 7 for number in numbers) if field is WEEKDAY else tuple(numbers)
    text = "*" if star else f"{low}-{high}"
    return Part(text if step == 1 else f"{text}/{step}", values, wildcard=star and step == 1, stepped=step > 1)


def _read_range(field: Field, base: Token) -> tuple[int, int]:
    ends = base.split("-")
    if len(ends) > 2:
        ends[2].refuse("a second - in one range", field.hint)
    first, last = ends
    if field is DAY and last.text in ("L", "l"):
        return _read_value(field, first), field.high  # to the last day of each month: what lies beyond never comes
    low, high = _read_value(field, first), _read_value(field, last)
    if field is WEEKDAY and low > 0 and last.text.upper() == "SUN":
        high = field.top  # SAT-SUN: a week that ends with Sunday
    if low > high:
        rest = f",{field.low}-{high}" if high > field.low else f",{high}"
        base.refuse(f"the range {base.shown} runs backward", f"write {low}-{field.top}{rest}")
    return low, high


def _read_value(field: Field, token: Token) -> int:
    text = token.text.upper()
    if text in field.names:
        return field.low + field.names.index(text)
    if not _NUMBER.fullmatch(text):
        if text == "R" or text.startswith("R("):
            token.refuse("R is random: agents would disagree", "H spreads jobs by their names")
        token.refuse(f"{token.shown!r} is no {field.noun}", field.hint)
    value = int(text)
    if value > field.top:
        token.refuse(f"{field.noun} {token.shown} is above {field.top}", field.hint)
    if value < field.low:
        token.refuse(f"{field.noun} {token.shown} is below {field.low}", field.hint)
    return value


def _read_special(field: Field, base: Token) -> Part | None:
    """`L` as a day of month; `FRI#2`, `L5`, `5L` as a day of week."""
    if field is DAY:
        if _NEAREST_WEEKDAY.fullmatch(base.text):
            base.refuse("W, the nearest weekday, is not known here", "1-31, or L for the last day of the month")
        return Part("L", ordinal="L") if base.text in ("L", "l") else None
    if field is not WEEKDAY:
        return None
    if "#" in base.text:
        return _read_nth(base)
    if base.text in ("L", "l"):
        base.refuse("L alone is no day of week", "L5 is the last Friday of the month")
    last = _LAST_WEEKDAY.fullmatch(base.text)
    if last is None:
        return None
    group = 1 if last.group(1) else 2
    weekday = _read_value(field, Token(last.group(group), base.column + last.start(group))) % 7
    return Part(f"L{weekday}", (weekday,), ordinal="L")


def _read_nth(base: Token) -> Part:
    day, nth, *more = base.split("#")
    if more or nth.text not in ("1", "2", "3", "4", "5"):
        nth.refuse(f"{base.shown!r}: after # comes which one of the month", "1-5, such as FRI#2")
    weekday = _read_value(WEEKDAY, day) % 7
    return Part(f"{weekday}#{nth.text}", (weekday,), ordinal=nth.text)


def _read_spread(field: Field, base: Token, step: int, name: str) -> Part:
    """`H`, `H(0-29)`, each with or without a step: the job's name picks the number, or where the steps begin."""
    match = _SPREAD.fullmatch(base.text)
    if match is None:
        base.refuse(f"{base.shown!r} is no {field.noun}", "H, H/15, H(0-29) or H(0-29)/10; ~ is the same as H")
    if not name:
        base.refuse(f"{base.text[0]} spreads jobs by their names, and there is no name here", "give the job's name")
    low, high = field.low, field.high if step else field.spread_high
    if match.group(1) is not None:
        start = base.column + match.start(1)
        low, high = _read_range(field, Token(base.text[match.start(1) : match.end(2)], start))
    width = min(step, high - low + 1, field.spread_high) if step else high - low + 1
    first = low + _hash(name, field) % width
    whole = step == 1 and match.group(1) is None
    return _stretch(field, first, high if step else first, step or 1, star=whole)


def _hash(name: str, field: Field) -> int:
    """Stable across processes, agents and versions (a noun that changes moves jobs); differs from field to field."""
    text = f"{name}\0{field.noun}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
