"""Single values of a request: each check returns the typed value or raises InvalidRequest naming field and remedy.

A check is a function of (value, path); the path is dotted, e.g. `limits.memory`. The functions that take limits make
checks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from meshcron import values
from meshcron.api.bodies import JsonObject, kind, printable
from meshcron.api.moments import instant_us
from meshcron.errors import InvalidRequest
from meshcron.model import SECOND_US

T = TypeVar("T")
Check = Callable[[object, str], T]

LINE_CHARS_MAX = 256
"""Characters of a one-line text: owner, displayname, a tag. Also what a schedule may take before it is parsed."""

TEXT_CHARS_MAX = 1024 * 1024
"""Characters of a command, a payload, a value of the environment: as many as a body has. What counts is the size of
the whole job, which is refused as such (413)."""

NAME_BYTES_MAX = 128
"""A job's name in UTF-8 (API.md, point 14)."""

ITEMS_MAX = 256
"""Entries of one map or list of a job."""

DURATION_US_MAX = 366 * 86_400 * SECOND_US
"""The longest duration that any field takes: a leap year."""

DURATION_CHARS_MAX = 64
"""`365d23h59m59s999ms999us` and some blanks."""

COUNT_MAX = 1_000_000
"""The largest count in a tag such as `web:2`."""

_ASCII_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_ACCOUNT = re.compile(r"[^\s:/\\,\x00-\x1f\x7f-\x9f-][^\s:/,\x00-\x1f\x7f-\x9f]{0,255}")
_ADDRESS = re.compile(r"[^\s@,;<>]+@[^\s@,;<>]+")
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_COUNTED = re.compile(r"(.+):([1-9][0-9]{0,6})", re.DOTALL)
_NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_NOT_ON_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_go_duration = values.duration(0, DURATION_US_MAX)
_OWN_VARIABLES = "MESHCRON_"


def line(most: int = LINE_CHARS_MAX) -> Check[str]:
    """A check for text of one line, at most so many characters; "" is fine."""

    def check(value: object, path: str) -> str:
        text = _string(value, path, most)
        if _NOT_ON_A_LINE.search(text):
            raise InvalidRequest(path, "holds a control character", "keep it on one line")
        return text

    return check


def text(value: object, path: str) -> str:
    """Text of many lines: tabs and line ends are the only control characters."""
    found = _string(value, path, TEXT_CHARS_MAX)
    if _NOT_IN_TEXT.search(found):
        raise InvalidRequest(path, "holds a control character", "only tabs and line ends may stand in it")
    return found


