"""What a build can read and write of the log, and how it refuses the rest."""

from __future__ import annotations

import msgspec
import pytest

from meshcron import entries
from meshcron.chain import CHAIN_START, chain
from meshcron.config import KEYS
from meshcron.entries import Config, Noop, Pause
from meshcron.errors import NewerProtocol
from meshcron.rows import BallotRow, Loaded, LogRow, MarkRow
from meshcron.vocabulary import FIRST, VOCABULARY, protocol_of
from tests.next_build import NEXT, Remark, SignedNoop


def disk(body: bytes = b"", **meta: str) -> Loaded:
    """What an earlier session left: scalars, and an entry 1."""
    log = [LogRow(1, 1, chain(CHAIN_START, 1, 1, body), body)] if body else []
    return Loaded(
        ballot=BallotRow(0, ""),
        log=log,
        meta=meta,
        jobs=[],
        job_states=[],
        open_executions=[],
        owed=[],
        calls=[],
        members=[],
        tokens=[],
        seen=[],
        specs=[],
        mark=MarkRow(0, 0, 0),
    )


def test_both_builds_read_what_both_know() -> None:
    """The same bytes, the same entry; the new field is empty where nobody wrote it."""
    for entry in (Noop(1, 2, 3), Pause(paused=True, wall_us=1), Config(VOCABULARY.protocol)):
        body = entries.encode(entry)
        assert VOCABULARY.decode(body) == entry
        assert NEXT.needs(NEXT.decode(body)) == FIRST


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (msgspec.json.encode(Remark("hello")), r"cannot read \(.*'remark'.*\): upgrade meshcron on this machine"),
        (msgspec.json.encode(Config(2)), "speaks protocol 2, this agent only 1: upgrade meshcron on this machine"),
        (b"no entry at all", r"cannot read \(.*\): upgrade"),
        (b'{"type":"noop"}', r"cannot read \(.*cluster_us.*\): upgrade"),
    ],
)
def test_what_is_not_known_is_refused_by_name(body: bytes, says: str) -> None:
    """In one line that names the remedy: met in the log of a leader, or on the own disk at start."""
    with pytest.raises(NewerProtocol, match=says) as met:
        VOCABULARY.decode(body)
    assert "\n" not in str(met.value)
    with pytest.raises(NewerProtocol, match=says):
        VOCABULARY.refuse_newer_disk(disk(body))


def test_a_catalog_of_a_later_protocol_is_refused() -> None:
    """Also where the log behind it is cut. Applied entries are not read again."""
    with pytest.raises(NewerProtocol, match="protocol 2"):
        VOCABULARY.refuse_newer_disk(disk(protocol="2"))
    NEXT.refuse_newer_disk(disk(protocol="2"))
    VOCABULARY.refuse_newer_disk(disk(b"whatever", applied="1 1 0"))
    assert protocol_of({}) == FIRST


def test_kinds_and_fields_say_which_protocol_they_need() -> None:
    """A new field counts where it is used."""
    assert NEXT.needs(SignedNoop(1, 2, 3)) == FIRST
    assert NEXT.needs(SignedNoop(1, 2, 3, "me")) == NEXT.protocol
    assert NEXT.needs(Remark("hello")) == NEXT.protocol  # type: ignore[arg-type] # not in this build's union


def test_nobody_chooses_a_protocol_by_configuration() -> None:
    """It is a property of the build."""
    assert not [name for name in KEYS if "protocol" in name]
