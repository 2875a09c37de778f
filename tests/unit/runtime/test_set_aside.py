"""A database makes way, also where the agent is killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshcron.errors import StartRefused
from meshcron.files import LOCAL_FILE
from meshcron.runtime import markers, offline, set_aside
from meshcron.runtime.credentials import ADMIN_FILE, new_identity
from meshcron.runtime.markers import Recovery
from meshcron.runtime.others import OTHERS_FILE
from meshcron.store.directory import COPY_FILE, machine_id
from meshcron.store.store import Store

CHANGES = ("rename", "replace", "hardlink_to", "mkdir", "unlink")
"""All that changes a folder on the way."""

STEPS_MAX = 100
GOES = {"database", "hard_state", ADMIN_FILE, LOCAL_FILE, OTHERS_FILE}


class Killed(BaseException):
    """As kill -9 would."""


def opened(folder: Path) -> tuple[str, dict[str, str]]:
    """A start: whose the directory is, and what the catalog holds."""
    store = Store(folder, machine_id())
    loaded = store.open(new_identity)
    store.close()
    return store.identity.node_id, loaded.meta


def lived_in(folder: Path) -> str:
    """An agent's directory, whose database is to go; the node id."""
    node_id, _ = opened(folder)
    for name in (ADMIN_FILE, LOCAL_FILE, OTHERS_FILE, COPY_FILE):
        (folder / name).write_text(name)
    markers.begin_recovery(folder, Recovery("adopted", ("former",)))
    return node_id


def killed_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """From here on the process dies before the `step`-th change of a folder."""
    left = [step]

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def one(*words: Any, **more: Any) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return change(*words, **more)

        return one

    for name in CHANGES:
        patch.setattr(Path, name, dying(getattr(Path, name)))


def dies(folder: Path, step: int) -> bool:
    """Whether there are so many steps."""
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, step)
        try:
            set_aside.finish(folder)
        except Killed:
            return True
    return False


def check_set_aside(folder: Path, node_id: str) -> None:
    """All of it lies in one folder with the reason; the next start is a newcomer's."""
    (aside,) = folder.glob("set-aside-*")
    there = {file.name: file.read_text() for file in aside.iterdir() if file.name in {ADMIN_FILE, LOCAL_FILE, "why"}}
    assert "its cluster was dissolved" in there.pop("why")
    assert there == {name: name for name in there}
    assert {file.name for file in aside.iterdir()} >= GOES
    assert aside.stat().st_mode & 0o777 == 0o700
    left = {file.name for file in folder.iterdir()}
    assert not left & (GOES | {COPY_FILE, markers.RECOVERED_FILE, set_aside.PLAN_FILE})
    assert not [name for name in left if name.startswith("database")]
    assert node_id in (folder / "node.json.old-1").read_text()
    newcomer, meta = opened(folder)
    assert newcomer != node_id
    assert meta == {}


def test_what_is_not_begun_changes_nothing(tmp_path: Path) -> None:
    """Each start asks."""
    node_id = lived_in(tmp_path)
    set_aside.finish(tmp_path)
    set_aside.finish(tmp_path / "nowhere")
    assert opened(tmp_path)[0] == node_id
    assert not (tmp_path / "nowhere").exists()


def test_killed_between_any_two_steps_it_is_finished_by_the_next_start(tmp_path: Path) -> None:
    """Whatever was moved by then; the offline commands leave it alone until that is done."""
    for step in range(STEPS_MAX):
        folder = tmp_path / str(step)
        folder.mkdir()
        node_id = lived_in(folder)
        set_aside.begin(folder, node_id, "its cluster was dissolved")
        if not dies(folder, step):
            check_set_aside(folder, node_id)
            break
        assert set_aside.is_begun(folder)
        with pytest.raises(StartRefused, match="being set aside"):
            offline.salvage(folder)
        set_aside.finish(folder)
        check_set_aside(folder, node_id)
    assert 10 < step < STEPS_MAX - 1


def test_two_in_one_second_lie_apart(tmp_path: Path) -> None:
    """Nothing set aside is ever overwritten."""
    for _ in range(3):
        set_aside.begin(tmp_path, opened(tmp_path)[0], "its cluster was dissolved")
        set_aside.finish(tmp_path)
    assert len(list(tmp_path.glob("set-aside-*/database"))) == 3


def test_a_garbled_plan_is_refused(tmp_path: Path) -> None:
    """Nobody knows what was moved."""
    lived_in(tmp_path)
    (tmp_path / set_aside.PLAN_FILE).write_text("garbled")
    with pytest.raises(StartRefused, match="garbled"):
        set_aside.finish(tmp_path)
