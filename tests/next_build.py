"""The next build of the agent as an upgrade would bring it: it speaks one protocol more, which has one entry kind and
one field of an old kind that this build does not know. `python -m tests.next_build up ...` is its command line.

While it leads it tries to write both, again and again, from its first turn on. Whether it may is not its to say: that
is what the tests are about (meshcron/vocabulary.py).
"""

from __future__ import annotations

from typing import Any, Union, cast, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from meshcron import entries, main
from meshcron.cli import main as command_line
from meshcron.core.agent import Agent
from meshcron.core.catalog import Catalog
from meshcron.core.settings import Settings
from meshcron.core.turn import Turn
from meshcron.entries import Entry
from meshcron.errors import Conflict
from meshcron.rows import Loaded, MetaRow
from meshcron.vocabulary import VOCABULARY, Vocabulary


class Remark(Struct, frozen=True, tag="remark"):
    """The new kind."""

    text: str


class SignedNoop(entries.Noop, frozen=True, tag="noop"):
    """The old kind with a new field."""

    signed: str = ""


KINDS: Any = Union[(*(kind for kind in get_args(Entry) if kind is not entries.Noop), SignedNoop, Remark)]
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(KINDS)

NEXT = Vocabulary(
    VOCABULARY.protocol + 1,
    _decoder.decode,
    kinds={Remark: VOCABULARY.protocol + 1},
    fields={SignedNoop: {"signed": VOCABULARY.protocol + 1}},
)


class NextCatalog(Catalog):
    """Knows what the new kind and the new field come to."""

    def _route(self, entry: Entry) -> object:
        match cast("Any", entry):
            case Remark(text):
                self._fold.rows.append(MetaRow("remark", text))
                return None
            case SignedNoop(signed=signed) if signed:
                self._fold.rows.append(MetaRow("signed", signed))
        return super()._route(entry)


class NextAgent(Agent):
    """Writes a remark and a signature in each term of its own."""

    def __init__(self, settings: Settings, loaded: Loaded) -> None:
        super().__init__(replace(settings, vocabulary=NEXT), loaded)
        self._catalog = NextCatalog(self.state)
        self._written_term = 0

    def _finish(self, turn: Turn) -> None:
        if self.leading and self.ledger.term > self._written_term and self.ledger.can_propose(turn.now.boot_us):
            self._write(turn)
        super()._finish(turn)

    def _write(self, turn: Turn) -> None:
        signed = SignedNoop(
            self.clock.cluster_us(turn.now), turn.now.wall_us, self.clock.offset_us, f"term {self.ledger.term}"
        )
        try:
            self.ledger.propose(signed, turn)
            self.ledger.propose(cast("Entry", Remark(f"term {self.ledger.term}")), turn)
        except Conflict as not_yet:
            assert not_yet.field == "protocol", not_yet
        else:
            self._written_term = self.ledger.term


if __name__ == "__main__":
    main.__dict__.update(VOCABULARY=NEXT, Agent=NextAgent)
    command_line()
