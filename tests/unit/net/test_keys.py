"""The cluster key: what is accepted, what is refused, what is derived."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path

import pytest
import zmq
from hypothesis import assume, given
from hypothesis import strategies as st

from meshcron.errors import StartRefused
from meshcron.net import keys
from meshcron.net.keys import GATE, GATE_CLIENT, ClusterKey, find_key, hkdf, parse_key

SECRET = hashlib.sha256(b"a key for tests").digest()
KEY = ClusterKey(SECRET)


def random_secrets() -> st.SearchStrategy[bytes]:
    """Secrets as chance draws them: hypothesis alone prefers patterns, which are refused."""
    return st.binary(max_size=16).map(lambda seed: hashlib.sha256(seed).digest())


@given(random_secrets())
def test_text_reads_back(secret: bytes) -> None:
    """A key survives being written down and typed in again."""
    key = ClusterKey(secret)
    assert parse_key(key.text) == key
    assert len(key.text) == 60
    assert key.text.startswith("mk1-")


def test_blanks_case_and_dashes_do_not_matter() -> None:
    """A key copied from paper, in capitals and in groups, is the same key."""
    body = KEY.text.removeprefix("mk1-")
    grouped = "-".join(body[at : at + 8] for at in range(0, len(body), 8))
    assert parse_key(f"  MK1-{grouped.upper()}\n") == KEY


@given(st.integers(0, 55), st.sampled_from(string.ascii_lowercase + "234567"))
def test_one_wrong_letter_is_refused(position: int, letter: str) -> None:
    """A typing error anywhere never yields another key."""
    body = KEY.text.removeprefix("mk1-")
    assume(body[position] != letter)
    with pytest.raises(StartRefused, match="mistyped"):
        parse_key(f"mk1-{body[:position]}{letter}{body[position + 1 :]}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("CHANGE_ME", "does not begin"),
        ("mk2-" + KEY.text[4:], "does not begin"),
        (KEY.text[:-1], "has 55 letters"),
        (KEY.text + "a", "has 57 letters"),
        ("mk1-", "has 0 letters"),
        (KEY.text[:-1] + "1", "none of a-z"),
        (KEY.text[:-1] + "ä", "none of a-z"),
    ],
)
def test_malformed_text_is_refused(text: str, why: str) -> None:
    """Each way to get the text wrong is named, and the remedy with it."""
    with pytest.raises(StartRefused, match=why) as refused:
        parse_key(text)
    assert "meshcron key new" in str(refused.value)


@given(st.text(max_size=80))
def test_any_other_text_is_refused(text: str) -> None:
    """Whatever is given for a key is refused in our own words, and no refusal repeats what may be a secret."""
    with pytest.raises(StartRefused) as refused:
        parse_key(text)
    assert len(text) < 20 or text not in str(refused.value)


@pytest.mark.parametrize(
    "secret",
    [
        bytes(32),
        b"\xff" * 32,
        b"\xaa\x55" * 16,
        bytes(range(8)) * 4,
        SECRET[:16] * 2,
        (SECRET[:11] * 3)[:32],
        bytes(range(32)),
        bytes(range(255, 223, -1)),
        bytes((7 * n) % 256 for n in range(32)),
    ],
)
def test_guessable_secrets_are_refused(secret: bytes) -> None:
    """All zero, repeated and counting bytes are refused, also when their check sum is right."""
    with pytest.raises(StartRefused, match="pattern"):
        ClusterKey(secret)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    """128 bits are not enough, and what is longer was not made here."""
    with pytest.raises(StartRefused, match="bits"):
        ClusterKey(SECRET[:length] if length < 32 else SECRET + b"x")


def test_repr_keeps_the_secret() -> None:
    """A key that ends up in a log shows its public fingerprint only."""
    assert repr(KEY) == f"ClusterKey({KEY.fingerprint})"
    assert str(KEY) == repr(KEY)
    assert KEY.text not in repr(KEY)
    assert SECRET.hex() not in repr(KEY)


def test_fingerprint_is_eight_bytes_and_stable() -> None:
    """The fingerprint is part of the wire format: a change would split clusters that run two versions."""
    assert KEY.fingerprint == "4f2d98d59ca89fb0"
    assert KEY.text == "mk1-vlreqsmefvyifntpk7hie4f5atncyop7xf67ekadyjyjqmbsyts4tzzd"


def test_labels_are_independent() -> None:
    """What is derived under one label is not what another label yields, nor the secret itself."""
    assert len({KEY.derive(GATE), KEY.derive(GATE_CLIENT), KEY.derive("fingerprint"), SECRET}) == 4
    assert KEY.derive(GATE) == ClusterKey(SECRET).derive(GATE)


def test_curve_pairs_belong_together() -> None:
    """The derived public half is the one libzmq computes from the secret half."""
    gate, client = KEY.curve_pair(GATE), KEY.curve_pair(GATE_CLIENT)
    assert zmq.curve_public(gate.secret) == gate.public
    assert len(gate.public) == len(gate.secret) == 40
    assert gate != client


@pytest.mark.parametrize(
    ("key", "salt", "info", "length", "expected"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf_is_rfc_5869(key: str, salt: str, info: str, length: int, expected: str) -> None:
    """Test cases 1 and 3 of RFC 5869, appendix A."""
    assert hkdf(bytes.fromhex(key), bytes.fromhex(salt), bytes.fromhex(info), length).hex() == expected


OTHER = ClusterKey(hashlib.sha256(b"another key for tests").digest())
THIRD = ClusterKey(hashlib.sha256(b"a third key for tests").digest())


@pytest.fixture
def system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands for the file in /etc, which the machine the tests run on may have."""
    monkeypatch.setattr(keys, "SYSTEM_FILE", tmp_path / "system.key")
    return tmp_path / "system.key"


def test_a_machine_without_a_key(system_file: Path, tmp_path: Path) -> None:
    """A first start: there is none, and an empty variable says nothing."""
    assert find_key(None, tmp_path, {}) is None
    assert find_key(None, tmp_path, {"MESHCRON_KEY": " "}) is None


def test_where_a_key_is_found(system_file: Path, tmp_path: Path) -> None:
    """The variable, the named file, the system's file, the one made at a first start: the first that is there."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "cluster.key").write_text(KEY.text + "\n", encoding="ascii")
    assert find_key(None, folder, {}) == (KEY, str(folder / "cluster.key"))
    system_file.write_text(OTHER.text, encoding="ascii")
    assert find_key(None, folder, {}) == (OTHER, str(system_file))
    named = tmp_path / "named.key"
    named.write_text(THIRD.text, encoding="ascii")
    assert find_key(named, folder, {}) == (THIRD, str(named))
    assert find_key(named, folder, {"MESHCRON_KEY": KEY.text}) == (KEY, "MESHCRON_KEY")


def test_a_wrong_key_is_not_passed_over(system_file: Path, tmp_path: Path) -> None:
    """An agent that would start with another key than it was given might form a cluster of its own: it stops."""
    (tmp_path / "cluster.key").write_text(KEY.text, encoding="ascii")
    with pytest.raises(StartRefused, match="MESHCRON_KEY: the cluster key does not begin"):
        find_key(None, tmp_path, {"MESHCRON_KEY": "CHANGE_ME"})
    with pytest.raises(StartRefused, match="cannot be read"):
        find_key(tmp_path / "none", tmp_path, {})
    with pytest.raises(StartRefused, match="cannot be read"):
        find_key(tmp_path, tmp_path, {})
    system_file.write_bytes(b"\xff\xfe")
    with pytest.raises(StartRefused, match="is not text"):
        find_key(None, tmp_path, {})
