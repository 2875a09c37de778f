"""What a fresh agent draws: who it is, its key, and the tokens for its operator and for the command line on its own
machine (API.md, Who may)."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
from pathlib import Path

from meshcron.files import LOCAL_FILE
from meshcron.model import Token
from meshcron.net.keys import ClusterKey, new_curve_pair
from meshcron.runtime import clock
from meshcron.store.directory import Identity

ADMIN_FILE = "admin.token"
TOKEN_BYTES = 32


def local_token(folder: Path, node_id: str, wall_us: int) -> Token:
    """This agent's own token: read from its file, or made there. Valid only on this agent."""
    return _token(folder / LOCAL_FILE, f"local-{node_id[:12]}", f"local {node_id[:12]}", node_id, wall_us)


def admin_token(folder: Path, wall_us: int) -> Token:
    """The cluster's first token, made at formation."""
    return _token(folder / ADMIN_FILE, "admin", "admin", "", wall_us)


def _token(file: Path, id_: str, name: str, node_id: str, wall_us: int) -> Token:
    secret = file.read_text(encoding="ascii").strip() if file.exists() else ""
    if not secret:
        secret = secrets.token_urlsafe(TOKEN_BYTES)
        write_private(file, secret + "\n")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Token(id=id_, name=name, role="admin", sha256=digest, created_wall_us=wall_us, node_id=node_id)


def random_id() -> str:
    """128 random bits in hex: a node id, a cluster id."""
    return secrets.token_hex(16)


def new_key() -> ClusterKey:
    """A fresh cluster key."""
    return ClusterKey(secrets.token_bytes(32))


def new_identity() -> Identity:
    """A random node id and CURVE pair."""
    pair = new_curve_pair()
    return Identity(
        node_id=random_id(),
        public_key=pair.public.decode(),
        secret_key=pair.secret.decode(),
        created_wall_us=clock.wall_clock_us(),
    )


def invitation(key: ClusterKey, folder: Path, *, to_terminal: bool) -> str:
    """What a second machine types. The key itself is for the eyes of a person at a terminal: a file or a journal would
    keep it."""
    if to_terminal:
        return f"on another machine: MESHCRON_KEY={key.text} meshcron up"
    show = f"meshcron key show --secret --data-dir {shlex.quote(str(folder))}"
    return f"on another machine: MESHCRON_KEY=mk1-... meshcron up; this machine's key: {show}"


def write_private(file: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner alone."""
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # else a power cut may bring the old one back
    finally:
        os.close(folder)
