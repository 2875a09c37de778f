"""What is left in a data directory for its next start."""

from __future__ import annotations

from pathlib import Path

from meshcron.runtime.credentials import LOCAL_FILE
from meshcron.runtime.markers import RECOVERED_FILE, begin_recovery, drawn_identity
from meshcron.store.directory import NODE_FILE


def test_an_adopted_folder_is_recovered(tmp_path: Path) -> None:
    """What it holds may be behind: the mark stands before the new identity does. A first start recovers nothing."""
    first = drawn_identity(tmp_path)
    assert not (tmp_path / RECOVERED_FILE).exists()
    (tmp_path / NODE_FILE).write_text("{}")
    (tmp_path / LOCAL_FILE).write_text("token of the old node id")
    assert drawn_identity(tmp_path).node_id != first.node_id
    assert (tmp_path / RECOVERED_FILE).exists()
    assert not (tmp_path / LOCAL_FILE).exists()


def test_a_recovery_can_begin_twice(tmp_path: Path) -> None:
    """A start that died in between is done again."""
    begin_recovery(tmp_path, "former")
    begin_recovery(tmp_path, "former")
    assert (tmp_path / RECOVERED_FILE).stat().st_mode & 0o777 == 0o600
