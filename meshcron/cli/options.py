"""Options that many commands share, each defined once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click
from click.shell_completion import CompletionItem

from meshcron.cli.client import Client, url_path
from meshcron.cli.failures import Failure
from meshcron.cli.local import Given, find, find_again
from meshcron.cli.screen import Screen
from meshcron.errors import MeshcronError

P = ParamSpec("P")

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

DATA_DIR = click.option(
    "--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="The agent's data directory (found by itself)."
)


def talks(command: Callable[Concatenate[Client, P], None]) -> Callable[P, None]:
    """Give a command its Client as first argument, found by --url, --token-file and --data-dir."""

    @wraps(command)
    def with_client(connect: Callable[[], Client], /, *args: P.args, **kwargs: P.kwargs) -> None:
        command(connect(), *args, **kwargs)

    return may_talk(with_client)


def may_talk(command: Callable[Concatenate[Callable[[], Client], P], None]) -> Callable[P, None]:
    """Give a command that does not always need an agent what finds one, as first argument; the options of `talks`."""

    @wraps(command)
    def with_connect(*args: P.args, **kwargs: P.kwargs) -> None:
        given = Given(
            url=_taken(kwargs, "url"),
            token_file=_taken(kwargs, "token_file"),
            data_dir=_taken(kwargs, "data_dir"),
            environment=os.environ,
        )
        command(lambda: Client(find(given), lambda before: find_again(given, before)), *args, **kwargs)

    options = (
        click.option("--url", metavar="URL", help="The agent to talk to (MESHCRON_URL; the one on this machine)."),
        click.option(
            "--token-file", metavar="FILE", type=click.Path(path_type=Path), help="File with a token (MESHCRON_TOKEN)."
        ),
        DATA_DIR,
    )
    return _all(options, with_connect)


def prints(command: Callable[Concatenate[Screen, P], None]) -> Callable[P, None]:
    """Give a command its Screen as first argument, by --json and --utc."""

    @wraps(command)
    def with_screen(*args: P.args, **kwargs: P.kwargs) -> None:
        screen = Screen(
            as_json=bool(_taken(kwargs, "as_json")),
            utc=bool(_taken(kwargs, "utc")),
            now_us=time.time_ns() // 1000,
        )
        command(screen, *args, **kwargs)

    options = (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API answers it."),
        click.option("--utc", is_flag=True, help="Show times in UTC, not in this machine's zone."),
    )
    return _all(options, with_screen)


def pair(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Click callback: repeated `K=V` as a dict; the last of a key wins."""
    found: dict[str, str] = {}
    for value in values:
        key, equals, content = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f'"{value}" is not K=V', ctx, param)
        found[key] = content
    return found


def filled(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Click callback: names or IDs as given, none of them empty, as a script's unset variable makes them."""
    if "" in (value if isinstance(value, tuple) else (value,)):
        hint = (param.metavar or param.human_readable_name).strip("[].")
        raise click.BadParameter("it is empty", ctx, param, hint)
    return value


def job_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Shell completion: the jobs of the cluster; nothing where no agent answers."""
    given = Given(ctx.params.get("url"), ctx.params.get("token_file"), ctx.params.get("data_dir"), os.environ)
    try:
        jobs = Client(find(given)).get(url_path("jobs"))
    except (Failure, MeshcronError):
        return []
    return [
        CompletionItem(job["name"], help=str(job["schedule"])) for job in jobs if job["name"].startswith(incomplete)
    ]


NAME = click.argument("name", callback=filled, shell_complete=job_names)
ID = click.argument("execution_id", metavar="[ID]", required=False, callback=filled)


def _taken(kwargs: dict[str, Any], name: str) -> Any:
    return kwargs.pop(name)


def _all(
    options: tuple[Callable[[Callable[P, None]], Callable[P, None]], ...], command: Callable[P, None]
) -> Callable[P, None]:
    for option in reversed(options):
        command = option(command)
    return command
