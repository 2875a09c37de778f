"""What an agent refuses to start on: one clear line that names the remedy, exit code 1, and not one byte changed."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshcron.net.keys import ClusterKey, _checksum
from meshcron.store.hard_state import _slot  # what a newer version writes is made as this one would
from tests.integration.agent.real_agent import RealAgent, contents, meshcron, refusal

KEY = ClusterKey(secrets.token_bytes(32)).text
"""A right one, for tests that spoil it."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAgent]:
    """An agent with a job that was killed -9, and after all tests goes on as if nothing had been tried."""
    agent = RealAgent(tmp_path_factory.mktemp("killed") / "data")
    agent.start()
    agent.add("kept")
    agent.kill()
    yield agent
    agent.start()
    assert agent.jobs() == ["kept"]
    agent.stop()


@pytest.fixture
def stopped(killed: RealAgent) -> Iterator[RealAgent]:
    """The same agent; a test leaves every file of it as it was."""
    before = contents(killed.folder)
    yield killed
    assert contents(killed.folder) == before


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RealAgent]:
    """An agent with a job, for one test alone; it is stopped."""
    real = RealAgent(tmp_path / "data")
    real.start()
    real.add("kept")
    real.stop()
    yield real
    if real.running:
        real.stop()


def guessable() -> bytes:
    """A key of zeros, whose check sum is right."""
    zeros = bytes(32)
    return b"mk1-" + base64.b32encode(zeros + _checksum(zeros)).lower()


def refused_unchanged(agent: RealAgent, *flags: str | Path, **variables: str) -> str:
    """The line, once nothing in the data directory is found changed."""
    before = contents(agent.folder)
    line = refusal(agent.folder, *flags, **variables)
    assert contents(agent.folder) == before
    return line


KEY_FILES = {
    "empty": (b"\n", "the cluster key is empty"),
    "something else": (b"correct horse battery staple", 'does not begin with "mk1-"'),
    "too short": (b"mk1-abcdefgh", 'has 8 letters behind "mk1-", not 56'),
    "a wrong letter": (b"mk1-" + b"1" * 56, "has a letter that is none of a-z, 2-7"),
    "mistyped": (KEY[:-1].encode() + (b"b" if KEY[-1] == "a" else b"a"), "is mistyped"),
    "guessable": (guessable(), "follows a pattern anyone may guess"),
    "not text": (b"\xff\xfe\x00k", "is not text"),
}


def test_keys_that_are_none(stopped: RealAgent, tmp_path: Path) -> None:
    """Whatever is wrong with the key is said with the place it was read from, and never shows the key."""
    file = tmp_path / "key"
    for data, why in KEY_FILES.values():
        file.write_bytes(data)
        line = refused_unchanged(stopped, "--key-file", file)
        assert line.startswith(f"{file}: ")
        assert why in line
        assert "meshcron key new" in line
        assert KEY[4:30] not in line
    assert refused_unchanged(stopped, MESHCRON_KEY="mk1-abc").startswith("MESHCRON_KEY: the cluster key has 3 letters")


def test_key_files_that_cannot_be_read(stopped: RealAgent, tmp_path: Path) -> None:
    """Missing, a folder, a device without end."""
    assert "No such file" in refused_unchanged(stopped, "--key-file", tmp_path / "none")
    assert "Is a directory" in refused_unchanged(stopped, "--key-file", tmp_path)
    assert "/dev/zero: " in refused_unchanged(stopped, "--key-file", "/dev/zero")


def test_its_own_key_is_spoiled(stopped: RealAgent) -> None:
    """The key made at the first start is not replaced by a new one: that would be another cluster."""
    file = stopped.folder / "cluster.key"
    whole = file.read_bytes()
    file.write_bytes(whole[:20])
    assert refused_unchanged(stopped).startswith(f"{file}: the cluster key has")
    file.write_bytes(whole)


