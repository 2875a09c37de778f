"""Request bodies: bytes that anybody may have sent become plain JSON values, or InvalidRequest says what is wrong.

The stdlib's parser, because it can be strict: ujson takes NaN, 1e400, raw control characters and duplicate keys. Cost
is bounded before parsing, so a refusal never takes more than a few milliseconds however the body is made.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from meshcron.errors import InvalidRequest

DEPTH_MAX = 32
"""Objects and arrays inside each other. A job needs three; the parser recurses."""

VALUES_MAX = 20_000
"""Values in one body, counted by commas and brackets. 64 KiB of the densest job are about 16,000 exit codes."""

DIGITS_MAX = 400
"""Characters of one number; no field takes over 20, and converting is worse than linear."""

_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
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
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest("body", f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    if "\\u" in text:
        _check_escaped(value)
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


def _refuse_constant(word: str) -> object:
    raise InvalidRequest("body", f"holds {word}, which is not JSON", "send a finite number")


def _finite(text: str) -> float:
    _check_length(text)
    number = float(text)
    if not math.isfinite(number):
        raise InvalidRequest("body", f"holds {text[:20]}, which is too large a number", "send a finite number")
    return number


def _whole(text: str) -> int:
    _check_length(text)
    return int(text)


def _check_length(number: str) -> None:
    if len(number) > DIGITS_MAX:
        raise InvalidRequest("body", f"holds a number of {len(number)} characters", "send a shorter one")


def _check_escaped(value: object) -> None:
    """Escapes can smuggle in what UTF-8 and the parser refuse in the raw: NUL and halves of surrogate pairs."""
    for text in _texts(value):
        if "\x00" in text:
            raise InvalidRequest("body", "holds a NUL character", "remove \\u0000")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidRequest("body", "holds half of a surrogate pair", "send whole characters") from None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)


def printable(text: str, most: int = 60) -> str:
    """Outside text as it may stand in a message: cut, and without characters that move or hide others."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else "\ufffd" for c in cut)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
)
