"""Paths to handlers: a tree of segments, walked once a request. Literal segments win over variable ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from meshcron.api.handler import Handler


class Route(NamedTuple):
    """A path, its variable segments in braces (`/v1/jobs/{name}`), and the class that answers it."""

    path: str
    handler: type[Handler]


class Found(NamedTuple):
    """A handler and the variable segments of the path in order, percent-decoded, not yet checked."""

    handler: type[Handler]
    arguments: list[bytes]
    names: list[str]
    """What the route calls them."""


class _Node:
    __slots__ = ("handler", "literal", "name", "variable")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.name = ""
        """Of a variable segment."""
        self.handler: type[Handler] | None = None


class Router:
    """Finds the handler of a path, with or without a slash at its end. `routes` lists them, for tests and docs."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        for route in self.routes:
            self._add(route)

    def find(self, path: str) -> Found | None:
        """The handler of a path as it stands in the request line, None where there is none."""
        if not path.startswith("/"):
            return None
        node = self._root
        arguments: list[bytes] = []
        names: list[str] = []
        for part in _parts(path):
            literal = node.literal.get(part)
            if literal is not None:
                node = literal
            elif node.variable is not None and part:
                node = node.variable
                # Tornado hands the path over as Latin-1, which is every byte as it came.
                arguments.append(unquote_to_bytes(part.encode("latin-1")))
                names.append(node.name)
            else:
                return None
        return Found(node.handler, arguments, names) if node.handler is not None else None

    def _add(self, route: Route) -> None:
        node = self._root
        for part in _parts(route.path):
            if part.startswith("{"):
                node.variable = node.variable or _Node()
                node = node.variable
                node.name = part.strip("{}")
            else:
                node = node.literal.setdefault(part, _Node())
        if node.handler is not None:
            raise ValueError(f"two routes for {route.path}")
        node.handler = route.handler


def _parts(path: str) -> list[str]:
    parts = path.split("/")[1:]
    if parts and not parts[-1]:
        parts.pop()
    return parts
