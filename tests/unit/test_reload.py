"""HUP: new tags count at once, what needs a start is said, what is wrong changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from meshcron.config import Config, Machine, load
from meshcron.errors import InvalidRequest, StartRefused
from meshcron.reload import Reload


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def config(folder: Path, **flags: object) -> Config:
    return load(flags, {}, [], Machine("one", folder))


def reloading(folder: Path, reread: Callable[[], Config]) -> tuple[Reload, list[dict[str, str]]]:
    """An agent that was started with the tag role=web, and what it was told."""
    reload, told = Reload(config(folder, tag=("role=web",)), reread), list[dict[str, str]]()
    reload.start(told.append)
    return reload, told


def test_new_tags_reach_the_core(tmp_path: Path, logs: list[Any]) -> None:
    """They are told to it and said in the log."""
    reload, told = reloading(tmp_path, lambda: config(tmp_path, tag=("zone=a", "role=db")))
    reload.hang_up()
    assert told == [{"zone": "a", "role": "db"}]
    assert [(line["log_level"], line["tags"]) for line in logs] == [("info", "role=db, zone=a")]
    assert "need_a_restart" not in logs[0]


def test_what_needs_a_restart_is_said(tmp_path: Path, logs: list[Any]) -> None:
    """Other keys that changed are named, each time, until the agent is started anew; the tags count already."""
    reload, told = reloading(tmp_path, lambda: config(tmp_path, slots="5", log_level="debug"))
    for _ in range(2):
        reload.hang_up()
    assert told == [{}, {}]
    assert [line["need_a_restart"] for line in logs] == ["slots, log_level"] * 2


@pytest.mark.parametrize("error", [InvalidRequest("tag", "is wrong"), StartRefused("meshcron.toml is not TOML")])
def test_a_wrong_configuration_changes_nothing(tmp_path: Path, logs: list[Any], error: Exception) -> None:
    """One line says what is wrong."""

    def reread() -> Config:
        raise error

    reload, told = reloading(tmp_path, reread)
    reload.hang_up()
    assert told == []
    assert [(line["log_level"], line["why"]) for line in logs] == [("warning", str(error))]


def test_hup_while_it_starts_is_not_lost(tmp_path: Path) -> None:
    """There is nobody to tell yet; it is done once there is, and once only."""
    told: list[dict[str, str]] = []
    reload = Reload(config(tmp_path), lambda: config(tmp_path, tag=("zone=a",)))
    reload.hang_up()
    reload.start(told.append)
    assert told == [{"zone": "a"}]


def test_who_got_no_hup_reads_nothing(tmp_path: Path) -> None:
    """A start is no HUP."""
    _, told = reloading(tmp_path, lambda: config(tmp_path, tag=("zone=a",)))
    assert told == []
