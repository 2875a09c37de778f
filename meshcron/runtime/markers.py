"""What is left in a data directory for its next start: that something of it may be lost, that it is a copy of another.

A directory with such a marker may be that of a cluster which goes on elsewhere: then its database is set aside
(set_aside.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from meshcron.core.agent import Agent
from meshcron.errors import StartRefused
from meshcron.files import LOCAL_FILE
from meshcron.rows import Loaded, MarkRow
from meshcron.runtime.credentials import new_identity, write_private
from meshcron.runtime.recovery import held
from meshcron.store.directory import COPY_FILE, NODE_FILE, Identity

RECOVERED_FILE = "recovered"
"""Stands in the data directory from a recovery, a salvage or an adoption until the agent has recorded what was lost."""


class Recovery(Struct, frozen=True):
    """What that file says."""

    why: Literal["alone", "salvaged", "adopted"]
    """`alone`: an operator's word that the others that vote are gone for good."""
    formers: tuple[str, ...] = ()
    """The node ids under which an adopted directory may have voted."""
    generation: int = 0
    """The one that the first start has chosen to open; whenever that dies, the next opens the same. 0 = none yet."""


def recovery(folder: Path) -> Recovery | None:
    """What has been begun and not recorded. Raises OSError, StartRefused."""
    file = folder / RECOVERED_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Recovery)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StartRefused(f'{file} is garbled; "meshcron recover --salvage" writes it anew') from None


def begin_recovery(folder: Path, begun: Recovery) -> None:
    """The next start has to record what may be lost; durable when this returns. Raises OSError."""
    write_private(folder / RECOVERED_FILE, msgspec.json.encode(begun).decode() + "\n")


def drawn_identity(folder: Path) -> Identity:
    """A new one: at a first start, and where a directory is adopted. What that one holds may be behind, as after a
    salvage; and its old identity may live on elsewhere. Raises OSError, StartRefused."""
    if (file := folder / NODE_FILE).exists():
        former = str(json.loads(file.read_text()).get("identity", {}).get("node_id", ""))
        begun = recovery(folder)
        begin_recovery(folder, Recovery("adopted", (*(begun.formers if begun else ()), former)))
        (folder / LOCAL_FILE).unlink(missing_ok=True)  # it was the old node id's
    return new_identity()


def opened_generation(folder: Path, loaded: Loaded, node_id: str) -> int:
    """The generation that this start opens, because something may be lost; 0 = none. Written down before anything is
    opened, so that starts that are killed on the way open one in all. Raises OSError, StartRefused."""
    begun = recovery(folder)
    if "cluster" not in loaded.meta or begun is None:
        return 0
    if not begun.generation:
        begun = replace(begun, generation=held(loaded, node_id).next_generation)
        begin_recovery(folder, begun)
    return begun.generation


def votes_elsewhere(folder: Path, loaded: Loaded) -> bool:
    """Whether an adopted or salvaged directory is that of a cluster in which others vote: going on with it here would
    be a second cluster with the same jobs. Raises OSError, StartRefused."""
    begun = recovery(folder)
    if begun is None or begun.why == "alone":
        return False
    voters = {member.node_id for member in loaded.members if member.voter}
    return bool(voters - set(begun.formers)) if begun.why == "adopted" else len(voters) > 1


def as_itself(folder: Path, loaded: Loaded) -> Loaded:
    """Without what an adopted or salvaged directory of no cluster's log has obeyed: that was under another node id. Of
    this one there is no order yet, and it was removed from nowhere. Raises OSError, StartRefused."""
    begun = recovery(folder)
    if "cluster" in loaded.meta or begun is None or begun.why == "alone":
        return loaded
    return replace(loaded, mark=MarkRow(0, 0, 0))


def mark_copy(folder: Path, agent: Agent) -> None:
    """Remember that the others know this directory for a copy: --adopt-data-dir then counts, wherever it lies."""
    if agent.is_copy:
        (folder / COPY_FILE).touch(mode=0o600)


def drop(folder: Path) -> None:
    """The agent is what it seemed to be: what an earlier start left for this one is done."""
    for name in (COPY_FILE, RECOVERED_FILE):
        (folder / name).unlink(missing_ok=True)