def test_the_port_is_in_use(stopped: RealAgent) -> None:
    """By another program; the remedy is the flag."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        line = refused_unchanged(stopped, "--http", address)
    assert line == f"cannot listen on {address}: Address already in use; end what uses it or choose another with --http"


def test_an_address_of_another_machine(stopped: RealAgent) -> None:
    """One from the range for documentation, which nobody has."""
    line = refused_unchanged(stopped, "--http", "203.0.113.1:8080", "--log-level", "error")
    assert line.startswith("cannot listen on 203.0.113.1:8080: Cannot assign requested address; ")


def test_a_certificate_that_is_none(stopped: RealAgent, tmp_path: Path) -> None:
    """Missing, and no certificate at all."""
    garbage = tmp_path / "pem"
    garbage.write_text("garbage")
    for file in (tmp_path / "none", garbage):
        line = refused_unchanged(stopped, "--tls-cert", file, "--tls-key", garbage)
        assert line.startswith(f"tls_cert {file}: cannot be used: ")


def test_a_copied_directory(stopped: RealAgent, tmp_path: Path) -> None:
    """Two agents with one identity would break the cluster. Here both are whole: the remedy goes on as somebody new."""
    copy = RealAgent(tmp_path / "copy")
    shutil.copytree(stopped.folder, copy.folder)
    line = refused_unchanged(copy)
    assert line.startswith(f"{copy.folder} was copied or moved here: ")
    assert "meshcron up --adopt-data-dir" in line
    copy.start("--adopt-data-dir")
    assert copy.jobs() == ["kept"]
    ids = [json.loads((folder / "node.json").read_text())["identity"] for folder in (stopped.folder, copy.folder)]
    copy.stop()
    assert ids[0]["node_id"] != ids[1]["node_id"]
    assert ids[0]["secret_key"] != ids[1]["secret_key"]


def test_a_directory_that_was_rolled_back(agent: RealAgent, tmp_path: Path) -> None:
    """The files of last week in the same place: what it promised since is gone, and it says so."""
    shutil.copytree(agent.folder, tmp_path / "last week")
    agent.start()
    agent.add("since")
    agent.stop()
    for file in (tmp_path / "last week").glob("database*"):
        shutil.copyfile(file, agent.folder / file.name)
    line = refused_unchanged(agent)
    assert line.startswith(f"{agent.folder}/database")
    assert "meshcron recover --salvage" in line


def test_a_directory_in_use(agent: RealAgent) -> None:
    """By an agent that runs: its pid is told, and it never notices. Nor may anybody salvage it."""
    agent.start()
    assert agent.process is not None
    said = f"{agent.folder} is in use by another agent (pid {agent.process.pid})"
    assert refusal(agent.folder) == said
    salvage = meshcron("recover", "--salvage", "--data-dir", agent.folder)
    assert (salvage.returncode, salvage.stderr) == (1, f"meshcron: {said}\n")
    agent.add("also_kept")
    agent.kill()
    agent.start()
    assert agent.jobs() == ["also_kept", "kept"]


def test_paths_that_are_no_data_directory(tmp_path: Path) -> None:
    """A file, below a file, somebody else's folder: nothing is made, nothing is touched."""
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below"):
        assert refusal(folder).startswith(f"the data directory cannot be used: {folder}: ")
    assert "neither empty nor a data directory of meshcron" in refusal(tmp_path)
    assert contents(tmp_path).keys() == {"file"}
    assert file.read_text() == "mine"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be changed: for root, who may write everywhere, it is mounted so."""
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_directory_that_cannot_be_written(stopped: RealAgent) -> None:
    """As after an error of its disk, or a first start as another user."""
    with read_only(stopped.folder):
        line = refused_unchanged(stopped)
    assert line.startswith(f"the data directory cannot be used: {stopped.folder}")
    assert line.endswith("make it writable for this user, or choose another folder with --data-dir")


def spoil(file: Path, data: bytes | None) -> bytes:
    """Put other bytes in a file's place, or nothing; returns what it held."""
    whole = file.read_bytes()
    if data is None:
        file.unlink()
    else:
        file.write_bytes(data)
    return whole


def newer_database(data: bytes) -> bytes:
    """With the version in its header one higher: PRAGMA user_version, https://www.sqlite.org/fileformat2.html."""
    return data[:60] + (int.from_bytes(data[60:64], "big") + 1).to_bytes(4, "big") + data[64:]


def test_files_of_a_newer_version(agent: RealAgent) -> None:
    """Each file that has a version is left to those who know it: a downgrade destroys nothing."""
    folder = agent.folder
    node = json.loads((folder / "node.json").read_bytes()) | {"format": 2}
    newer_state = {"format": 2, "start": 9, "something": "new"}
    hard_state = b"".join(_slot(n, newer_state) for n in (3, 4))  # type: ignore[arg-type]
    for name, data in {
        "node.json": json.dumps(node).encode(),
        "hard_state": hard_state,
        "database": newer_database((folder / "database").read_bytes()),
    }.items():
        whole = spoil(folder / name, data)
        line = refused_unchanged(agent)
        (folder / name).write_bytes(whole)
        assert line.startswith(f"{folder / name}: ")
        assert "newer meshcron" in line
        assert "Nothing was changed" in line
    agent.start()
    assert agent.jobs() == ["kept"]


MISSING = {
    "database": "missing, though the agent has started before",
    "database-wal": "missing or empty; it held at least",
    "database.sums": "missing",
    "hard_state": "missing, though the agent has started before",
}


def test_files_that_are_gone_or_garbled(stopped: RealAgent) -> None:
    """None is made anew over what is left, none is read as if it were whole; salvaging is what is offered."""
    for name, why in MISSING.items():
        file = stopped.folder / name
        for data in (None, b"", b"garbage" * 2000):
            whole = spoil(file, data)
            line = refused_unchanged(stopped)
            file.write_bytes(whole)
            assert line.startswith(f"{file}: "), line
            assert "meshcron recover --salvage" in line
            assert data is not None or why in line


def test_a_garbled_identity(stopped: RealAgent) -> None:
    """One letter of node.json: who it is cannot be guessed, and a new identity would be a stranger to the cluster."""
    file = stopped.folder / "node.json"
    whole = file.read_bytes()
    at = whole.index(b'"node_id"') + 14
    garbled = whole[:at] + (b"0" if whole[at : at + 1] != b"0" else b"1") + whole[at + 1 :]
    for data in (garbled, b"", b"{}", whole[:-30]):
        spoil(file, data)
        line = refused_unchanged(stopped)
        file.write_bytes(whole)
        assert line.startswith(f"{file} is garbled")
        assert "Restore it from a backup" in line
