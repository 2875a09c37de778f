"""Pieces that fit: by bytes, by number, and by what JSON really takes."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.core.pieces import MESSAGE_ITEMS_BYTES, json_bytes, pieces
from meshcron.messages import Result, ResultItem
from meshcron.net.codec import MESSAGE_BYTES_MAX, Header, encode


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        ([], []),
        ([5, 5], [[5, 5]]),
        ([5, 5, 1], [[5, 5], [1]]),
        ([1, 1, 1, 1], [[1, 1, 1], [1]]),
        ([11], [[11]]),
        ([4, 11, 4], [[4], [11], [4]]),
    ],
)
def test_pieces_are_as_large_as_may_be(sizes: list[int], cut: list[list[int]]) -> None:
    """Ten bytes and three items at most; what is too large goes alone."""
    assert list(pieces(sizes, int, 10, 3)) == cut


@given(st.lists(st.integers(0, 20)))
def test_pieces_are_the_whole(sizes: list[int]) -> None:
    """In order, nothing twice, nothing left out."""
    some = list(pieces(sizes, int, 10, 3))
    assert [size for piece in some for size in piece] == sizes
    assert all(piece and (sum(piece) <= 10 or len(piece) == 1) and len(piece) <= 3 for piece in some)


def test_the_codec_takes_what_json_bytes_says() -> None:
    """To the byte, for every character there is: whatever the codec escaped more would be too large in the end."""
    for first in range(0, sys.maxunicode + 1, 256):
        text = "".join(chr(code) for code in range(first, first + 256) if not 0xD800 <= code < 0xE000)
        assert bytes_of(item_of(text)) - bytes_of(item_of("")) == json_bytes(text) - json_bytes(""), hex(first)


def test_what_stands_around_the_items_fits() -> None:
    """As many items as a message ever has, up to the limit."""
    items = [item_of("x" * (MESSAGE_ITEMS_BYTES // 200 - json_bytes(item_of("")))) for _ in range(200)]
    ((whole),) = pieces(items, json_bytes, MESSAGE_ITEMS_BYTES)
    assert sum(map(len, encode(Header("c" * 64, 2**63 - 1), Result(tuple(whole))))) < MESSAGE_BYTES_MAX


def item_of(reason: str) -> ResultItem:
    """With that much text in it."""
    return ResultItem(execution_id="e" * 32, kind="failed", reason=f"-{reason}")


def bytes_of(item: ResultItem) -> int:
    """What an item takes in a real message."""
    return sum(map(len, encode(Header("c" * 32, 0), Result((item,)))))
