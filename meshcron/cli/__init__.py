"""The command line. `main` is the console script; the nouns beside this file are loaded when their command is used."""

from __future__ import annotations


def main() -> None:
    """Run the command line on `sys.argv` and exit with its code (docs/CLI.md, Exit codes)."""
    from meshcron.cli.root import root  # noqa: PLC0415 - `import meshcron.cli` alone must not cost click

    root.main(prog_name="meshcron")
