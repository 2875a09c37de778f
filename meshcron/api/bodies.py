"""Request bodies: bytes that anybody may have sent become plain JSON values, or InvalidRequest says what is wrong.

The stdlib's parser, because it can be strict: ujson takes NaN, 1e400, raw control characters and duplicate keys. Cost
is bounded before parsing, so a refusal never takes more than a few milliseconds however the body is made.
"""

from __future__ import annotations

import json
import math
import re

from meshcron.errors import InvalidRequest

DEPTH_MAX = 32
"""Objects and arrays inside each other. A job needs three; the parser recurses."""

VALUES_MAX = 20_000
"""Values in one body, counted by commas and brackets. 64 KiB of the densest job are about 16,000 exit codes."""

DIGITS_MAX = 400
"""Characters of one number; no field takes over 20, and converting is worse than linear."""

_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_BOM = "\ufeff"

JsonObject = dict[str, object]


def parse_object(body: bytes) -> JsonObject:
    """The JSON object that a body holds. Raises InvalidRequest with field `body` or the key at fault."""
    value = parse(body)
    if not isinstance(value, dict):
        raise InvalidRequest("body", f"must be a JSON object, not {kind(value)}")
    return value


def parse(body: bytes) -> object:
    """The JSON value that a body holds: finite numbers, unique keys, no NUL, no lone surrogate, bounded depth."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest("body", f"is not UTF-8 at byte {error.start}", "send JSON as UTF-8") from None
    if not text.strip():
        raise InvalidRequest("body", "is empty", "send a JSON object")
    if text.startswith(_BOM):
        raise InvalidRequest("body", "starts with a byte order mark", "send UTF-8 without one")
    _check_shape(text)
    try:
        value = _decoded(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest("body", f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    if "\\u" in text:
        _refuse_unfit(value)
    return value


def kind(value: object) -> str:
    """What JSON calls the type of a value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def merge_patch(target: object, patch: object) -> object:
    """RFC 7396: `patch` applied to `target`. Neither is changed; depth is bounded by `parse`."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _check_shape(text: str) -> None:
    """Refuse what would make the parser recurse or build too much, looking only at what stands outside strings."""
    # Each value has at most a key and a text: four quotes. Half a million empty strings would take 40 ms to skip.
    if text.count('"') > 4 * VALUES_MAX:
        raise InvalidRequest("body", f"holds more than {VALUES_MAX} values", "send less")
    skeleton = _STRINGS.sub("", text)
    if sum(map(skeleton.count, "[{,")) > VALUES_MAX:
        raise InvalidRequest("body", f"holds more than {VALUES_MAX} values", "send less")
    depth = 0
    for bracket in _NOT_BRACKETS.sub("", skeleton):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_MAX:
            raise InvalidRequest("body", f"is nested deeper than {DEPTH_MAX}", "send a flatter document")


def _pairs(pairs: list[tuple[str, object]]) -> JsonObject:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidRequest(printable(key), "is given twice", "send each key once")
            seen.add(key)
    return unique


class _UnfitNumber(Exception):
    """A number that no field may hold; which field does is found out by reading again."""


def _decoded(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except _UnfitNumber:
        _refuse_unfit(_LOCATING_DECODER.decode(text))
        raise


def _finite(text: str) -> float:
    """A number with a point or an exponent, or NaN and its like. Raises _UnfitNumber."""
    if _why_unfit(text):
        raise _UnfitNumber
    return float(text)


def _whole(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise _UnfitNumber
    return int(text)


def _why_unfit(number: str) -> str:
    """What is wrong with a number as it was written; empty = nothing."""
    if len(number) > DIGITS_MAX:
        return f"holds a number of {len(number)} characters"
    if number[-1] in "Ny":
        return f"holds {number}, which is not JSON"
    return "" if math.isfinite(float(number)) else f"holds {number[:20]}, which is too large a number"


class _Written(str):
    """A number as it was written: a string, but not the caller's."""

    __slots__ = ()


def _refuse_unfit(value: object, path: str = "") -> None:
    """Refuse what no field may hold, naming the one that does: numbers that are none, and what escapes smuggle in that
    UTF-8 and the parser refuse in the raw, NUL and halves of surrogate pairs."""
    if isinstance(value, dict):
        for key, item in value.items():
            where = f"{path}.{printable(key)}" if path else printable(key)
            _refuse_unfit(key, where)
            _refuse_unfit(item, where)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            _refuse_unfit(item, f"{path}.{at}" if path else str(at))
    elif isinstance(value, _Written):
        if why := _why_unfit(value):
            raise InvalidRequest(path or "body", why, "send a finite number of a few digits")
    elif isinstance(value, str):
        if "\x00" in value:
            raise InvalidRequest(path or "body", "holds a NUL character", "remove \\u0000")
        if not value.isascii() and _HALF_A_PAIR.search(value):
            raise InvalidRequest(path or "body", "holds half of a surrogate pair", "send whole characters")


def printable(text: str, most: int = 60) -> str:
    """Outside text as it may stand in a message: cut, and without characters that move or hide others."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else "\ufffd" for c in cut)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
_LOCATING_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_Written, parse_float=_Written, parse_int=_Written
)
