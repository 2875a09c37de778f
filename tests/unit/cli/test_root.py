"""The command itself: help, versions, wrong words, and what a failure looks like."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from meshcron.cli.root import ALIASES, COMMANDS, root

HEAVY = ("tornado", "zmq", "zeroconf", "asyncio", "msgspec", "croniter", "http.client")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_the_table_is_the_commands_own(name: str) -> None:
    """The list that stands in for the commands until they are loaded says what they say."""
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name].help


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_every_command_has_help(cli: Any, name: str) -> None:
    """`meshcron X --help` works for every X, also for an alias."""
    result = cli(name, "--help")
    assert result.exit_code == 0
    assert "Usage: meshcron" in result.stdout
    assert "\\b" not in result.stdout


def leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with what one types for it."""
    ctx = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from leaves(found, f"{path} {name}")
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield path.strip(), command


@pytest.mark.parametrize(
    ("path", "command"), list(leaves(root)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_prints_json(path: str, command: click.Command) -> None:
    """All but the agent itself, which writes a log."""
    assert any("--json" in option.opts for option in command.params) is (path != "up")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["lst"], 'meshcron: no command "lst", did you mean "ls"?; see "meshcron --help"'),
        (["agnt"], 'meshcron: no command "agnt", did you mean "agent"?; see "meshcron --help"'),
        (["xyzzy"], 'meshcron: no command "xyzzy"; see "meshcron --help"'),
        (["token", "lst"], 'meshcron: no command "lst", did you mean "list"?; see "meshcron token --help"'),
        (["--verson"], 'meshcron: no option "--verson", did you mean "--version"?; see "meshcron --help"'),
        (["ls", "--jsn"], 'meshcron: no option "--jsn", did you mean "--json"?; see "meshcron ls --help"'),
        (
            ["up", "--gate-prt", "1"],
            'meshcron: no option "--gate-prt", did you mean "--gate-port"?; see "meshcron up --help"',
        ),
        (["show"], 'meshcron: missing argument "NAME"; see "meshcron show --help"'),
        (["ls", "--tag", "web"], 'meshcron: invalid value for "--tag": "web" is not K=V; see "meshcron ls --help"'),
    ],
)
def test_wrong_words_end_in_one_line(cli: Any, args: list[str], line: str) -> None:
    """A wrong command line exits with 2, says what was meant and where to read on, and prints nothing to stdout."""
    result = cli(*args)
    assert result.exit_code == 2
    assert result.stderr == line + "\n"
    assert result.stdout == ""


def test_no_command_shows_the_help(cli: Any) -> None:
    """`meshcron` alone is a wrong command line, answered with all the right ones."""
    result = cli()
    assert result.exit_code == 2
    assert "Start an agent on this machine" in result.stderr


def test_versions(cli: Any) -> None:
    """A bug report needs the versions of everything that talks to the network."""
    result = cli("--version")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "meshcron",
        "Python",
        "pyzmq",
        "libzmq",
        "tornado",
    ]


def test_a_defect_is_one_line(cli: Any, agent: Any) -> None:
    """An answer nobody foresaw ends in a line to report, not in a traceback."""
    agent.members = [{"Nme": "x"}]
    result = cli("members")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "meshcron: a defect of meshcron, please report it: KeyError: 'Name' (meshcron.cli.cl"
    )
    assert result.stderr.count("\n") == 1


def test_a_reader_that_goes_ends_quietly() -> None:
    """`meshcron --help | head -1`: no complaint about the closed pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "meshcron", "explain", "@daily", "-n", "1000"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(writer)
    assert ended.stderr == b""
    assert ended.returncode == 1


@pytest.mark.parametrize("words", ["explain @daily", "explain @daily --json", "--help", "--version"])
def test_output_that_cannot_be_written_is_said_in_one_line(words: str) -> None:
    """The disk is full: that is nobody's defect, and no success."""
    command = [sys.executable, "-m", "meshcron", *words.split()]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
        assert (ended.returncode, ended.stderr) == (1, "meshcron: cannot write: No space left on device\n")
        silent = subprocess.run(command, stdout=full, stderr=full, timeout=20, check=False)
        assert silent.returncode == 1


@pytest.mark.parametrize("words", ["explain @daily", "explain @daily --json", "--help"])
def test_closed_output_is_no_defect(words: str) -> None:
    """`>&-`: nobody wants to know."""
    command = ["/bin/sh", "-c", '"$@" <&- >&-', "sh", sys.executable, "-m", "meshcron", *words.split()]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_loads_nothing_heavy() -> None:
    """`meshcron --help` costs click and nothing else: that is what keeps it under 0.15 s."""
    script = "import sys\nfrom meshcron.cli.root import root\ntry:\n root.main(['--help'])\nexcept SystemExit: pass\n"
    script += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _run(script).splitlines()[-1] == "[]"


def test_a_client_command_loads_no_part_of_the_agent(agent: Any) -> None:
    """Commands that only ask the API need neither tornado nor zmq."""
    script = "import sys\nfrom meshcron.cli.root import root\ntry:\n root.main(['ls'])\nexcept SystemExit: pass\n"
    script += "print([name for name in ('tornado', 'zmq', 'zeroconf', 'asyncio') if name in sys.modules])"
    assert _run(script, MESHCRON_URL=agent.url, MESHCRON_TOKEN=agent.token).splitlines()[-1] == "[]"


def _run(script: str, **env: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        env={**os.environ, **env},
    )
    return ended.stdout


def test_the_manual_names_every_command_and_option() -> None:
    """docs/CLI.md has each command and each long option; those of `up` are the configuration's own."""
    manual = (Path(__file__).parents[3] / "docs" / "CLI.md").read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if f"`{name}" not in manual]
    for name in COMMANDS.keys() - {"up", "recover"}:
        command = root.get_command(click.Context(root), name)
        assert command is not None
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        options = {
            option for leaf in leaves for param in leaf.params for option in [*param.opts, *param.secondary_opts]
        }
        missing += [f"{name} {option}" for option in options if option.startswith("--") and option not in manual]
    assert missing == []
