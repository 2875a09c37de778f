"""The CRC that chains the replicated log: each entry's covers its index, its term, its body and all entries before it.

Core and store share it: the one makes the chain, the other finds where it breaks.
"""

from __future__ import annotations

import struct
import zlib

CHAIN_START = 0
"""What the first entry of a log chains to."""

_HEAD = struct.Struct(">QQ")


def chain(previous_crc: int, index: int, term: int, body: bytes) -> int:
    """The CRC-32 of an entry after one whose CRC is `previous_crc`; the same on every machine, 0 <= crc < 2**32."""
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(index, term), previous_crc))
