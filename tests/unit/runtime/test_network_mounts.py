"""Paths on other machines' disks, told apart without asking for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshcron.runtime import network_mounts
from meshcron.runtime.network_mounts import NetworkMounts


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder of this machine, by its real name."""
    return tmp_path.resolve()


def mounts(here: Path, *lines: str) -> NetworkMounts:
    """As if the kernel had said these of mounts: type and place."""
    file = here / "mountinfo"
    spelled = (line.split(" ", 1) for line in lines)
    said = "".join(f"36 35 0:42 / {at} rw,noatime shared:1 - {kind} src rw\n" for kind, at in spelled)
    file.write_bytes(said.encode())
    return NetworkMounts(file)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "fuse", "autofs", "9p"])
def test_at_and_below_such_a_mount(here: Path, kind: str) -> None:
    """And nowhere else, whatever its name begins with."""
    network = mounts(here, "ext4 /", f"{kind} {here}/far")
    assert [network.hold(here / path) for path in ("far", "far/a/b", "x/../far")] == [True] * 3
    assert [network.hold(here / path) for path in ("farther", "near", "far/../near/..")] == [False, False, True]
    assert not network.hold("/")


@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "overlay", "fuseblk", "nfsd", "zfs"])
def test_a_disk_of_this_machine(here: Path, kind: str) -> None:
    """Also one that is mounted over another machine's."""
    assert not mounts(here, f"{kind} {here}/disk").hold(here / "disk")
    assert not mounts(here, f"nfs {here}/disk", f"{kind} {here}/disk").hold(here / "disk")


def test_links_are_followed_up_to_it(here: Path) -> None:
    """Relative, absolute, in a row; one that leads to itself leads nowhere else."""
    network = mounts(here, f"nfs {here}/mnt/far")
    (here / "mnt").mkdir()
    (here / "data").symlink_to("mnt/far/data")
    (here / "deep").mkdir()
    (here / "deep" / "link").symlink_to("../data")
    (here / "whole").symlink_to(here / "deep")
    (here / "loop").symlink_to("loop")
    assert [network.hold(here / path) for path in ("data", "deep/link/x", "whole/link")] == [True] * 3
    assert [network.hold(here / path) for path in ("whole", "deep", "loop/x", "mnt")] == [False] * 4
    assert not network.hold(str(here / "a\0b"))


@pytest.mark.parametrize("letter", ["\u2028", "\x85", "\x0b", "\x1c", "\r"])
def test_a_name_with_what_ends_a_line_elsewhere(here: Path, letter: str) -> None:
    """Any user may mount something at such a place (FUSE); the kernel does not escape them, and no launch fails."""
    assert mounts(here, f"fuse.sshfs {here}/a{letter}b").hold(here / f"a{letter}b" / "x")


def test_a_name_with_a_space(here: Path) -> None:
    """The kernel writes it as a number."""
    assert mounts(here, f"nfs {here}/our\\040files").hold(here / "our files" / "x")


def test_what_is_mounted_later(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is known a second later at most; where the mounts cannot be read, what was known counts."""
    monkeypatch.setattr(network_mounts, "KNOWN_SECONDS", 0.0)
    network = mounts(here)
    assert not network.hold(here / "far")
    mounts(here, f"nfs {here}/far")
    assert network.hold(here / "far")
    (here / "mountinfo").unlink()
    assert network.hold(here / "far")


def test_the_mounts_of_this_machine_are_understood() -> None:
    """Whatever they are: this one is the kernel's own."""
    assert not NetworkMounts().hold("/proc/self")
