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
    Connect,
    Effect,
    ForgetProcess,
    Halt,
    InstallSnapshot,
    Knock,
    Persist,
    Publish,
    Send,
    SendSnapshot,
    SignalProcess,
    StartOver,
    StartProcess,
)
from meshcron.model import Instant
from meshcron.rows import Row

Deferrable = Send | Answer | StartProcess | ForgetProcess | StartOver
Immediate = (
    Send
    | Publish
    | SendSnapshot
    | Knock
    | Connect
    | SignalProcess
    | AdoptProcess
    | Alarm
    | Halt
    | Answer
    | ForgetProcess
)


class Turn:
    """Gathers rows and effects of one event; `close` gives them their order."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.rows: list[Row] = []
        self.applied_index = 0
        """The last entry of the log whose outcome is among the rows."""
        self._effects: list[tuple[bool, Effect]] = []
        self._install: InstallSnapshot | None = None

    def write(self, *rows: Row) -> None:
        """Rows to be made durable by this turn's Persist."""
        self.rows.extend(rows)

    def write_all(self, rows: Iterable[Row]) -> None:
        self.rows.extend(rows)

    def after_writes(self, effect: Deferrable) -> None:
        """Let an effect leave once everything written up to the end of this turn is durable."""
        self._effects.append((True, effect))

    def at_once(self, effect: Immediate) -> None:
        """Let an effect leave now: it shows nothing that is not durable already."""
        self._effects.append((False, effect))

    def install(self, index: int, term: int, crc: int) -> None:
        """Put the snapshot that arrived in the place of catalog and log, behind this turn's rows."""
        self._install = InstallSnapshot(0, index, term, crc)

    def close(self, persists: int) -> tuple[int, list[Effect]]:
        """The number of the last Persist asked for so far (`persists` before this turn) and the effects in order."""
        effects: list[Effect] = []
        if self.rows:
            persists += 1
            effects.append(Persist(persists, tuple(self.rows), self.applied_index))
        if self._install is not None:
            persists += 1
            effects.append(replace(self._install, n=persists))
        for waits, effect in self._effects:
            effects.append(replace(effect, after=persists) if waits else effect)
        return persists, effects
