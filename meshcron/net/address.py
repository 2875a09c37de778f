"""Hosts and ports, as sockets take them."""

from __future__ import annotations

import asyncio
import socket

PORT_MAX = 65535


def is_address(host: str) -> bool:
    """An IP address, of either version, and no name: nothing has to be looked up to reach it."""
    return any(_parses(host, family) for family in (socket.AF_INET, socket.AF_INET6))


def is_place(host: str, *ports: int) -> bool:
    """Somewhere one can connect to: an address and real port numbers."""
    return is_address(host) and all(0 < port <= PORT_MAX for port in ports)


def endpoint(host: str, port: int) -> str:
    """A host and port as libzmq writes them."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


async def resolve(host: str) -> str:
    """One address of a host, IPv4 before IPv6. Raises OSError or UnicodeError for a name that has none. libzmq would
    look a name up by itself, but in its only I/O thread, where everything else would wait."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])


def _parses(host: str, family: int) -> bool:
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True
