"""What main does besides building things: a key where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshcron.config import Config, Machine, load
from meshcron.main import Process
from meshcron.net import keys


def config(folder: Path) -> Config:
    return load({}, {}, [], Machine("one", folder))


def test_only_a_key_made_now_invites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start finds none and makes one; the second finds it."""
    monkeypatch.delenv("MESHCRON_KEY", raising=False)
    monkeypatch.setattr(keys, "SYSTEM_FILE", tmp_path / "none")
    first, second = (Process(config(tmp_path), lambda: config(tmp_path)) for _ in range(2))
    assert first._found_key() is None
    made = first._new_key()
    assert "another machine" in first._invitation
    assert second._found_key() == made == (made.key, str(tmp_path / "cluster.key"))
