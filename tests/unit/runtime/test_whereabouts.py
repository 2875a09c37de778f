"""Where an agent is reached, for whoever looks from its machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

from meshcron.files import AGENT_FILE
from meshcron.messages import Endpoint
from meshcron.net.keys import ClusterKey, FoundKey
from meshcron.runtime.whereabouts import prepare, withdraw

HERE = Endpoint("192.0.2.1", 1, 2, 3)
KEY = FoundKey(ClusterKey(bytes(range(100, 116)) + bytes(range(16))), "MESHCRON_KEY")


def test_the_file_says_who_and_where(tmp_path: Path) -> None:
    """This process, the API's address, the three ports; readable by its owner alone."""
    prepare(tmp_path, "one", "ab" * 16, "https://127.0.0.1:8080", HERE, KEY)()
    file = tmp_path / AGENT_FILE
    assert json.loads(file.read_text()) == {
        "pid": os.getpid(),
        "name": "one",
        "node_id": "ab" * 16,
        "url": "https://127.0.0.1:8080",
        "gate_port": 1,
        "mesh_port": 2,
        "pub_port": 3,
        "fingerprint": KEY.key.fingerprint,
        "key_from": "MESHCRON_KEY",
    }
    assert KEY.key.text not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_key_s_file_can_be_found_from_anywhere(tmp_path: Path) -> None:
    """Whoever reads it stands in another folder than the agent did at its start."""
    prepare(tmp_path, "one", "ab" * 16, "http://127.0.0.1:9", HERE, KEY._replace(source="here/cluster.key"))()
    assert json.loads((tmp_path / AGENT_FILE).read_text())["key_from"] == str(Path.cwd() / "here/cluster.key")


def test_another_start_takes_its_place(tmp_path: Path) -> None:
    """What a crash left is replaced as a whole: no reader ever finds half of it."""
    (tmp_path / AGENT_FILE).write_text("left by a crash, and longer than " + "x" * 1000)
    prepare(tmp_path, "one", "ab" * 16, "http://127.0.0.1:9", HERE, KEY)()
    assert json.loads((tmp_path / AGENT_FILE).read_text())["url"] == "http://127.0.0.1:9"
    assert [file.name for file in tmp_path.iterdir()] == [AGENT_FILE]


def test_it_is_withdrawn_once_or_twice(tmp_path: Path) -> None:
    """An agent that ended early never said anything."""
    prepare(tmp_path, "one", "ab" * 16, "http://127.0.0.1:9", HERE, KEY)()
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert list(tmp_path.iterdir()) == []
