"""One folder for each execution, used again without a trace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from meshcron.runtime.process_folder import SPARES_MAX, USES_MAX, Folders

UID = os.geteuid()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "executions")
    made.start()
    return made


def inode(folders: Folders, execution_id: str) -> int:
    return Path(folders.path(execution_id)).stat().st_ino


def take(folders: Folders, execution_id: str, output: str = "") -> None:
    folder = Path(folders.take(execution_id, UID))
    (folder / "output").write_text(output)
    (folder / "status").touch()


def names(folders: Folders) -> set[str]:
    return {path.name for path in Path(folders.prefix).iterdir()}


def test_a_folder_is_taken_once(folders: Folders) -> None:
    """P1: whoever had a folder, and be it empty by now, may have run; also when a spare one lies ready."""
    take(folders, "a", "before")
    take(folders, "b")
    folders.retire("b", empty=True, owner=UID)
    with pytest.raises(FileExistsError):
        folders.take("a", UID)
    with pytest.raises(FileExistsError):
        folders.take("a", UID)
    assert (Path(folders.path("a")) / "output").read_text() == "before"


def test_a_retired_folder_serves_again(folders: Folders) -> None:
    """The same folder and files under the next name: nothing made, nothing removed."""
    take(folders, "a")
    before = inode(folders, "a")
    folders.retire("a", empty=True, owner=UID)
    folders.take("b", UID)
    assert inode(folders, "b") == before
    assert names(folders) == {"b"}
    assert (Path(folders.path("b")) / "output").exists()


def test_an_output_that_may_not_serve_again_is_removed(folders: Folders) -> None:
    """Somebody may still hold it, or it is another user's."""
    take(folders, "a")
    folders.retire("a", empty=True, owner=None)
    folders.take("b", UID)
    assert not (Path(folders.path("b")) / "output").exists()


def test_an_output_outlives_its_folder(folders: Folders) -> None:
    """It moves to where outputs are kept; the folder serves again without it."""
    take(folders, "a", "hello")
    folders.retire("a", empty=False, owner=UID)
    folders.take("b", UID)
    kept = folders.output("a")
    assert kept
    assert kept.read_text() == "hello"
    assert not (Path(folders.path("b")) / "output").exists()
    folders.drop("a")
    assert folders.output("a") is None


def test_an_output_serves_its_own_user_only(folders: Folders) -> None:
    """A folder whose output was another user's is left for that user."""
    take(folders, "a")
    before = inode(folders, "a")
    folders.retire("a", empty=True, owner=UID + 1)
    folders.take("b", UID)
    assert inode(folders, "b") != before
    folders.take("c", UID + 1)
    assert inode(folders, "c") == before


def test_a_dropped_output_serves_again(folders: Folders, tmp_path: Path) -> None:
    """Pruned outputs are emptied, not removed, and serve the next executions: of a later session, too."""
    for name in ("a", "b"):
        take(folders, name, "hello")
    for name in ("a", "b"):
        folders.retire(name, empty=False, owner=UID)
        folders.drop(name)
        assert folders.output(name) is None
    folders.take("c", UID)
    assert (Path(folders.path("c")) / "output").read_text() == ""
    later = Folders(tmp_path / "executions")
    later.start()
    later.take("d", UID)
    assert (Path(later.path("d")) / "output").read_text() == ""
    later.take("e", UID)
    assert not (Path(later.path("e")) / "output").exists()


def test_an_output_still_written_is_removed(folders: Folders) -> None:
    """What a daemon goes on to say after the record was pruned is in nobody else's output."""
    take(folders, "a", "hello")
    folders.retire("a", empty=False, owner=None)
    kept = folders.output("a")
    assert kept
    with kept.open("a"):
        folders.drop("a")
    folders.take("b", UID)
    assert not (Path(folders.path("b")) / "output").exists()


def test_a_spare_that_vanished_is_no_harm(folders: Folders) -> None:
    """Somebody tidied up the data directory: a new folder is made."""
    take(folders, "a")
    folders.retire("a", empty=True, owner=UID)
    (Path(folders.path("a")) / "output").unlink()
    (Path(folders.path("a")) / "status").unlink()
    Path(folders.path("a")).rmdir()
    folders.take("b", UID)
    assert names(folders) == {"b"}


def test_where_outputs_are_kept_is_made_again(folders: Folders, tmp_path: Path) -> None:
    """Somebody removed kept/: the output is kept all the same, and is in no other execution's folder."""
    take(folders, "a", "of a")
    (tmp_path / "executions" / "kept").rmdir()
    folders.retire("a", empty=False, owner=UID)
    folders.take("b", UID)
    assert not (Path(folders.path("b")) / "output").exists()
    kept = folders.output("a")
    assert kept
    assert kept.read_text() == "of a"
    assert (tmp_path / "executions" / "kept").stat().st_mode & 0o777 == 0o700


