"""Commands that are the agent itself: up, recover. Their options are config.py's table of keys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click

from meshcron import config
from meshcron.cli.options import prints
from meshcron.cli.screen import Screen
from meshcron.config import KEYS, Config, Key

RECOVER_KEYS = "config data_dir name key_file join no_mdns mdns_interface log_level log_format".split()
"""What an offline recovery reads: where the data lies, whom to ask, and how to say what it finds."""


def option(key: Key) -> click.Option:
    """The flag of one key. Values reach config.py as typed, which reads them as it reads a file's."""
    default = key.written_default
    shown = f"{key.help} (repeatable)" if key.repeatable else key.help
    if default and not key.switch:
        shown += f" [default: {default}]"
    if key.switch:
        return click.Option([key.flag, key.name], is_flag=True, default=None, help=shown)
    return click.Option([key.flag, key.name], metavar=key.metavar, multiple=key.repeatable, help=shown)


def load(flags: dict[str, Any]) -> Config:
    """The configuration of this command line. Raises InvalidRequest, StartRefused."""
    return config.load(flags, os.environ, config.config_files(flags, os.environ))


def _with_keys(command: click.Command, keys: Iterable[Key]) -> click.Command:
    command.params.extend(option(key) for key in keys)
    return command


@click.command(epilog="Each flag is also a key of the file (with _ for -) and a variable (MESHCRON_GATE_PORT).")
@click.pass_context
def up(ctx: click.Context, /, **flags: Any) -> None:
    """Start an agent on this machine and stay in the foreground.

    Without a key and without --join a first start makes a key, forms a cluster of one, and prints the line that a
    second machine types. TERM ends it gracefully, a second TERM at once; HUP reads the tags again.
    """
    settings = load(flags)
    from meshcron.main import run  # noqa: PLC0415 - brings in all of the agent, which --help must not wait for

    ctx.exit(run(settings, lambda: load(flags)))


@click.command()
@click.option("--salvage", is_flag=True, help="Set damaged files aside and go on with the part that is whole.")
@prints
def recover(screen: Screen, /, salvage: bool, **flags: Any) -> None:
    """Bring back a cluster without its majority, or an agent with a damaged database.

    Works offline, on this machine's data directory, while its agent is down. Without --salvage this agent goes on
    alone with all that it holds, because the majority of the voters is gone for good; the others are asked first, and
    it is refused while they can go on or know more.
    Nothing is deleted: damaged files are set aside, and what may be missing is recorded as lost.
    """
    settings = load(flags)
    from meshcron.main import recover as go_on_alone  # noqa: PLC0415 - as in `up`
    from meshcron.main import salvage as salvage_files  # noqa: PLC0415 - as in `up`

    told = salvage_files(settings) if salvage else go_on_alone(settings)
    if screen.as_json:
        screen.data({"report": told.splitlines()})
    else:
        click.echo(told)


_with_keys(up, KEYS.values())
_with_keys(recover, (KEYS[name] for name in RECOVER_KEYS))
