"""What an agent can read and write in the log: the protocols of a cluster, one after the other (PROTOCOL 5).

Agents of protocol n and n + 1 work together. Each announces in its profile the highest that it speaks; the cluster
speaks the one of the last `Config` entry, which a leader writes once all announced it. No entry kind and no field of a
later protocol is written before, and an agent that meets one it does not know stops: skipped, it would make its state
another one than everybody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import MsgspecError, Struct

from meshcron import entries
from meshcron.entries import Config, Entry
from meshcron.errors import NewerProtocol
from meshcron.rows import Loaded

FIRST = 1
"""What a cluster speaks before any `Config`."""

REMEDY = "upgrade meshcron on this machine; nothing was changed here"


class Vocabulary(Struct, frozen=True):
    """What one build of the agent speaks."""

    protocol: int
    """The highest, and all below."""
    read: Callable[[bytes], Entry]
    """Raises MsgspecError for a kind that this build does not know."""
    kinds: Mapping[type[Struct], int] = {}
    """Kinds that came after the first protocol, and with which."""
    fields: Mapping[type[Struct], Mapping[str, int]] = {}
    """The same for fields of older kinds. Their default is empty, and says what an entry without them says."""

    def decode(self, body: bytes) -> Entry:
        """The entry of logged bytes. Raises NewerProtocol."""
        try:
            entry = self.read(body)
        except MsgspecError as error:
            raise NewerProtocol(f"the log holds an entry that this agent cannot read ({error}): {REMEDY}") from None
        if isinstance(entry, Config):
            self.refuse_newer(entry.protocol)
        return entry

    def needs(self, entry: Entry) -> int:
        """The first protocol that has all of an entry."""
        kind = type(entry)
        later = self.fields.get(kind, {})
        return max([self.kinds.get(kind, FIRST), *(since for name, since in later.items() if getattr(entry, name))])

    def refuse_newer(self, protocol: int) -> None:
        """The cluster speaks this. Raises NewerProtocol where this build does not."""
        if protocol > self.protocol:
            raise NewerProtocol(f"the cluster speaks protocol {protocol}, this agent only {self.protocol}: {REMEDY}")

    def refuse_newer_disk(self, loaded: Loaded) -> None:
        """What an earlier session left may be a later build's. Raises NewerProtocol."""
        self.refuse_newer(protocol_of(loaded.meta))
        applied = int(loaded.meta.get("applied", "0").split()[0])
        for row in loaded.log:
            if row.index > applied:
                self.decode(row.body)


def protocol_of(meta: Mapping[str, str]) -> int:
    """What the cluster of a catalog speaks, by the catalog's scalars."""
    return int(meta.get("protocol", FIRST))


VOCABULARY = Vocabulary(FIRST, entries.decode)
"""This build's."""
