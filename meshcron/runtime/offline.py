"""What an operator does to a data directory while its agent is down: go on alone, or with what is whole of it.

Either leaves a marker, by which the next start opens a new generation and records what may be lost (PROTOCOL 2).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from meshcron.errors import StartRefused
from meshcron.files import LOCAL_FILE
from meshcron.messages import GateMessage, Welcome, generation_number
from meshcron.model import SECOND_US
from meshcron.net.keys import ClusterKey, find_key
from meshcron.runtime import clock, set_aside
from meshcron.runtime.credentials import new_identity
from meshcron.runtime.markers import RECOVERED_FILE, Recovery, begin_recovery, recovery
from meshcron.runtime.recovery import Held, Inquiry, held, why_not
from meshcron.store.directory import NODE_FILE, DataDirectory, machine_id
from meshcron.store.log import LogBase
from meshcron.store.refusals import words
from meshcron.store.salvage import salvage as salvage_files
from meshcron.store.store import Store
from meshcron.values import Address


def recover(folder: Path, key_file: Path | None, join: Sequence[Address], interfaces: tuple[str, ...] | None) -> str:
    """The majority of the voters is gone for good, the agent of this directory goes on alone with all that it holds.
    `join`, `interfaces`: where others are asked first; None = mDNS is not listened to. Returns what to tell the
    operator; raises StartRefused with the remedy while others can go on."""
    _refuse_unused(folder)
    if (folder / RECOVERED_FILE).exists():
        raise StartRefused(f'{folder}: a recovery has begun already; start the agent with "meshcron up"')
    store = Store(folder, machine_id())
    try:
        store.directory.lock()
        ours = held(store.open(new_identity), store.identity.node_id)
        key = find_key(key_file, folder, os.environ)
        if key is None:
            raise StartRefused(f"{folder}: without the cluster key nobody can be asked; give it with --key-file")
        answers = asyncio.run(_ask_survivors(ours, store, key.key, join, interfaces))
        if why := why_not(ours, answers):
            raise StartRefused(f"nothing was changed: {why}")
        begin_recovery(folder, Recovery("alone"))
    except OSError as error:
        raise StartRefused(words(error, folder)) from error
    finally:
        store.close()
    return "\n".join(_recovered_lines(ours, answers))


async def _ask_survivors(
    ours: Held, store: Store, key: ClusterKey, join: Sequence[Address], interfaces: tuple[str, ...] | None
) -> list[GateMessage]:
    """What all that can be reached say of their cluster."""
    inquiry = Inquiry(ours, store.identity.public_key, store.start, key)
    return await inquiry.ask([(address.host, address.port) for address in join], interfaces)


def _recovered_lines(ours: Held, answers: Sequence[GateMessage]) -> list[str]:
    reached = {ours.node_id, *(one.profile.node_id for one in answers if isinstance(one, Welcome))}
    silent = sorted(name for node_id, name in ours.names.items() if node_id not in reached)
    number = generation_number(ours.next_generation)
    lines = [f"generation {number}: the cluster goes on from this agent alone, with its log up to entry {ours.last[1]}"]
    if silent:
        lines.append(f"not reached: {', '.join(silent)}; if one of them still works, this was a mistake")
    lines.append("what is open, and each tick since the last one decided, will be recorded as lost")
    lines.append('start the agent with "meshcron up"; other agents then join it as new ones, and vote')
    return lines


def salvage(folder: Path) -> str:
    """Set a damaged database aside and go on with what is whole, under a new node id. Returns what to tell the
    operator; raises StartRefused where an agent uses the directory or too little is left."""
    directory = DataDirectory(folder, machine_id())
    _refuse_unused(folder)
    directory.lock()
    try:
        label = str(clock.wall_clock_us() // SECOND_US)
        before = _begun(folder)
        # First: a crash or a full disk in between must not let the agent go on as if nothing were lost.
        begin_recovery(folder, Recovery("salvaged"))
        try:
            report = salvage_files(folder, label, _applied_entry)
        except StartRefused:
            if before is None:
                (folder / RECOVERED_FILE).unlink()
            else:
                begin_recovery(folder, before)
            raise
        directory.rename(new_identity())
        (folder / LOCAL_FILE).unlink(missing_ok=True)  # it was the old node id's
    except OSError as error:
        raise StartRefused(words(error, folder)) from error
    finally:
        directory.close()
    lines = [f"salvaged {folder}: the log goes on after entry {report.last.index}"]
    lines.append(f"at most {report.entries_lost_max} acknowledged entries are gone; open runs are recorded as lost")
    if report.incomplete:
        lines.append(f"rows are missing from: {', '.join(report.incomplete)}")
    lines.append(f"the damaged files stay beside it: {', '.join(report.set_aside)}")
    lines.append('start the agent again with "meshcron up"')
    return "\n".join(lines)


def _begun(folder: Path) -> Recovery | None:
    """What an earlier recovery, salvage or adoption has left to be recorded: a refusal takes nothing of it back."""
    try:
        return recovery(folder)
    except StartRefused:
        return Recovery("salvaged")  # garbled: it says no less than that


def _refuse_unused(folder: Path) -> None:
    """Raises StartRefused where no agent has lived, or what it left is on its way elsewhere."""
    if not (folder / NODE_FILE).exists():
        raise StartRefused(f"{folder}: no agent has ever run here; give its folder with --data-dir")
    if set_aside.is_begun(folder):
        raise StartRefused(f'{folder}: its database is being set aside; start the agent with "meshcron up"')


def _applied_entry(meta: dict[str, str]) -> LogBase:
    """The entry that the catalog's rows stand for. Raises KeyError, ValueError."""
    index, term, crc = meta["applied"].split()
    return LogBase(int(index), int(term), int(crc))
