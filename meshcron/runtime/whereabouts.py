"""Where a running agent is reached, for whoever looks from this machine: `agent.json` in its data directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from meshcron.files import AGENT_FILE
from meshcron.messages import Endpoint
from meshcron.net.keys import VARIABLE, FoundKey
from meshcron.runtime.credentials import prepare_private


def prepare(folder: Path, name: str, node_id: str, url: str, endpoint: Endpoint, key: FoundKey) -> Callable[[], None]:
    """Write that this process is the agent of this folder; what this returns shows it, and takes no more room. `url`:
    of its API. `key`: only what may be shown of it is written, and where it came from. Both raise OSError."""
    record: Mapping[str, object] = {
        "pid": os.getpid(),
        "name": name,
        "node_id": node_id,
        "url": url,
        "gate_port": endpoint.gate_port,
        "mesh_port": endpoint.mesh_port,
        "pub_port": endpoint.pub_port,
        "fingerprint": key.key.fingerprint,
        "key_from": VARIABLE if key.source == VARIABLE else str(Path(key.source).absolute()),
    }
    return prepare_private(folder / AGENT_FILE, json.dumps(record, indent=2) + "\n")


def withdraw(folder: Path) -> None:
    """It is not any more. Raises OSError."""
    (folder / AGENT_FILE).unlink(missing_ok=True)
