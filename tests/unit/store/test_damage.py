"""The error for damaged files."""

from __future__ import annotations

from pathlib import Path

from meshcron.errors import StartRefused
from meshcron.store.damage import damaged


def test_it_names_file_fault_and_remedy() -> None:
    """In one line that an operator can act on; it is a refusal to start, so main ends with 1."""
    error = damaged(Path("/var/lib/meshcron/database"), "page 3 is not as written")
    assert isinstance(error, StartRefused)
    assert str(error).startswith("/var/lib/meshcron/database: page 3 is not as written. Nothing was changed.")
    assert "`meshcron recover --salvage`" in str(error)
