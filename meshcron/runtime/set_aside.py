"""A database makes way: its cluster was dissolved or goes on without it, or it is damaged, or forgot what it promised.

Its files go into a folder of their own, one after the other, and the agent joins as a new one. What is to happen is
written down first: a start that finds it undone finishes it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from meshcron.errors import StartRefused
from meshcron.files import LOCAL_FILE
from meshcron.model import SECOND_US
from meshcron.runtime import clock, markers
from meshcron.runtime.credentials import ADMIN_FILE, new_identity, write_private
from meshcron.runtime.others import OTHERS_FILE
from meshcron.store.database import DATABASE
from meshcron.store.directory import DataDirectory, machine_id
from meshcron.store.files import PRIVATE_FOLDER_MODE, sync_folder
from meshcron.store.refusals import words
from meshcron.store.store import HARD_STATE

PLAN_FILE = "set-aside"
"""Stands in the data directory while files are on their way; ends beside them, to say why they lie there."""

log = structlog.get_logger("meshcron")


class Plan(Struct, frozen=True):
    """What that file says."""

    why: str
    folder: str
    """Where the files go, in the data directory."""
    node_id: str
    """Goes with them: under it this agent has voted, and it must not vote again without that memory."""


def begin(folder: Path, node_id: str, why: str) -> Path:
    """The agent of this folder, whose node id is `node_id`, joins anew: `finish` follows, at the next start if need be.
    Durable when this returns where the files will lie. Raises OSError."""
    stamp = datetime.fromtimestamp(clock.wall_clock_us() // SECOND_US, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (f"{PLAN_FILE}-{stamp}" + (f"-{n}" if n else "") for n in count())
    free = next(name for name in names if not (folder / name).exists())
    write_private(folder / PLAN_FILE, msgspec.json.encode(Plan(why, free, node_id)).decode() + "\n")
    return folder / free


def is_begun(folder: Path) -> bool:
    """Whether files may be missing that have been moved already."""
    return (folder / PLAN_FILE).exists()


def finish(folder: Path) -> None:
    """Do what was begun, or the rest of it. Raises StartRefused where the directory cannot be used."""
    directory = DataDirectory(folder, machine_id())
    try:
        if is_begun(folder):
            directory.lock()
            _finish(directory, msgspec.json.decode((folder / PLAN_FILE).read_bytes(), type=Plan))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StartRefused(f"{folder / PLAN_FILE} is garbled: put a new data directory in this one's place") from None
    except OSError as error:
        raise StartRefused(words(error, folder)) from error
    finally:
        directory.close()


def _finish(directory: DataDirectory, plan: Plan) -> None:
    folder, aside = directory.path, directory.path / plan.folder
    if directory.node_id == plan.node_id:
        directory.rename(new_identity())
    aside.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
    for file in sorted(folder.iterdir()):
        if file.name.startswith(DATABASE) or file.name in {HARD_STATE, ADMIN_FILE, LOCAL_FILE, OTHERS_FILE}:
            file.rename(aside / file.name)
    sync_folder(aside)
    markers.drop(folder)
    sync_folder(folder)
    (folder / PLAN_FILE).rename(aside / "why")  # last: until then the next start sets aside what is left
    sync_folder(folder)
    log.warning("the database was set aside, this agent joins as a new one", why=plan.why, folder=plan.folder)
