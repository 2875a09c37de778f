"""The agent with a log that forgets early, so that whoever was away for half a minute needs a snapshot.
`python -m tests.integration.mesh.short_logs up ...` is its command line."""

from __future__ import annotations

from meshcron.cli import main
from meshcron.core import log

KEPT_ENTRIES = 20

if __name__ == "__main__":
    log.KEPT_ENTRIES = KEPT_ENTRIES
    main()
