"""The replicated log in memory: its entries behind a base, as far as followers may still need them."""

from __future__ import annotations

from meshcron.chain import CHAIN_START, chain
from meshcron.rows import LogRow

KEPT_ENTRIES = 10_000
"""How many applied entries the log keeps for followers that lag (PROTOCOL 5); who needs more gets a snapshot."""

KEPT_BYTES = 8 * 1024 * 1024
"""The same in bytes of bodies: entries of ten thousand ticks a second are large."""

HEAD_BYTES = 64
"""What an entry takes in an Append besides its body: its head as JSON, and a frame of its own. A message may have 4,096
of those, fewer than 300 KiB of the smallest entries."""


class Log:
    """Entries `first_index` to `last_index`, without a gap; the base is the entry before the first."""

    def __init__(self, base_index: int, base_term: int | None, base_crc: int | None) -> None:
        self.base_index = base_index
        self.base_term = base_term
        """None: cut off by an earlier session, nobody remembers."""
        self._base_crc = base_crc
        self._rows: list[LogRow] = []
        self._bytes = 0

    @staticmethod
    def load(rows: list[LogRow], applied: tuple[int, int, int]) -> Log:
        """What the disk holds, behind or around the entry that the catalog stands for."""
        if not rows:
            return Log(*applied) if applied[0] else Log(0, 0, CHAIN_START)
        first = rows[0].index
        if first == 1:
            log = Log(0, 0, CHAIN_START)
        elif first == applied[0] + 1:
            log = Log(*applied)
        else:
            log = Log(first - 1, None, None)
        for row in rows:
            log._push(row)
        return log

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self.base_index + len(self._rows)

    @property
    def last_term(self) -> int:
        """Term of the last entry; 0 of an empty log."""
        return self._rows[-1].term if self._rows else self.base_term or 0

    @property
    def last_crc(self) -> int:
        """Chain CRC of the last entry."""
        crc = self._rows[-1].crc if self._rows else self._base_crc
        assert crc is not None, "the base of an empty log is the applied entry"
        return crc

    def row(self, index: int) -> LogRow:
        """An entry that is kept."""
        return self._rows[index - self.base_index - 1]

    def term_at(self, index: int) -> int | None:
        """The term of an entry; None where it is not there, or no longer."""
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self.row(index).term
        return None

    def append(self, term: int, body: bytes) -> LogRow:
        """A new last entry."""
        index = self.last_index + 1
        row = LogRow(index, term, chain(self.last_crc, index, term, body), body)
        self._push(row)
        return row

    def take(self, row: LogRow) -> bool:
        """Take over the leader's next entry; False where its chain CRC does not continue ours."""
        if row.crc != chain(self.last_crc, row.index, row.term, row.body):
            return False
        self._push(row)
        return True

    def truncate(self, first: int) -> None:
        """Remove the entries from `first` on: another leader's log has others there."""
        for row in self._rows[first - self.base_index - 1 :]:
            self._bytes -= len(row.body)
        del self._rows[first - self.base_index - 1 :]

    def after(self, index: int, bytes_max: int) -> tuple[LogRow, ...]:
        """Some entries behind `index`: one if there is any, more within `bytes_max`, heads included."""
        some: list[LogRow] = []
        size = 0
        for at in range(index - self.base_index, len(self._rows)):
            row = self._rows[at]
            size += HEAD_BYTES + len(row.body)
            if some and size > bytes_max:
                break
            some.append(row)
        return tuple(some)

    def cut(self, applied_index: int) -> int | None:
        """Forget applied entries in bulk once there are far too many; the new base index where something was cut."""
        applied = applied_index - self.base_index
        if applied <= 2 * KEPT_ENTRIES and self._bytes <= 2 * KEPT_BYTES:
            return None
        keep = self._kept(applied)
        if keep >= applied:
            return None
        cut = applied - keep
        last = self._rows[cut - 1]
        self._bytes -= sum(len(row.body) for row in self._rows[:cut])
        del self._rows[:cut]
        self.base_index, self.base_term, self._base_crc = last.index, last.term, last.crc
        return last.index

    def _kept(self, applied: int) -> int:
        size = kept = 0
        while kept < min(applied, KEPT_ENTRIES):
            size += len(self._rows[applied - kept - 1].body)
            if size > KEPT_BYTES:
                break
            kept += 1
        return kept

    def reset(self, index: int, term: int, crc: int) -> None:
        """Begin anew behind the entry a snapshot stands for."""
        self.base_index, self.base_term, self._base_crc = index, term, crc
        self._rows.clear()
        self._bytes = 0

    def _push(self, row: LogRow) -> None:
        assert row.index == self.last_index + 1, "the log has a gap"
        self._rows.append(row)
        self._bytes += len(row.body)
