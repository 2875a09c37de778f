"""The cluster key: its text form, what is refused, what derives from it, where a machine keeps it (PROTOCOL 1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from meshcron.errors import StartRefused

PREFIX = "mk1-"
"""Version of the text form; a later one gets another prefix, so that an old agent refuses it by name."""

SECRET_BYTES = 32
"""256 bits: as strong as the Curve25519 keys derived from it."""

CHECKSUM_BYTES = 3
"""A mistyped key is taken for a right one once in 2^24; and 35 bytes are exactly 56 base32 letters, no padding."""

TEXT_LETTERS = (SECRET_BYTES + CHECKSUM_BYTES) * 8 // 5
"""Length of a key's text behind the prefix."""

FINGERPRINT_BYTES = 8
"""Public name of a key in mDNS (PROTOCOL 1): too short to be worth attacking, long enough never to meet by chance."""

DISTINCT_BYTES_MIN = 12
"""Fewer distinct bytes than this in 32 come from a pattern: by chance 21 of 32 would have to repeat (below 1e-14)."""

SALT = b"meshcron cluster key 1"
"""HKDF salt: keeps what we derive apart from whatever else may be derived from the same 256 bits."""

GATE = "gate"
GATE_CLIENT = "gate-client"
FINGERPRINT = "fingerprint"

VARIABLE = "MESHCRON_KEY"
SYSTEM_FILE = Path("/etc/meshcron/cluster.key")
FILE_NAME = "cluster.key"
"""In the data directory: the key made at a first start without one, or the one that MESHCRON_KEY gave."""

FILE_BYTES_MAX = 4096
"""Of a key file: a key and some blank lines; a device or a disk image named by a slip is not read to its end."""

REMEDY = 'copy it again from "meshcron key show --secret" on a machine that has it, or make one with "meshcron key new"'


class CurvePair(NamedTuple):
    """A CURVE key pair as libzmq takes it: Z85 text, 40 letters each."""

    public: bytes
    secret: bytes


class ClusterKey:
    """The one secret a person carries. Its `repr` and `str` show the fingerprint only, so that no log can leak it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """Take 256 random bits. Raises StartRefused where they are too few or follow a pattern."""
        _refuse_weak(secret)
        self._secret = secret

    @property
    def text(self) -> str:
        """The key as a person carries it: `mk1-` and 56 letters. A secret."""
        return PREFIX + base64.b32encode(self._secret + _checksum(self._secret)).decode().lower()

    @property
    def fingerprint(self) -> str:
        """Public name of the key, 16 hex digits; says nothing about the key itself."""
        return self.derive(FINGERPRINT, FINGERPRINT_BYTES).hex()

    def derive(self, label: str, length: int = SECRET_BYTES) -> bytes:
        """`length` bytes (at most 8160) for one purpose; those of one label say nothing about those of another."""
        return hkdf(self._secret, SALT, label.encode(), length)

    def curve_pair(self, label: str) -> CurvePair:
        """The CURVE pair of one purpose (`GATE`, `GATE_CLIENT`): the same on every agent that holds the key."""
        import zmq  # noqa: PLC0415 - here, because the command line reads keys and must start without libzmq
        from zmq.utils import z85  # noqa: PLC0415

        secret = z85.encode(self.derive(label))
        return CurvePair(zmq.curve_public(secret), secret)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClusterKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"ClusterKey({self.fingerprint})"


def parse_key(text: str) -> ClusterKey:
    """Read a key's text; case, blanks and dashes do not matter. Raises StartRefused, never showing the text."""
    letters = "".join(text.split()).lower()
    if not letters:
        raise StartRefused(f"the cluster key is empty; {REMEDY}")
    if not letters.startswith(PREFIX):
        raise StartRefused(f'the cluster key does not begin with "{PREFIX}"; {REMEDY}')
    body = letters.removeprefix(PREFIX).replace("-", "")
    if len(body) != TEXT_LETTERS:
        raise StartRefused(f'the cluster key has {len(body)} letters behind "{PREFIX}", not {TEXT_LETTERS}; {REMEDY}')
    try:
        raw = base64.b32decode(body, casefold=True)
    except ValueError:
        raise StartRefused(f"the cluster key has a letter that is none of a-z, 2-7; {REMEDY}") from None
    secret, checksum = raw[:SECRET_BYTES], raw[SECRET_BYTES:]
    if not hmac.compare_digest(checksum, _checksum(secret)):
        raise StartRefused(f"the cluster key is mistyped (its check sum does not match); {REMEDY}")
    return ClusterKey(secret)


class FoundKey(NamedTuple):
    """A key and the place it was read from: a variable's name or a path."""

    key: ClusterKey
    source: str


def find_key(key_file: Path | None, data_dir: Path, environment: Mapping[str, str]) -> FoundKey | None:
    """The key this machine holds: MESHCRON_KEY, `key_file`, the system's file, or the one kept in the data directory.

    None where there is none; the first of them that is there decides, so a wrong key is never passed over for
    another. Raises StartRefused for a key that is refused and for a file that is named and missing, or unreadable.
    """
    if text := environment.get(VARIABLE, "").strip():
        return FoundKey(_parsed(text, VARIABLE), VARIABLE)
    if key_file is not None:
        return FoundKey(read_key(key_file), str(key_file))
    for file in (SYSTEM_FILE, data_dir / FILE_NAME):
        if file.exists():
            return FoundKey(read_key(file), str(file))
    return None


def read_key(file: Path) -> ClusterKey:
    """The key in a file. Raises StartRefused for one that is refused, missing or unreadable."""
    try:
        with file.open("rb") as stream:
            return _parsed(stream.read(FILE_BYTES_MAX).decode(), str(file))
    except OSError as error:
        raise StartRefused(f"{file}: cannot be read ({error.strerror}); correct the path or its mode") from None
    except UnicodeDecodeError:
        raise StartRefused(f"{file}: is not text; {REMEDY}") from None


def _parsed(text: str, source: str) -> ClusterKey:
    try:
        return parse_key(text)
    except StartRefused as refused:
        raise StartRefused(f"{source}: {refused}") from None


def new_curve_pair() -> CurvePair:
    """A fresh CURVE pair: an agent's own, drawn once for life."""
    import zmq  # noqa: PLC0415 - as in `curve_pair`

    public, secret = zmq.curve_keypair()
    return CurvePair(public, secret)


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF with SHA-256 (RFC 5869), at most 255 blocks of 32 bytes."""
    pseudorandom = hmac.digest(salt or bytes(hashlib.sha256().digest_size), key, "sha256")
    output, block, counter = b"", b"", 0
    while len(output) < length:
        counter += 1
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def _checksum(secret: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + secret).digest()[:CHECKSUM_BYTES]


def _refuse_weak(secret: bytes) -> None:
    if len(secret) != SECRET_BYTES:
        raise StartRefused(f"the cluster key holds {len(secret) * 8} bits, not {SECRET_BYTES * 8}; {REMEDY}")
    counting = len({(after - before) % 256 for before, after in pairwise(secret)}) == 1
    repeated = any(secret[period:] == secret[:-period] for period in range(1, SECRET_BYTES // 2 + 1))
    if counting or repeated or len(set(secret)) < DISTINCT_BYTES_MIN:
        raise StartRefused('the cluster key follows a pattern anyone may guess; make one with "meshcron key new"')
