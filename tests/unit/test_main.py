"""What main does besides building things: reading the configuration again, adopting a folder, the line for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from meshcron.config import Config, Machine, load
from meshcron.core.events import TagsChanged
from meshcron.errors import InvalidRequest, StartRefused
from meshcron.main import RECOVERED_FILE, Process, begin_recovery, invitation
from meshcron.net import keys
from meshcron.net.keys import ClusterKey
from meshcron.runtime.credentials import LOCAL_FILE
from meshcron.store.directory import NODE_FILE


class Driver:
    """Remembers what the core was told."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def handle(self, event: object) -> None:
        self.events.append(event)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def config(folder: Path, **flags: object) -> Config:
    return load(flags, {}, [], Machine("one", folder))


def reloading(folder: Path, reread: Callable[[], Config]) -> tuple[Process, Driver]:
    """An agent's process that was started with the tag role=web, as it is once its driver is there."""
    process, driver = Process(config(folder, tag=("role=web",)), reread), Driver()
    process._driver = driver  # type: ignore[assignment]
    return process, driver


def test_new_tags_reach_the_core(tmp_path: Path, logs: list[Any]) -> None:
    """They are told to it and said in the log."""
    process, driver = reloading(tmp_path, lambda: config(tmp_path, tag=("zone=a", "role=db")))
    process._hang_up()
    assert driver.events == [TagsChanged({"zone": "a", "role": "db"})]
    assert [(line["log_level"], line["tags"]) for line in logs] == [("info", "role=db, zone=a")]
    assert "need_a_restart" not in logs[0]


def test_what_needs_a_restart_is_said(tmp_path: Path, logs: list[Any]) -> None:
    """Other keys that changed are named, each time, until the agent is started anew; the tags count already."""
    process, driver = reloading(tmp_path, lambda: config(tmp_path, slots="5", log_level="debug"))
    for _ in range(2):
        process._hang_up()
    assert driver.events == [TagsChanged({})] * 2
    assert [line["need_a_restart"] for line in logs] == ["slots, log_level"] * 2


@pytest.mark.parametrize("error", [InvalidRequest("tag", "is wrong"), StartRefused("meshcron.toml is not TOML")])
def test_a_wrong_configuration_changes_nothing(tmp_path: Path, logs: list[Any], error: Exception) -> None:
    """One line says what is wrong."""

    def reread() -> Config:
        raise error

    process, driver = reloading(tmp_path, reread)
    process._hang_up()
    assert driver.events == []
    assert [(line["log_level"], line["why"]) for line in logs] == [("warning", str(error))]


def test_hup_while_it_starts_is_not_lost(tmp_path: Path) -> None:
    """There is nobody to tell yet; the process remembers it."""
    process = Process(config(tmp_path), lambda: config(tmp_path))
    process._hang_up()
    assert process._hung_up


def test_an_adopted_folder_is_recovered(tmp_path: Path) -> None:
    """What it holds may be behind: the mark stands before the new identity does. A first start recovers nothing."""
    process = Process(config(tmp_path), lambda: config(tmp_path))
    first = process._new_identity()
    assert not (tmp_path / RECOVERED_FILE).exists()
    (tmp_path / NODE_FILE).write_text("{}")
    (tmp_path / LOCAL_FILE).write_text("token of the old node id")
    assert process._new_identity().node_id != first.node_id
    assert (tmp_path / RECOVERED_FILE).exists()
    assert not (tmp_path / LOCAL_FILE).exists()


def test_a_recovery_can_begin_twice(tmp_path: Path) -> None:
    """A start that died in between is done again."""
    begin_recovery(tmp_path, "former")
    begin_recovery(tmp_path, "former")
    assert (tmp_path / RECOVERED_FILE).stat().st_mode & 0o777 == 0o600


def test_the_invitation_shows_the_key_to_people_only(tmp_path: Path) -> None:
    """At a terminal it can be typed as it stands; in a file stands how to get at the key."""
    key = ClusterKey(bytes(range(100, 116)) + bytes(range(16)))
    assert invitation(key, tmp_path, to_terminal=True) == f"on another machine: MESHCRON_KEY={key.text} meshcron up"
    told = invitation(key, tmp_path / "a b", to_terminal=False)
    assert key.text not in told
    assert told.endswith(f"meshcron key show --secret --data-dir '{tmp_path}/a b'")


def test_only_a_key_made_now_invites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start makes one; the second finds it, and says nothing more."""
    monkeypatch.delenv("MESHCRON_KEY", raising=False)
    monkeypatch.setattr(keys, "SYSTEM_FILE", tmp_path / "none")
    first, second = (Process(config(tmp_path), lambda: config(tmp_path)) for _ in range(2))
    assert first._key() == second._key()
    assert "another machine" in first._invitation
    assert second._invitation == ""
