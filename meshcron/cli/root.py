"""The command `meshcron` itself: which commands there are, and how every failure reaches the person.

A command's file is imported when the command is used, so that `meshcron --help` costs click and nothing else; the one
line of help of each stands here for that reason (a test holds it to the command's own docstring).
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import click

from meshcron import __version__
from meshcron.cli import failures
from meshcron.errors import MeshcronError

WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What a write to standard output fails with, besides EPIPE. No file of a name is meant: those errors tell theirs."""

HELP_COLUMNS = 100
"""Widest help, as far as the terminal goes; longer lines are hard to follow."""


class Entry(NamedTuple):
    """Where a command lives (`module:attribute` under meshcron.cli) and its line in the help."""

    place: str
    help: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Jobs": {
        "add": Entry("add:add", "Add a job: what runs when, and where."),
        "ls": Entry("jobs:ls", "List the jobs, when each runs next and how it went last."),
        "show": Entry("jobs:show", "Show all that is known of one job."),
        "rm": Entry("jobs:rm", "Remove jobs and their history."),
        "toggle": Entry("jobs:toggle", "Disable an enabled job, enable a disabled one."),
        "enable": Entry("jobs:enable", "Let a job run on its schedule."),
        "disable": Entry("jobs:disable", "Keep a job from running on its schedule."),
        "next": Entry("schedules:next_", "Show when a job or a schedule fires next."),
        "explain": Entry("schedules:explain", "Say in words what a schedule means."),
    },
    "Runs": {
        "run": Entry("run:run", "Run a job now."),
        "kill": Entry("executions:kill", "Kill what runs of a job."),
        "history": Entry("executions:history", "List what ran, newest first."),
        "output": Entry("executions:output", "Print what an execution wrote."),
    },
    "Cluster": {
        "status": Entry("cluster:status", "Show this agent and its place in the cluster."),
        "members": Entry("cluster:members", "List the agents of the cluster."),
        "leave": Entry("cluster:leave", "Take the agent on this machine out of its cluster for good."),
        "token": Entry("tokens:token", "Manage the keys to the API."),
    },
    "This machine": {
        "up": Entry("agent:up", "Start an agent on this machine and stay in the foreground."),
        "key": Entry("cluster_key:key", "Show or make the cluster key."),
        "recover": Entry(
            "agent:recover", "Bring back a cluster without its majority, or an agent with a damaged database."
        ),
    },
}
"""Every command, in the order of the help."""

ALIASES = {"agent": "up"}
"""Words that work and are not listed."""

COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Root(click.Group):
    """The group of all commands: loads them late, suggests the nearest, ends every failure in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command, None when there is none of that name."""
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command = getattr(importlib.import_module(f"meshcron.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.place} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named, or an error with the nearest name (also of an alias)."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=[*COMMANDS, *ALIASES], ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The help's list of commands, by section, without importing any."""
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - click's signature; we always stand alone
        **extra: Any,
    ) -> Any:
        """Run and exit. Whatever happens below ends in one line on stderr and a code, never in a traceback.

        A reader that goes (`meshcron ls | head`) ends it in silence; that much click does.
        """
        extra.setdefault("color", False if os.environ.get("NO_COLOR") else None)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter must not end the command
                stream.reconfigure(errors="backslashreplace")
        sys.exit(self._code(args, prog_name, complete_var, extra))

    def _code(
        self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, extra: dict[str, Any]
    ) -> int:
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            return failures.USAGE
        except click.UsageError as error:
            return _complain(failures.usage_line(error), failures.USAGE)
        except click.ClickException as error:
            return _complain(error.format_message(), error.exit_code)
        except failures.Failure as error:
            return _complain(str(error), error.exit_code)
        except MeshcronError as error:
            failure = failures.from_error(error)
            return _complain(str(failure), failure.exit_code)
        except click.Abort:
            return failures.INTERRUPTED
        except OSError as error:
            if error.errno not in WRITE_ERRORS or error.filename is not None:
                return _complain(_defect(error), failures.JOB_FAILED)
            _give_up_output()
            return _complain(f"cannot write: {error.strerror}", failures.JOB_FAILED)
        except Exception as error:  # noqa: BLE001 - the outermost edge: a person gets a line, never a traceback
            return _complain(_defect(error), failures.JOB_FAILED)
        return code if isinstance(code, int) else 0


def _complain(message: str, code: int) -> int:
    with suppress(OSError):  # the code says it, too
        click.echo(click.style("meshcron:", fg="red") + " " + message, err=True)
    return code


def _give_up_output() -> None:
    """Let nothing be written any more: the interpreter would try what is left once more, and end with 120."""
    with suppress(OSError, ValueError):  # closed, or a test's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _defect(error: Exception) -> str:
    """An error nobody foresaw, with the place it came from, as one line for a report."""
    frame, place = error.__traceback__, ""
    while frame is not None:
        place = f"{frame.tb_frame.f_globals.get('__name__')}:{frame.tb_lineno}"
        frame = frame.tb_next
    return failures.one_line(f"a defect of meshcron, please report it: {type(error).__name__}: {error} ({place})")


def _versions(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's signature
    if not value or ctx.resilient_parsing:
        return
    import platform  # noqa: PLC0415 - only --version pays for these

    import tornado  # noqa: PLC0415
    import zmq  # noqa: PLC0415

    click.echo(f"meshcron {__version__}")
    click.echo(f"Python {platform.python_version()}")
    click.echo(f"pyzmq {zmq.pyzmq_version()}")
    click.echo(f"libzmq {zmq.zmq_version()}")
    click.echo(f"tornado {tornado.version}")
    ctx.exit()


@click.group(
    cls=Root,
    name="meshcron",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_versions, help="Print versions and exit."
)
def root() -> None:
    """Cron for a whole LAN: one key, nothing to configure.

    Start an agent with "meshcron up", add a job with "meshcron add hello '@every 10s' -- echo hello", and look at
    "meshcron ls". Every command has its own --help.
    """
