"""A mesh that binds nothing and lets nobody in: what it hears a test says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

from meshcron.net.keys import ClusterKey, CurvePair
from meshcron.runtime.mesh import Mesh, Place


def unopened_mesh(folder: Path) -> Mesh:
    """Of the agent "me", with its database in this folder; nothing may be asked of its API."""
    place = Place(
        bind="127.0.0.1",
        advertise="127.0.0.1",
        gate_port=0,
        mesh_port=0,
        pub_port=0,
        join=(),
        mdns=False,
        mdns_interfaces=("127.0.0.1",),
        slow_links=False,
    )
    return Mesh(
        place,
        ClusterKey(hashlib.sha256(b"a key").digest()),
        CurvePair(b"p" * 40, b"s" * 40),
        node_id="me",
        session=1,
        database=folder / "database",
        install=lambda *_: None,
        serve=cast("Any", None),
    )
