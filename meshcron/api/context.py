"""What every handler of one agent shares; made once by app.py."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from meshcron.api.auth import Gate
from meshcron.api.settings import ApiSettings
from meshcron.service import Elsewhere, Service


class Refusal(Struct, frozen=True):
    """An error as an answer: status, headers of its own, and the object under `error`."""

    status: int
    error: dict[str, object]
    headers: dict[str, str]


class Context(Struct, frozen=True, kw_only=True):
    """The agent behind the API, and what the API decides with."""

    service: Service
    settings: ApiSettings
    gate: Gate
    refusal: Callable[[BaseException], Refusal]
    """Error -> answer, the one mapping (app.py)."""
    wall_clock_us: Callable[[], int]
    monotonic: Callable[[], float]
    """Seconds."""
    headers: tuple[tuple[str, str], ...]
    """Sent with every answer."""
    elsewhere: Elsewhere | None = None
    """Other agents; None where this one is alone for good (tests)."""
