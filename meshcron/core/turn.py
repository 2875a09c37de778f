"""One call of `Agent.handle`: what is to be written, and what may leave when.

The rule of the house (PROTOCOL 5, Durability) lives here once: an effect asked for with `after_writes` leaves only when
this turn's rows, and all rows of earlier turns, are durable.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from meshcron.core.effects import (
    AdoptProcess,
    Alarm,
    Answer,
    Effect,
    ForgetProcess,
    Halt,
    Persist,
    Send,
    SignalProcess,
    StartProcess,
)
from meshcron.model import Instant
from meshcron.rows import Row

Deferrable = Send | Answer | StartProcess | ForgetProcess


class Turn:
    """Gathers rows and effects of one event; `close` gives them their order."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.rows: list[Row] = []
        self._effects: list[tuple[bool, Effect]] = []

    def write(self, *rows: Row) -> None:
        """Rows to be made durable by this turn's Persist."""
        self.rows.extend(rows)

    def write_all(self, rows: Iterable[Row]) -> None:
        self.rows.extend(rows)

    def after_writes(self, effect: Deferrable) -> None:
        """Let an effect leave once everything written up to the end of this turn is durable."""
        self._effects.append((True, effect))

    def at_once(self, effect: Send | SignalProcess | AdoptProcess | Alarm | Halt | Answer | ForgetProcess) -> None:
        """Let an effect leave now: it shows nothing that is not durable already."""
        self._effects.append((False, effect))

    def close(self, persists: int) -> tuple[int, list[Effect]]:
        """The number of the last Persist asked for so far (`persists` before this turn) and the effects in order."""
        effects: list[Effect] = []
        if self.rows:
            persists += 1
            effects.append(Persist(persists, tuple(self.rows)))
        for waits, effect in self._effects:
            effects.append(replace(effect, after=persists) if waits else effect)
        return persists, effects
