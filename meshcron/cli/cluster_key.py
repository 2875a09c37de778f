"""Commands about the cluster key: key show, key new. They read and write this machine's files and ask no agent: one
that runs has written down which key it has."""

from __future__ import annotations

import os
import secrets
import shlex
from pathlib import Path
from typing import Any

import click

from meshcron import config
from meshcron.cli.agent import load, option
from meshcron.cli.failures import NOT_FOUND, USAGE, Failure
from meshcron.cli.local import Record, recorded
from meshcron.cli.options import prints
from meshcron.cli.screen import Screen
from meshcron.net.keys import SECRET_BYTES, VARIABLE, ClusterKey, FoundKey, find_key

SHOW_KEYS = ("config", "data_dir", "key_file")
"""What says where the key lies."""


@click.group()
def key() -> None:
    """Show or make the cluster key.

    The key is the one secret that lets a machine join: MESHCRON_KEY, --key-file, /etc/meshcron/cluster.key, or
    cluster.key in the data directory.
    """


@key.command()
@click.option("--secret", is_flag=True, help="Print the key itself, and nothing else.")
@prints
def show(screen: Screen, /, secret: bool, **flags: Any) -> None:
    """Show the fingerprint of this machine's cluster key.

    It is looked for as a start does. Refused where the agent that runs here has another one.
    """
    settings = load(flags)
    found = find_key(settings.key_file, settings.data_dir, os.environ)
    _refuse_another(found, recorded(settings.data_dir))
    if found is None:
        raise Failure(
            f'no cluster key in {settings.data_dir}; a first "meshcron up" makes one, "meshcron key new" too', NOT_FOUND
        )
    if screen.as_json:
        more = {"key": found.key.text} if secret else {}
        screen.data({"fingerprint": found.key.fingerprint, "source": found.source, **more})
    elif secret:
        screen.line(found.key.text)
    else:
        screen.fields([("fingerprint", found.key.fingerprint), ("read from", found.source)])


def _refuse_another(found: FoundKey | None, agent: Record) -> None:
    """A machine that were given it would find nobody. Raises Failure where the living agent has another key."""
    ours = found.key.fingerprint if found else ""
    if not agent.runs or not agent.fingerprint or ours == agent.fingerprint:
        return
    what = f"{found.source} holds another key ({ours})" if found else f"no cluster key in {agent.folder}"
    if agent.key_from == VARIABLE:
        remedy = f"it was started with {VARIABLE}: set it to that key, or ask another machine"
    elif found and Path(found.source).absolute() == Path(agent.key_from):
        remedy = "the file was changed since its start: ask another machine"
    else:
        unset = f"unset {VARIABLE}; " if found and found.source == VARIABLE else ""
        remedy = f"{unset}meshcron key show --key-file {shlex.quote(agent.key_from)}"
    raise Failure(f"{what}, and the agent that runs here has {agent.fingerprint}; {remedy}", NOT_FOUND)


@key.command()
@click.option("--file", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write it there (mode 0600).")
@prints
def new(screen: Screen, file: Path | None) -> None:
    """Make a new cluster key and print it.

    It is not put to use: give it to each machine as MESHCRON_KEY or --key-file.
    """
    made = ClusterKey(secrets.token_bytes(SECRET_BYTES))
    if file is not None:
        _write(file, made)
    if screen.as_json:
        where = {"file": str(file)} if file else {"key": made.text}
        screen.data({"fingerprint": made.fingerprint, **where})
    elif file is not None:
        screen.line(f"wrote {file} (fingerprint {made.fingerprint}); meshcron up --key-file {file}")
    else:
        screen.line(made.text)


def _write(file: Path, made: ClusterKey) -> None:
    """Readable for its owner only from its first moment on, and never over another key."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Failure(f"{file} exists; a key is never overwritten, name another file", USAGE) from None
    except OSError as error:
        raise Failure(f"cannot write {file} ({error.strerror}); name another file", USAGE) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(made.text + "\n")
        stream.flush()
        os.fsync(stream.fileno())


show.params.extend(option(config.KEYS[name]) for name in SHOW_KEYS)
