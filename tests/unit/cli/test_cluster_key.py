"""key show, key new: files of this machine, no agent."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from meshcron.net import keys
from meshcron.net.keys import ClusterKey, parse_key


@pytest.fixture(autouse=True)
def no_system_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine the tests run on may hold a key of its own."""
    monkeypatch.setattr(keys, "SYSTEM_FILE", tmp_path / "system.key")
    monkeypatch.delenv("MESHCRON_KEY", raising=False)


def test_new_prints_a_key_that_is_accepted(cli: Any) -> None:
    """Two calls, two keys; stdout is the key and nothing else."""
    first, second = (parse_key(cli("key", "new").stdout) for _ in range(2))
    assert first != second


def test_new_into_a_file_is_for_its_owner_only(cli: Any, tmp_path: Path) -> None:
    """Mode 0600 from the first moment; the key itself is not printed; no key is ever overwritten."""
    file = tmp_path / "new.key"
    result = cli("key", "new", "--file", str(file))
    text = file.read_text(encoding="ascii")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert text.strip() not in result.stdout
    assert parse_key(text).fingerprint in result.stdout
    again = cli("key", "new", "--file", str(file))
    assert again.exit_code == 2
    assert "never overwritten" in again.stderr
    assert file.read_text(encoding="ascii") == text
    assert cli("key", "new", "--file", str(tmp_path / "none" / "x")).exit_code == 2


def test_show_prints_the_fingerprint_only(cli: Any, tmp_path: Path) -> None:
    """The key in the data directory: its public name and its place; the key itself only when asked for."""
    text = cli("key", "new").stdout.strip()
    (tmp_path / "cluster.key").write_text(text + "\n", encoding="ascii")
    shown = cli("key", "show", "--data-dir", str(tmp_path))
    assert parse_key(text).fingerprint in shown.stdout
    assert str(tmp_path / "cluster.key") in shown.stdout
    assert text not in shown.stdout
    assert "key" not in json.loads(cli("key", "show", "--data-dir", str(tmp_path), "--json").stdout)
    assert cli("key", "show", "--secret", "--data-dir", str(tmp_path)).stdout == text + "\n"


def test_the_environment_beats_the_file_beats_the_folder(cli: Any, tmp_path: Path) -> None:
    """The order an agent uses."""
    texts = {name: cli("key", "new").stdout.strip() for name in ("variable", "file", "folder")}
    (tmp_path / "named.key").write_text(texts["file"], encoding="ascii")
    (tmp_path / "cluster.key").write_text(texts["folder"], encoding="ascii")
    folder = ("--data-dir", str(tmp_path))
    named = (*folder, "--key-file", str(tmp_path / "named.key"))
    show = ("key", "show", "--secret")
    assert cli(*show, *named, env={"MESHCRON_KEY": texts["variable"]}).stdout.strip() == texts["variable"]
    assert cli(*show, *named).stdout.strip() == texts["file"]
    assert cli(*show, *folder).stdout.strip() == texts["folder"]


def an_agent(folder: Path, key: ClusterKey, key_from: str, pid: int) -> None:
    """What one that runs, with this process id, has written down."""
    record = {"pid": pid, "url": "http://127.0.0.1:1", "fingerprint": key.fingerprint, "key_from": key_from}
    (folder / "agent.json").write_text(json.dumps(record), encoding="ascii")


@pytest.mark.parametrize("kept", [True, False])
def test_the_agent_that_runs_has_another_key(cli: Any, tmp_path: Path, kept: bool) -> None:
    """Whoever got this one could not join: code 3, both fingerprints, and where the right one is. That shows it."""
    dead, right = (parse_key(cli("key", "new").stdout) for _ in range(2))
    file = tmp_path / "a b.key"
    file.write_text(right.text, encoding="ascii")
    if kept:
        (tmp_path / "cluster.key").write_text(dead.text, encoding="ascii")
    an_agent(tmp_path, right, str(file), os.getpid())
    show = ("key", "show", "--secret", "--data-dir", str(tmp_path))
    result = cli(*show)
    assert (result.exit_code, result.stdout) == (3, "")
    what = f"{tmp_path}/cluster.key holds another key ({dead.fingerprint})" if kept else f"no cluster key in {tmp_path}"
    said = f"{what}, and the agent that runs here has {right.fingerprint}; "
    assert result.stderr == f"meshcron: {said}meshcron key show --key-file '{file}'\n"
    by_variable = cli(*show, "--key-file", str(file), env={"MESHCRON_KEY": dead.text})
    assert by_variable.stderr.endswith(f"; unset MESHCRON_KEY; meshcron key show --key-file '{file}'\n")
    assert cli(*show, "--key-file", str(file)).stdout.strip() == right.text


def test_the_agent_that_runs_got_its_key_otherwise(cli: Any, tmp_path: Path) -> None:
    """By the variable, or by a file that holds another one by now: there is no place to name."""
    old, new = (parse_key(cli("key", "new").stdout) for _ in range(2))
    file = tmp_path / "cluster.key"
    file.write_text(new.text, encoding="ascii")
    for key_from, why in (("MESHCRON_KEY", "it was started with MESHCRON_KEY"), (str(file), "the file was changed")):
        an_agent(tmp_path, old, key_from, os.getpid())
        result = cli("key", "show", "--data-dir", str(tmp_path))
        assert result.exit_code == 3
        assert why in result.stderr


def test_an_agent_that_runs_no_more_is_not_asked(cli: Any, tmp_path: Path) -> None:
    """What it left behind says nothing about the next start."""
    old, new = (parse_key(cli("key", "new").stdout) for _ in range(2))
    (tmp_path / "cluster.key").write_text(new.text, encoding="ascii")
    an_agent(tmp_path, old, "MESHCRON_KEY", 2**22)
    assert cli("key", "show", "--secret", "--data-dir", str(tmp_path)).stdout.strip() == new.text


def test_without_a_key(cli: Any, tmp_path: Path) -> None:
    """Code 3, and what makes one."""
    result = cli("key", "show", "--data-dir", str(tmp_path))
    assert result.exit_code == 3
    assert "meshcron key new" in result.stderr


@pytest.mark.parametrize("content", [b"", b"mk1-short", b"\xff\xfe"])
def test_a_wrong_key_is_refused_with_its_place(cli: Any, tmp_path: Path, content: bytes) -> None:
    """Code 1 as at a start; never passed over for another place."""
    (tmp_path / "cluster.key").write_bytes(content)
    result = cli("key", "show", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert str(tmp_path / "cluster.key") in result.stderr
    assert "mk1-short" not in result.stderr


def test_a_named_key_that_is_missing(cli: Any, tmp_path: Path) -> None:
    """A wrong --key-file is not passed over for the key in the data directory."""
    (tmp_path / "cluster.key").write_text(cli("key", "new").stdout, encoding="ascii")
    result = cli("key", "show", "--data-dir", str(tmp_path), "--key-file", str(tmp_path / "x"))
    assert result.exit_code == 1
    assert str(tmp_path / "x") in result.stderr
