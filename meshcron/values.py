"""How a person writes a value: a duration, a size, an address, a name. The config reads its keys with these.

Each reader takes the place a value stands at (for the error) and the value as a flag, a variable or a TOML file may
hold it; it returns the typed value or raises InvalidRequest with the place and the remedy. Nothing here reads a file,
a clock or the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from msgspec import Struct

from meshcron import durations
from meshcron.errors import InvalidRequest

NAME_BYTES_MAX = 128
"""The names of agents obey the rule of the names of jobs (API.md, Both dialects, 14)."""

TAG_BYTES_MAX = 255
"""`K=V` in all. Tags travel in every heartbeat and name topics; what is longer is a slip."""

TAGS_BYTES_MAX = 64 * 1024
"""All tags of an agent: each of its heartbeats, four a second, carries them in one message."""

PORT_MAX = 65535
"""Ports have 16 bits."""

SIZE_UNITS_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SWITCH_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

Reader = Callable[[str, object], Any]
"""(place, value as given) -> typed value."""


class Address(Struct, frozen=True):
    """A host and a port. `host` is an IP address or, where that is allowed, a DNS name; never in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_ip(host: str) -> bool:
    """True for an IPv4 or IPv6 address as text."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """True for an IP address that only this machine reaches; a DNS name never is one."""
    return is_ip(host) and ip_address(host).is_loopback


def nearest(word: str, words: Collection[str]) -> str:
    """`did you mean ...?` with the likeliest of `words`; empty when none is near."""
    near = get_close_matches(word, words, n=1)
    return f"did you mean {near[0]}?" if near else ""


# ---- Readers of one value


def text(place: str, value: object) -> str:
    """Any text, without surrounding blanks."""
    if not isinstance(value, str):
        raise InvalidRequest(place, f"{value!r} is not text", "put it in quotes")
    if not value.isprintable():
        raise InvalidRequest(place, f"{value!r} holds a control character", "remove it")
    return value.strip()


def path(place: str, value: object) -> Path | None:
    """A path made absolute here and now, `~` resolved; empty = None."""
    given = text(place, os.fspath(value) if isinstance(value, Path) else value)
    try:
        return Path(given).expanduser().absolute() if given else None
    except RuntimeError as error:  # pathlib's word for a home it cannot find
        raise InvalidRequest(place, f"{given!r}: there is no such home", "write the whole path") from error


def switch(place: str, value: object) -> bool:
    """A yes or no."""
    found = value if isinstance(value, bool) else SWITCH_WORDS.get(str(value).strip().lower())
    if found is None:
        raise InvalidRequest(place, f"{value!r} is neither true nor false", "true or false")
    return found


def choice(*words: str) -> Reader:
    """One of a few words."""

    def read(place: str, value: object) -> str:
        word = text(place, value)
        if word not in words:
            known = ", ".join(words)
            raise InvalidRequest(place, f"{word!r} is none of {known}", nearest(word, words) or "write one of them")
        return word

    return read


def integer(low: int, high: int) -> Reader:
    """A whole number from `low` to `high`."""

    def read(place: str, value: object) -> int:
        # Nineteen digits hold every limit here; int() itself would take a text of thousands.
        if isinstance(value, bool) or not re.fullmatch(r"\s*-?[0-9]{1,19}\s*", str(value)):
            raise InvalidRequest(place, f"{value!r} is not a whole number", f"{low} to {high}")
        number = int(str(value))
        if not low <= number <= high:
            raise InvalidRequest(place, f"{number} is out of range", f"{low} to {high}")
        return number

    return read


port = integer(0, PORT_MAX)
"""A port to listen on; 0 = any free one."""


def duration(low_us: int, high_us: int) -> Reader:
    """A duration such as `3s`, `10m` or `1h30m`, as microseconds."""

    def read(place: str, value: object) -> int:
        given = str(value).strip()
        total_us = durations.microseconds(given)
        if total_us is None:
            raise InvalidRequest(place, f"{value!r} is not a duration", "numbers with units, such as 3s, 10m or 1h30m")
        if not low_us <= total_us <= high_us:
            raise InvalidRequest(place, f"{given} is out of range", f"{low_us / 10**6:g}s to {high_us / 10**6:g}s")
        return total_us

    return read


def size(place: str, value: object) -> int:
    """A size such as `10MiB`, `500KB`, or a number of bytes: at least one byte."""
    found = re.fullmatch(r"\s*([0-9]{1,15})\s*([A-Za-z]*)\s*", str(value))
    if isinstance(value, bool) or not found or found[2] not in SIZE_UNITS_BYTES or int(found[1]) == 0:
        raise InvalidRequest(place, f"{value!r} is not a size", "bytes, or a number with its unit, such as 10MiB")
    return int(found[1]) * SIZE_UNITS_BYTES[found[2]]


def agent_name(place: str, value: object) -> str:
    """A name: letters of any script, digits, `_ - .`, no leading dot; empty stays empty."""
    name = text(place, value)
    if name.startswith(".") or not all(c.isalnum() or c in "_-." for c in name):
        raise InvalidRequest(place, f"{name!r} is not a name", "letters, digits and _ - . with no leading dot")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise InvalidRequest(place, f"a name of {len(name.encode())} bytes is too long", f"at most {NAME_BYTES_MAX}")
    return name


def user_name(place: str, value: object) -> str:
    """A name as in /etc/passwd; whether there is such a user shows when a job needs it."""
    name = text(place, value)
    if not re.fullmatch(r"[^\s:/]+", name):
        raise InvalidRequest(place, f"{name!r} is not a user name", "a name as in /etc/passwd")
    return name


# ---- Readers of addresses


def ip(place: str, value: object) -> str:
    """An IP address."""
    host = text(place, value)
    if not is_ip(host):
        raise InvalidRequest(place, f"{host!r} is not an IP address", "one of this machine's, such as 192.168.1.5")
    return host


def host(place: str, value: object) -> str:
    """An IP address or DNS name (RFC 1123, and `_`, which LANs use) that others can dial."""
    given = text(place, value)
    if is_ip(given) and ip_address(given).is_unspecified:
        raise InvalidRequest(place, f"nobody can dial {given}", "the address under which other machines reach this one")
    labels = given.removesuffix(".").split(".")
    well_formed = all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels)
    if not is_ip(given) and (not well_formed or labels[-1].isdigit()):  # 192.168.1.300 is a slip, not a name
        raise InvalidRequest(place, f"{given!r} is neither an address nor a host name", "192.168.1.5 or host.example")
    return given


def optional_host(place: str, value: object) -> str:
    """As `host`; empty stays empty."""
    return host(place, value) if text(place, value) else ""


def listen_address(place: str, value: object) -> Address:
    """`ADDR:PORT` to listen on; `[::1]:8080` for IPv6; `localhost` is 127.0.0.1."""
    address, number = _split(place, value)
    if not address or number is None:
        raise InvalidRequest(place, f"{value!r} is not ADDR:PORT", "127.0.0.1:8080, or 0.0.0.0:8080 for all interfaces")
    return Address(ip(place, "127.0.0.1" if address == "localhost" else address), number)


def peer_address(default_port: int) -> Reader:
    """`HOST[:PORT]` of another machine."""

    def read(place: str, value: object) -> Address:
        address, number = _split(place, value)
        if number == 0:
            raise InvalidRequest(place, "nobody can dial port 0", f"the other agent's port, usually {default_port}")
        return Address(host(place, address), default_port if number is None else number)

    return read


def _split(place: str, value: object) -> tuple[str, int | None]:
    """The halves of `HOST[:PORT]`; an IPv6 address stands in brackets where a port follows."""
    given = text(place, value)
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([^:]*))?", given)
    if is_ip(given) or not found:
        return given, None
    return found[1] or found[2] or "", None if found[3] is None else port(place, found[3])


# ---- Readers of several values


def listed(item: Reader) -> Reader:
    """A list; a single value is a list of one."""

    def read(place: str, value: object) -> tuple[object, ...]:
        return tuple(item(place, each) for each in (value if isinstance(value, list | tuple) else [value]))

    return read


def tags(place: str, value: object) -> dict[str, str]:
    """`K=V` texts or a TOML table. `meshcron.*` is what a machine says of itself and cannot be set (API.md, Jobs)."""
    found: dict[str, str] = {}
    for name, content in _tag_pairs(place, value):
        if not name or len(f"{name}={content}".encode()) > TAG_BYTES_MAX:
            raise InvalidRequest(place, f"{name!r} is empty or too long", f"K=V of at most {TAG_BYTES_MAX} bytes")
        if name.startswith("meshcron."):
            raise InvalidRequest(place, f"{name!r} is what the machine says of itself", "choose another key")
        if name in found:
            raise InvalidRequest(place, f"{name!r} is given twice", "an agent has one value for a tag")
        found[name] = content
    if sum(len(f"{name}={content}".encode()) for name, content in found.items()) > TAGS_BYTES_MAX:
        raise InvalidRequest(place, f"{len(found)} tags are too long together", f"at most {TAGS_BYTES_MAX} bytes")
    return found


def _tag_pairs(place: str, value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        return [(text(place, name), text(place, content)) for name, content in value.items()]
    pairs = [each.partition("=") for each in listed(text)(place, value)]
    for name, equals, _ in pairs:
        if not equals:
            raise InvalidRequest(place, f"{name!r} is not K=V", f"{name or 'role'}=web")
    return [(name.strip(), content.strip()) for name, _, content in pairs]
