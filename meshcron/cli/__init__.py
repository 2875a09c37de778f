"""The command line. `main` is the console script; the nouns beside this file are loaded when their command is used."""

from __future__ import annotations

import sys

AGENT_WORDS = frozenset({"up", "agent"})
"""The command that is an agent itself: `root` takes these and nothing before them."""


def main() -> None:
    """Run the command line on `sys.argv` and exit with its code (docs/CLI.md, Exit codes)."""
    if sys.argv[1:2] and sys.argv[1] in AGENT_WORDS:
        from meshcron import hangup  # noqa: PLC0415 - nor anything else; and this before all that takes time

        hangup.hold()
    from meshcron.cli.root import root  # noqa: PLC0415 - `import meshcron.cli` alone must not cost click

    root.main(prog_name="meshcron")