def name(value: object, path: str) -> str:
    """The name of a job: letters of any script, digits, `_ - .`, no leading dot, 1-128 bytes, NFC (point 14)."""
    found = _string(value, path, TEXT_CHARS_MAX)
    if _ASCII_NAME.fullmatch(found):
        return found
    hint = f"1-{NAME_BYTES_MAX} bytes of letters, digits, _ - . and no dot at the front"
    if not found:
        raise InvalidRequest(path, "is empty", hint)
    if len(found.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise InvalidRequest(path, f"is longer than {NAME_BYTES_MAX} bytes", hint)
    if found.startswith("."):
        raise InvalidRequest(path, "starts with a dot", hint)
    if not unicodedata.is_normalized("NFC", found):
        raise InvalidRequest(path, "is not in Unicode's NFC form", "normalize it to NFC")
    for at, char in enumerate(found):
        if not _may_stand_in_a_name(char, at):
            raise InvalidRequest(path, f"holds {printable(char)!r}, which no name may", hint)
    return found


def flag(value: object, path: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise InvalidRequest(path, f"must be true or false, not {kind(value)}", "write it without quotes")
    return value


def flag_word(value: object, path: str) -> bool:
    """true or false, also as a word: what executor_config and query strings carry."""
    word = value.lower() if isinstance(value, str) else value
    if word in ("true", "1", "t"):
        return True
    if word in ("false", "0", "f"):
        return False
    if isinstance(value, str):
        raise InvalidRequest(path, f"{printable(value)!r} is neither true nor false", "true or false")
    return flag(value, path)


def whole(least: int, most: int) -> Check[int]:
    """A check for an integer between two bounds."""

    def check(value: object, path: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidRequest(path, f"must be a whole number, not {kind(value)}", f"{least} to {most}")
        if not least <= value <= most:
            raise InvalidRequest(path, f"is not between {least} and {most}", f"{least} to {most}")
        return value

    return check


def number(least: float, most: float) -> Check[float]:
    """A check for a number between two bounds."""

    def check(value: object, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(path, f"must be a number, not {kind(value)}", f"{least:g} to {most:g}")
        if not least <= value <= most:
            raise InvalidRequest(path, f"is not between {least:g} and {most:g}", f"{least:g} to {most:g}")
        return float(value)

    return check


def choice(*words: str) -> Check[str]:
    """A check for one of a few words."""

    def check(value: object, path: str) -> str:
        if not isinstance(value, str):
            raise InvalidRequest(path, f"must be a string, not {kind(value)}", "one of " + ", ".join(words))
        if value not in words:
            raise InvalidRequest(path, f"{printable(value)!r} is not known", "one of " + ", ".join(words))
        return value

    return check


def duration(value: object, path: str) -> int:
    """A Go duration such as `1h30m`, or seconds as a number; in microseconds. "" = 0."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequest(path, f"must be a duration, not {kind(value)}", '"10s", "1h30m" or seconds')
    if not isinstance(value, str):
        return int(number(0, DURATION_US_MAX / SECOND_US)(value, path) * SECOND_US + 0.5)
    if not value.strip():
        return 0
    if len(value) > DURATION_CHARS_MAX:
        raise InvalidRequest(path, "is too long for a duration", '"10s", "1h30m" or seconds')
    return int(_go_duration(path, value.strip() + ("s" if _NUMBER.fullmatch(value.strip()) else "")))


def deadline(value: object, path: str) -> int:
    """A duration within which something has to start: with less than a second nothing ever would."""
    span_us = duration(value, path)
    if span_us < SECOND_US:
        raise InvalidRequest(path, "is less than a second: no tick would ever start in time", 'at least "1s"')
    return span_us


def instant(value: object, path: str) -> int:
    """An RFC 3339 time; in microseconds since 1970, 0 for never."""
    if not isinstance(value, str):
        raise InvalidRequest(path, f"must be a time, not {kind(value)}", "RFC 3339, e.g. 2030-01-31T12:00:00Z")
    try:
        return instant_us(value) if value else 0
    except ValueError as error:
        raise InvalidRequest(path, str(error), "RFC 3339 with an offset, e.g. 2030-01-31T12:00:00+01:00") from None


def email(value: object, path: str) -> str:
    """Addresses, separated by commas; "" is fine. Whether mail arrives there nobody can tell from the text."""
    found = line()(value, path)
    for address in found.split(",") if found.strip() else ():
        if not _ADDRESS.fullmatch(address.strip()):
            raise InvalidRequest(path, f"{printable(address)!r} is not an address", "john@doe.com")
    return found.strip()


def account(value: object, path: str) -> str:
    """The name of a user of the system; "" = the agent's own."""
    found = _string(value, path, LINE_CHARS_MAX)
    if found and not _ACCOUNT.fullmatch(found):
        raise InvalidRequest(path, "is not the name of a user", "one name without spaces, colons, slashes")
    return found


def timezone(value: object, path: str) -> str:
    """A name of the time zone database; whether it exists is checked with the schedule."""
    found = _string(value, path, LINE_CHARS_MAX)
    if found and not _ZONE.fullmatch(found):
        raise InvalidRequest(path, f"{printable(found)!r} is not a time zone", "e.g. Europe/Berlin")
    return found


def scalar(value: object, path: str) -> str:
    """A string, number or boolean as text, as Dkron's clients send them in maps (point 9)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return text(value, path)


def texts(value: object, path: str) -> dict[str, str]:
    """A map of names to strings, numbers or booleans, all read as strings. null members are absent."""
    return {key: scalar(item, f"{path}.{printable(key)}") for key, item in members(value, path).items()}


def tags(value: object, path: str) -> dict[str, str]:
    """A map of tags, each value with an optional count: `"web:2"` = at most two of the members tagged `web`."""
    found = texts(value, path)
    for key, tag in found.items():
        where = f"{path}.{printable(key)}"
        line()(tag, where)
        counted = _COUNTED.fullmatch(tag)
        if ":" in tag and (counted is None or int(counted[2]) > COUNT_MAX):
            raise InvalidRequest(where, f"{printable(tag)!r} ends in no count", f'"web:2"; 1 to {COUNT_MAX}')
    return found


def env(value: object, path: str) -> dict[str, str]:
    """A map of environment variables; MESHCRON_ is ours."""
    found = texts(value, path)
    for key in found:
        where = f"{path}.{printable(key)}"
        if not _VARIABLE.fullmatch(key):
            raise InvalidRequest(where, "is not the name of a variable", "letters, digits and _")
        if key.startswith(_OWN_VARIABLES):
            raise InvalidRequest(where, f"names that start with {_OWN_VARIABLES} are set by the agent", "rename it")
    return found


def configs(value: object, path: str) -> dict[str, dict[str, str]]:
    """A map of names to maps: processors."""
    return {key: texts(item, f"{path}.{printable(key)}") for key, item in members(value, path).items()}


def items(value: object, path: str, check: Check[T]) -> tuple[T, ...]:
    """A list, each of its items checked."""
    if not isinstance(value, list):
        raise InvalidRequest(path, f"must be an array, not {kind(value)}", "[...]")
    if len(value) > ITEMS_MAX:
        raise InvalidRequest(path, f"has more than {ITEMS_MAX} items", f"at most {ITEMS_MAX}")
    return tuple(check(item, f"{path}.{at}") for at, item in enumerate(value))


def members(value: object, path: str) -> JsonObject:
    """An object with printable, non-empty keys, without its null members (null = absent)."""
    if not isinstance(value, dict):
        raise InvalidRequest(path, f"must be an object, not {kind(value)}", "{...}")
    if len(value) > ITEMS_MAX:
        raise InvalidRequest(path, f"has more than {ITEMS_MAX} members", f"at most {ITEMS_MAX}")
    for key in value:
        if not key or len(key) > LINE_CHARS_MAX or not key.isprintable():
            raise InvalidRequest(
                f"{path}.{printable(key)}", "is not a usable key", f"1-{LINE_CHARS_MAX} printable characters"
            )
    return {key: item for key, item in value.items() if item is not None}


def _string(value: object, path: str, most: int) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(path, f"must be a string, not {kind(value)}", "put it in quotes")
    if len(value) > most:
        raise InvalidRequest(path, f"is longer than {most} characters", f"at most {most}")
    return value


def _may_stand_in_a_name(char: str, at: int) -> bool:
    category = unicodedata.category(char)
    return char in "_-." or category[0] == "L" or category == "Nd" or (at > 0 and category[0] == "M")
