"""What is left in a data directory for its next start: that something of it may be lost, that it is a copy of another.

A directory with such a marker may be that of a cluster which goes on elsewhere: then its database is set aside.
"""

from __future__ import annotations

import json
from pathlib import Path

from meshcron.core.agent import Agent
from meshcron.model import SECOND_US
from meshcron.rows import Loaded
from meshcron.runtime import clock
from meshcron.runtime.credentials import ADMIN_FILE, LOCAL_FILE, new_identity, write_private
from meshcron.runtime.recovery import held
from meshcron.store.database import DATABASE
from meshcron.store.directory import COPY_FILE, NODE_FILE, DataDirectory, Identity, machine_id
from meshcron.store.store import HARD_STATE

RECOVERED_FILE = "recovered"
"""Stands in the data directory from a recovery, a salvage or an adoption until the agent has recorded what was lost."""

ALONE = "alone"
"""Its first word after a recovery: the others that vote are gone for good."""

ADOPTED = "adopted"
"""Its first word after an adoption; the second is the node id that the directory had."""


def drawn_identity(folder: Path) -> Identity:
    """A new one: at a first start, and where a directory is adopted. What that one holds may be behind, as after a
    salvage; and its old identity may live on elsewhere. Raises OSError."""
    if (file := folder / NODE_FILE).exists():
        begin_recovery(folder, str(json.loads(file.read_text()).get("identity", {}).get("node_id", "")))
    return new_identity()


def begin_recovery(folder: Path, former: str) -> None:
    """The agent of this folder, whose node id was `former`, will go on under a new one, and has to record what may be
    lost. Raises OSError."""
    write_private(folder / RECOVERED_FILE, f"{ADOPTED} {former}\n")
    (folder / LOCAL_FILE).unlink(missing_ok=True)  # it was the old node id's


def opened_generation(folder: Path, loaded: Loaded, node_id: str) -> int:
    """The generation that this start opens, because something may be lost; 0 = none."""
    if "cluster" not in loaded.meta or not (folder / RECOVERED_FILE).exists():
        return 0
    return held(loaded, node_id).next_generation


def votes_elsewhere(folder: Path, loaded: Loaded) -> bool:
    """Whether an adopted or salvaged directory is that of a cluster in which others vote: going on with it here would
    be a second cluster with the same jobs."""
    marker = folder / RECOVERED_FILE
    if not marker.exists():
        return False
    word, _, former = marker.read_text(encoding="ascii").strip().partition(" ")
    if word == ALONE:
        return False
    voters = {member.node_id for member in loaded.members if member.voter}
    return bool(voters - {former}) if word == ADOPTED else len(voters) > 1


def set_aside(folder: Path) -> None:
    """The database of a cluster that is dissolved, or goes on without this agent, makes way for the one it joins. The
    node id goes with it: under it this agent has voted, and it must not vote again without that memory."""
    label = clock.wall_clock_us() // SECOND_US
    directory = DataDirectory(folder, machine_id())
    directory.lock()
    try:
        directory.rename(new_identity())
        for file in folder.iterdir():
            if file.name.startswith(DATABASE) or file.name in {HARD_STATE, ADMIN_FILE, LOCAL_FILE}:
                file.rename(file.with_name(f"dissolved-{label}-{file.name}"))
    finally:
        directory.close()
    (folder / RECOVERED_FILE).unlink(missing_ok=True)  # last: until then the next start sets aside what is left


def mark_copy(folder: Path, agent: Agent) -> None:
    """Remember that the others know this directory for a copy: --adopt-data-dir then counts, wherever it lies."""
    if agent.is_copy:
        (folder / COPY_FILE).touch(mode=0o600)


def drop(folder: Path) -> None:
    """The agent is what it seemed to be: what an earlier start left for this one is done."""
    for name in (RECOVERED_FILE, COPY_FILE):
        (folder / name).unlink(missing_ok=True)
