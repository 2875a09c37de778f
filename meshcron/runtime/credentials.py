"""What a fresh agent draws: who it is, its key, and the tokens for its operator and for the command line on its own
machine (API.md, Who may). And what it keeps of a key that it was given."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
from collections.abc import Callable
from pathlib import Path

import structlog

from meshcron.errors import StartRefused
from meshcron.files import LOCAL_FILE
from meshcron.model import Token
from meshcron.net.keys import FILE_NAME, SYSTEM_FILE, VARIABLE, ClusterKey, FoundKey, new_curve_pair, read_key
from meshcron.runtime import clock
from meshcron.store.directory import NODE_FILE, Identity

ADMIN_FILE = "admin.token"
TOKEN_BYTES = 32

log = structlog.get_logger("meshcron")


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


def refuse_new_key(folder: Path, *, joins: bool) -> None:
    """With a new key an agent would be alone for good, and say "ready". Raises StartRefused where others have one: an
    earlier start of this agent has had one, or it `joins` what is there."""
    if joins:
        why = "`join` names a cluster, and its key is not here"
    elif _has_had_a_key(folder):
        why = f"{folder} is that of an agent which has a cluster, and its key is not here"
    else:
        return
    raise StartRefused(
        f"{why}: put it into {SYSTEM_FILE} (mode 0600), or set {VARIABLE}; "
        "`meshcron key show --secret` prints it on another machine"
    )


def _has_had_a_key(folder: Path) -> bool:
    """A start draws its token once it has a key. A first one that died before that is gone on with, though node.json is
    there; and whatever takes the token away (adoption, salvage, a database set aside) keeps the old node.json."""
    return (folder / LOCAL_FILE).exists() or any(folder.glob(f"{NODE_FILE}.old-*"))


def keep_key(found: FoundKey, folder: Path) -> None:
    """The next start finds a key that MESHCRON_KEY gave, without the variable. Another one that is kept already stays,
    and a line of the log says which of the two counts. Raises OSError."""
    file = folder / FILE_NAME
    if file.exists():
        if not _holds(file, found.key):
            log.warning(
                "the cluster key that was given counts, not the other one that is kept: take the wrong one away",
                given=found.source,
                kept=str(file),
            )
    elif found.source == VARIABLE:
        write_private(file, found.key.text + "\n")


def _holds(file: Path, key: ClusterKey) -> bool:
    try:
        return read_key(file) == key
    except StartRefused:
        return False


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
    prepare_private(file, text)()


def prepare_private(file: Path, text: str) -> Callable[[], None]:
    """The same in two steps: its room on the disk is taken when this returns; what it returns puts it in its place, and
    takes no more. Both raise OSError."""
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())

    def show() -> None:
        fresh.rename(file)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # else a power cut may bring the old one back
        finally:
            os.close(folder)

    return show
