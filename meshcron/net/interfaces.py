"""The addresses of this machine, for mDNS, which must be told each one it shall use."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Sequence

from meshcron.net.address import is_address

SIOCGIFFLAGS = 0x8913
SIOCGIFADDR = 0x8915
"""Linux, netdevice(7)."""

IFF_UP = 0x1
IFF_LOOPBACK = 0x8

_NAME_BYTES_MAX = 15
"""IFNAMSIZ without its NUL."""

_FLAGS = struct.Struct("16xH")
_ADDRESS = struct.Struct("20x4s")
_IFREQ_BYTES = 40


def interface_addresses(names_or_addresses: Sequence[str]) -> list[str]:
    """Addresses for mDNS: those given, and the first IPv4 one of each interface named; with none given, of every
    interface that is up and not loopback. A name that is unknown or without an address contributes nothing."""
    wanted = names_or_addresses or [name for _index, name in socket.if_nameindex() if _usable(name)]
    found = [name if is_address(name) else _address(name) for name in wanted]
    return list(dict.fromkeys(address for address in found if address))


def _usable(name: str) -> bool:
    answer = _ask(SIOCGIFFLAGS, name)
    flags = _FLAGS.unpack_from(answer)[0] if answer else 0
    return bool(flags & IFF_UP) and not flags & IFF_LOOPBACK


def _address(name: str) -> str:
    """The interface's first IPv4 address, or ""."""
    answer = _ask(SIOCGIFADDR, name)
    return socket.inet_ntop(socket.AF_INET, _ADDRESS.unpack_from(answer)[0]) if answer else ""


def _ask(question: int, name: str) -> bytes:
    """The kernel's `struct ifreq` about an interface, or nothing."""
    raw = name.encode()
    if not raw or len(raw) > _NAME_BYTES_MAX or b"\0" in raw:
        return b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            return fcntl.ioctl(handle, question, raw.ljust(_IFREQ_BYTES, b"\0"))
        except OSError:
            return b""
