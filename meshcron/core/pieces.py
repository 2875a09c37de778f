"""What is too much for one message, or for one entry, in pieces that fit (PROTOCOL 5, Sizes).

The shell drops a message that is too large, and whoever repeats it would repeat just that one: so whatever grows with
what people write or processes print is cut here by its bytes, before it becomes a message.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

MESSAGE_ITEMS_BYTES = 480 * 1024
"""Of the items of one message: under its 512 KiB, with room for what stands around them."""

Item = TypeVar("Item")

_encoder = msgspec.json.Encoder()


def json_bytes(value: object) -> int:
    """What a value takes in an entry, and to the byte also in a message: the codec escapes the same characters."""
    return len(_encoder.encode(value))


def pieces(
    items: Iterable[Item], bytes_of: Callable[[Item], int], bytes_max: int, items_max: int = sys.maxsize
) -> Iterator[list[Item]]:
    """Pieces of at most so many bytes and items. What is too large by itself is a piece of its own. `bytes_of`: an
    upper bound of what an item takes."""
    some: list[Item] = []
    size = 0
    for item in items:
        bytes_ = bytes_of(item)
        if some and (size + bytes_ > bytes_max or len(some) == items_max):
            yield some
            some, size = [], 0
        some.append(item)
        size += bytes_
    if some:
        yield some