def test_where_spares_are_kept_is_made_again(folders: Folders, tmp_path: Path) -> None:
    """Somebody removed spare/: a pruned output goes all the same."""
    take(folders, "a", "of a")
    folders.retire("a", empty=False, owner=UID)
    (tmp_path / "executions" / "spare").rmdir()
    folders.drop("a")
    assert folders.output("a") is None
    folders.take("b", UID)
    assert (Path(folders.path("b")) / "output").read_text() == ""


def test_an_output_that_cannot_be_kept_stays_with_its_folder(folders: Folders, tmp_path: Path) -> None:
    """Something else is in the place of kept/: nobody else gets the folder, and it goes with its record."""
    take(folders, "a", "of a")
    (tmp_path / "executions" / "kept").rmdir()
    (tmp_path / "executions" / "kept").touch()
    folders.retire("a", empty=False, owner=UID)
    folders.take("b", UID)
    assert not (Path(folders.path("b")) / "output").exists()
    found = folders.output("a")
    assert found
    assert found.read_text() == "of a"
    folders.drop("a")
    assert names(folders) == {"b"}


def test_all_folders_are_made_again(folders: Folders, tmp_path: Path) -> None:
    """Somebody removed all of them, with what ran: the next executions have theirs."""
    for name in ("runs", "spare"):
        take(folders, name)
    folders.retire("spare", empty=True, owner=UID)
    shutil.rmtree(tmp_path / "executions")
    folders.retire("runs", empty=False, owner=UID)
    for name in ("a", "b", "c"):
        take(folders, name, "hello")
    folders.retire("a", empty=False, owner=UID)
    kept = folders.output("a")
    assert kept
    assert kept.read_text() == "hello"


def test_a_dropped_spare_is_gone(folders: Folders) -> None:
    """The record of a retired execution is pruned: its folder is not handed out any more."""
    take(folders, "a")
    folders.retire("a", empty=True, owner=UID)
    folders.drop("a")
    assert names(folders) == set()
    folders.take("b", UID)
    assert names(folders) == {"b"}


def test_remains_are_what_executions_left(folders: Folders, tmp_path: Path) -> None:
    """Kept outputs, and the folders of what runs or was left by an earlier session; no spares."""
    take(folders, "kept", "hello")
    folders.retire("kept", empty=False, owner=UID)
    for name in ("runs", "spare"):
        take(folders, name, "hello" if name == "runs" else "")
    folders.retire("spare", empty=True, owner=UID)
    os.utime(Path(folders.path("runs")) / "output", ns=(0, 7_000_000))
    found = {remains.execution_id: remains for remains in folders.remains()}
    assert set(found) == {"kept", "runs"}
    assert (found["kept"].folder, found["runs"].folder) == (False, True)
    assert found["runs"].wall_us == 7000
    assert 0 < found["runs"].bytes <= 64 * 1024
    later = Folders(tmp_path / "executions")
    later.start()
    assert {remains.execution_id for remains in later.remains()} == {"kept", "runs", "spare"}


def test_remains_may_be_taken_slowly(folders: Folders) -> None:
    """Meanwhile others come and go, which is no error."""
    for name in ("a", "b", "c"):
        take(folders, name, "hello")
        folders.retire(name, empty=False, owner=UID)
    walk = folders.remains()
    first = next(walk).execution_id
    for name in {"a", "b", "c"} - {first}:
        folders.drop(name)
    take(folders, "d", "hello")
    assert {remains.execution_id for remains in walk} <= {"a", "b", "c", "d"}


def test_a_hole_takes_nothing(folders: Folders) -> None:
    """An output counts by what it takes of the disk, not by its length."""
    take(folders, "a", "hello")
    os.truncate(Path(folders.path("a")) / "output", 10_000_000)
    assert [remains.bytes < 1_000_000 for remains in folders.remains()] == [True]


def test_spares_are_bounded(folders: Folders) -> None:
    """After a burst, so many are kept and no more."""
    ids = [f"e{number}" for number in range(SPARES_MAX + 5)]
    for execution_id in ids:
        folders.take(execution_id, UID)
    for execution_id in ids:
        folders.retire(execution_id, empty=True, owner=UID)
    assert len(names(folders)) == SPARES_MAX


def test_a_folder_wears_out(folders: Folders) -> None:
    """Its status file grows by a line for each execution, so it is removed at last."""
    take(folders, "e0")
    before = inode(folders, "e0")
    for number in range(USES_MAX):
        assert inode(folders, f"e{number}") == before
        folders.retire(f"e{number}", empty=True, owner=UID)
        if number + 1 < USES_MAX:
            folders.take(f"e{number + 1}", UID)
    assert names(folders) == set()


@pytest.mark.parametrize("execution_id", ["", ".", "..", "../x", "a/b", "/etc", "a\n", "a\0", "-rf", "x" * 200])
def test_an_id_is_a_plain_name(folders: Folders, execution_id: str) -> None:
    """Nothing outside its own folder is ever named by an id (FAULTS 42)."""
    with pytest.raises(ValueError, match="no execution id"):
        folders.take(execution_id, UID)
    assert folders.output(execution_id) is None
    folders.drop(execution_id)
