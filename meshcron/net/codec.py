"""Messages as frames and back (PROTOCOL 9): JSON in the first frame, the bytes of `payload` in frames behind it.

The first frame is one flat object: `v`, `cluster` and `generation` are the header, `type` is the message's tag, the
rest its fields. A message that has a field `cluster` or `generation` of its own says it once, so it must be the
header's. Unknown fields are ignored, so that a later protocol may add some.

ujson takes what JSON forbids. NaN and 1e400 end as a type error, for no field is a float; of duplicate keys the last
counts, and there is no other parser that could read another one; raw control characters are text like any other. What
would hurt further in is refused here: integers beyond 63 bits (SQLite has no more) and lone surrogates (not UTF-8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import msgspec
import ujson

from meshcron.messages import Heartbeat, Hello, MeshMessage, Message, Refused, Run, Wait, Welcome

VERSION = 1
"""Of the framing itself; what a message means is negotiated by `protocol` in the profile."""

MESSAGE_BYTES_MAX = 512 * 1024
"""All frames of a message together (PROTOCOL 5). Half of what a socket takes, so ours is never what closes it."""

FRAMES_MAX = 4096
"""More entries than this in one Append save nothing, and each frame costs a microsecond or two."""

INTEGER_MAX = 2**63 - 1
"""Of either sign: what SQLite stores."""

CLUSTER_LETTERS_MAX = 64
"""A cluster id has 32; it is compared, so it needs no more than a bound."""

PAYLOAD = "payload"

_ESCAPED_SURROGATES = ("\\ud", "\\uD")
_LONG_INTEGER = b"0" * len(str(INTEGER_MAX))
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))


class Malformed(Exception):
    """These frames are no message; or this message has no frames that a peer would take. The text says why."""


class Header(NamedTuple):
    """Which cluster a message is about, and which generation of it its sender lives in. "" = none yet."""

    cluster: str
    generation: int


class Kind(NamedTuple):
    """What one tag stands for."""

    message: type[Message]
    has_payload: bool


def kinds(*messages: type[Message]) -> dict[str, Kind]:
    """The table of tags that a socket reads; what is not in it is malformed there."""
    return {
        str(message.__struct_config__.tag): Kind(message, PAYLOAD in message.__struct_fields__) for message in messages
    }


MESH = kinds(*get_args(MeshMessage))
PUBLISHED = kinds(Heartbeat, Run)
"""What is read from a PUB: all else has one addressee and comes to the ROUTER."""

KNOCKS = kinds(Hello)
GATE_ANSWERS = kinds(Welcome, Wait, Refused)
ALL = MESH | KNOCKS | GATE_ANSWERS


def encode(header: Header, message: Message) -> list[bytes]:
    """The frames of a message. Raises Malformed where they would be more or larger than a peer takes."""
    fields: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    payload: tuple[bytes, ...] = fields.pop(PAYLOAD, ())
    if fields.setdefault("cluster", header.cluster) != header.cluster:
        raise Malformed(f"a {fields['type']} about another cluster than its header")
    if fields.setdefault("generation", header.generation) != header.generation:
        raise Malformed(f"a {fields['type']} about another generation than its header")
    fields["v"] = VERSION
    try:
        text = ujson.dumps(fields, ensure_ascii=False, escape_forward_slashes=False).encode()
    except (ValueError, OverflowError) as error:
        raise Malformed(f"a {fields['type']} that is no JSON: {error}") from None
    frames = [text, *payload]
    _refuse_size(frames)
    return frames


def decode(frames: Sequence[bytes], known: Mapping[str, Kind] = ALL) -> tuple[Header, Message]:
    """The message that frames hold, one of the `known` kinds. Raises Malformed, and nothing else, on whatever bytes."""
    if not frames:
        raise Malformed("no frames")
    _refuse_size(frames)
    fields = _object(frames[0])
    header = _header(fields)
    tag = fields.get("type")
    kind = known.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise Malformed("a type not known here")
    if PAYLOAD in fields or (len(frames) > 1 and not kind.has_payload):
        raise Malformed("a payload where none belongs")
    if kind.has_payload:
        fields[PAYLOAD] = tuple(frames[1:])
    try:
        return header, msgspec.convert(fields, kind.message)
    except msgspec.MsgspecError as error:
        raise Malformed(str(error)) from None


def _refuse_size(frames: Sequence[bytes]) -> None:
    if len(frames) > FRAMES_MAX:
        raise Malformed(f"{len(frames)} frames, {FRAMES_MAX} are the limit")
    if (size := sum(map(len, frames))) > MESSAGE_BYTES_MAX:
        raise Malformed(f"{size} bytes, {MESSAGE_BYTES_MAX} are the limit")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode()
        value = ujson.loads(text)
    except (ValueError, OverflowError, RecursionError) as error:
        raise Malformed(f"no JSON: {str(error)[:80]}") from None
    if not isinstance(value, dict):
        raise Malformed("no JSON object")
    # Both searches run at memory speed; a walk through every message would cost more than all the rest.
    if _LONG_INTEGER in raw.translate(_DIGITS) or any(escape in text for escape in _ESCAPED_SURROGATES):
        _refuse_unsafe(value)
    return value


def _refuse_unsafe(value: object) -> None:
    """Walk a value that may hold what must not get further in."""
    stack = [value]
    while stack:
        match stack.pop():
            case str(text):
                if any("\ud800" <= letter <= "\udfff" for letter in text):
                    raise Malformed("a lone surrogate")
            case int(number):
                if abs(number) > INTEGER_MAX:
                    raise Malformed("an integer beyond 63 bits")
            case list(items):
                stack += items
            case dict(items):
                stack += [*items, *items.values()]
            case _:
                pass


def _header(fields: Mapping[str, Any]) -> Header:
    version, cluster, generation = fields.get("v"), fields.get("cluster"), fields.get("generation")
    if version != VERSION or isinstance(version, bool):
        raise Malformed("framed for another version")
    if not isinstance(cluster, str) or len(cluster) > CLUSTER_LETTERS_MAX:
        raise Malformed("no cluster named")
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        raise Malformed("no generation named")
    return Header(cluster, generation)
