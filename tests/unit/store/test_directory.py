"""The data directory: one agent, one identity, one place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from meshcron.errors import StartRefused
from meshcron.store import directory
from meshcron.store.directory import DataDirectory, Identity, Place


def who(letter: str) -> Callable[[], Identity]:
    return lambda: Identity(node_id=letter * 32, public_key="p" * 40, secret_key="s" * 40, created_wall_us=1)


def never() -> Identity:
    raise AssertionError("a second identity was drawn")


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDirectory]:
    made = DataDirectory(tmp_path / "a" / "data", "machine-1")
    made.lock()
    yield made
    made.close()


def reopened(data: DataDirectory, machine_id: str = "machine-1") -> DataDirectory:
    data.close()
    again = DataDirectory(data.path, machine_id)
    again.lock()
    return again


def test_a_first_start_makes_a_private_folder_with_an_identity(data: DataDirectory) -> None:
    """0700 and 0600: the secret key lies in it."""
    assert data.identity(who("a")) == who("a")()
    assert data.path.stat().st_mode & 0o777 == 0o700
    assert (data.path / "node.json").stat().st_mode & 0o777 == 0o600
    assert (data.path / "lock").stat().st_mode & 0o777 == 0o600


def test_the_identity_is_kept_for_life(data: DataDirectory) -> None:
    """A node id never changes its key."""
    data.identity(who("a"))
    again = reopened(data)
    assert again.identity(never) == who("a")()
    again.close()


def test_a_second_agent_is_refused_and_told_who_holds_it(data: DataDirectory) -> None:
    """Another process, the same folder."""
    code = (
        "import sys; from pathlib import Path; from meshcron.store.directory import DataDirectory\n"
        "DataDirectory(Path(sys.argv[1]), '').lock()"
    )
    done = subprocess.run([sys.executable, "-c", code, data.path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"in use by another agent (pid {os.getpid()})" in done.stderr


def test_a_folder_let_go_can_be_taken(data: DataDirectory) -> None:
    """The lock is the kernel's: it goes with its process, and the file that remains means nothing."""
    data.close()
    other = DataDirectory(data.path, "machine-1")
    other.lock()
    with pytest.raises(StartRefused, match="in use"):
        data.lock()
    other.close()


def test_somebody_elses_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    """`--data-dir /home/me` is a mistake, not a request."""
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(StartRefused, match=r"neither empty nor a data directory.*photo\.jpg"):
        DataDirectory(tmp_path, "m").lock()
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_key_put_there_beforehand_is_welcome(tmp_path: Path) -> None:
    """And so is the lost+found of a file system of its own."""
    (tmp_path / "cluster.key").write_text("mk1-")
    (tmp_path / "lost+found").mkdir()
    data = DataDirectory(tmp_path, "m")
    data.lock()
    assert data.identity(who("a")) == who("a")()
    data.close()


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    """A file, or below one."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StartRefused, match="cannot be used"):
            DataDirectory(path, "m").lock()


def test_a_copy_is_refused_with_the_remedy(data: DataDirectory, tmp_path: Path) -> None:
    """Two agents with one identity would break the cluster."""
    data.identity(who("a"))
    before = (data.path / "node.json").read_bytes()
    shutil.copytree(data.path, tmp_path / "copy")
    copy = DataDirectory(tmp_path / "copy", "machine-1")
    copy.lock()
    with pytest.raises(StartRefused, match=r"copied or moved.*meshcron up --adopt-data-dir"):
        copy.identity(never)
    assert (tmp_path / "copy" / "node.json").read_bytes() == before
    copy.close()


def test_another_machine_is_refused(data: DataDirectory) -> None:
    """The disk of one machine, put into another."""
    data.identity(who("a"))
    again = reopened(data, "machine-2")
    with pytest.raises(StartRefused, match="machine-id machine-1, this one is machine-2"):
        again.identity(never)
    again.close()


def test_a_machine_without_an_id_is_not_accused(data: DataDirectory) -> None:
    """Containers often have none; then device and inode must do."""
    data.identity(who("a"))
    again = reopened(data, "")
    assert again.identity(never) == who("a")()
    again.close()


def test_a_device_number_handed_out_anew_proves_nothing(data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """On btrfs, overlayfs, NFS and tmpfs (major 0) it may differ after each mount; elsewhere it counts."""
    data.identity(who("a"))
    there = data.path.stat()
    for before, after, accused in ((37, 41, False), (os.makedev(8, 1), os.makedev(8, 17), True)):
        kept = Place(machine_id="machine-1", st_dev=before, st_ino=there.st_ino)
        monkeypatch.setattr(
            data, "_place", lambda after=after: Place(machine_id="machine-1", st_dev=after, st_ino=there.st_ino)
        )
        assert bool(data._moved(kept)) is accused


def test_an_adopted_copy_goes_on_as_somebody_new(data: DataDirectory) -> None:
    """The old file stays beside; a second adoption keeps both."""
    data.identity(who("a"))
    for n, (machine, letter) in enumerate((("machine-2", "b"), ("machine-3", "c")), start=1):
        data = reopened(data, machine)
        assert data.adopt(who(letter)).node_id == letter * 32
        assert json.loads((data.path / f"node.json.old-{n}").read_text())["identity"]["node_id"] == "ab"[n - 1] * 32
    data = reopened(data, "machine-3")
    assert data.identity(never).node_id == "c" * 32
    data.close()


def test_what_has_started_says_so_until_somebody_new_goes_on(data: DataDirectory) -> None:
    """The mark is the identity's. `check` does not depend on it, so a version without it reads the file as well."""
    data.identity(who("a"))
    first = json.loads((data.path / "node.json").read_bytes())
    assert not data.has_started()
    data.mark_started()
    assert data.has_started()
    assert data.identity(never) == who("a")()
    assert json.loads((data.path / "node.json").read_bytes()) == first | {"started": True}
    data.rename(who("b")())
    assert not data.has_started()


