"""The chain of checksums over the log."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from meshcron.chain import CHAIN_START, chain


def test_the_chain_is_written_down() -> None:
    """The format is on disks and on the wire: it never changes by accident."""
    assert chain(CHAIN_START, 1, 1, b"{}") == zlib.crc32(bytes(7) + b"\1" + bytes(7) + b"\1" + b"{}")


@given(st.binary(min_size=1, max_size=200), st.integers(0, 2**32 - 1), st.data())
def test_every_bit_counts(body: bytes, before: int, data: st.DataObject) -> None:
    """One flipped bit anywhere in an entry, or in what it follows, changes its checksum."""
    place, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    flipped = bytes(byte ^ (1 << bit) if n == place else byte for n, byte in enumerate(body))
    crc = chain(before, 7, 3, body)
    assert chain(before, 7, 3, flipped) != crc
    assert chain(before ^ (1 << bit), 7, 3, body) != crc
    assert chain(before, 7 ^ (1 << bit), 3, body) != crc
    assert chain(before, 7, 3 ^ (1 << bit), body) != crc
