"""What an operator does to a directory, and what a refusal leaves of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshcron.errors import StartRefused
from meshcron.runtime import markers, offline
from meshcron.runtime.markers import RECOVERED_FILE, Recovery
from meshcron.store.directory import NODE_FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An agent has lived here; its database is gone."""
    (tmp_path / NODE_FILE).touch()
    return tmp_path


def test_a_salvage_that_is_refused_marks_nothing(folder: Path) -> None:
    """There was nothing to record before."""
    with pytest.raises(StartRefused, match="nothing to salvage"):
        offline.salvage(folder)
    assert markers.recovery(folder) is None


def test_a_salvage_that_is_refused_forgets_nothing(folder: Path) -> None:
    """An adoption was begun: what it may have lost is recorded all the same. So where the marker is garbled."""
    begun = Recovery("adopted", ("former",), 7)
    markers.begin_recovery(folder, begun)
    with pytest.raises(StartRefused, match="nothing to salvage"):
        offline.salvage(folder)
    assert markers.recovery(folder) == begun
    (folder / RECOVERED_FILE).write_text("garbled")
    with pytest.raises(StartRefused, match="nothing to salvage"):
        offline.salvage(folder)
    assert markers.recovery(folder) == Recovery("salvaged")