def test_adopting_what_never_moved_changes_nothing(data: DataDirectory) -> None:
    """The flag may stand in a unit file for ever."""
    data.identity(who("a"))
    data = reopened(data)
    assert data.adopt(never) == who("a")()
    assert not list(data.path.glob("node.json.old*"))
    data.close()


@pytest.mark.parametrize(
    "garbled",
    [b"", b"{", b"null", b'{"format":1}', b'{"format":"x"}', b"\xff\xfe", b"{}", bytes(300)],
)
def test_a_garbled_node_file_is_refused_and_kept(data: DataDirectory, garbled: bytes) -> None:
    """Nothing of it is ever overwritten."""
    data.identity(who("a"))
    (data.path / "node.json").write_bytes(garbled)
    with pytest.raises(StartRefused, match=r"garbled.*Nothing was changed"):
        data.identity(never)
    assert (data.path / "node.json").read_bytes() == garbled


def test_a_single_wrong_character_in_the_node_file_is_found(data: DataDirectory) -> None:
    """A garbled node id is still a node id, so the file carries a checksum."""
    data.identity(who("a"))
    path = data.path / "node.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        if whole[place : place + 1] in b" \n":
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StartRefused):
            data.identity(never)


def test_a_newer_format_is_refused_and_kept(data: DataDirectory) -> None:
    """Whatever a later version makes of it."""
    data.identity(who("a"))
    newer = msgspec.json.encode({"format": directory.FORMAT + 1, "secret": "elsewhere"})
    (data.path / "node.json").write_bytes(newer)
    with pytest.raises(StartRefused, match="newer"):
        data.identity(never)
    assert (data.path / "node.json").read_bytes() == newer


def test_a_file_that_is_no_identity_is_refused(data: DataDirectory) -> None:
    """Even when its checksum is right."""
    data.identity(lambda: Identity(node_id="short", public_key="", secret_key="", created_wall_us=1))
    with pytest.raises(StartRefused):
        data.identity(never)


def test_the_machine_id_is_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty where there is none, without an error."""
    monkeypatch.setattr(directory, "MACHINE_ID", tmp_path / "machine-id")
    assert directory.machine_id() == ""
    (tmp_path / "machine-id").write_text("abc\n")
    assert directory.machine_id() == "abc"


def test_one_that_was_told_to_be_a_copy_is_adopted_where_it_lies(data: DataDirectory) -> None:
    """Its place is right, as far as this machine can tell; the other agents knew better. Once: a flag that stays in a
    unit file makes nobody new at each start."""
    data.identity(who("a"))
    assert data.adopt(never) == who("a")()
    (data.path / directory.COPY_FILE).touch()
    assert data.identity(never) == who("a")()
    assert data.adopt(who("b")) == who("b")()
    assert data.adopt(never) == who("b")()
