"""What a start leaves in memory."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from meshcron.config import Config, Machine, load
from meshcron.main import Process
from meshcron.rows import Loaded
from meshcron.store.store import Store


class Watched(Loaded, weakref=True):
    """What a start has read, and whether anybody still holds it."""


def config(folder: Path) -> Config:
    ports = {f"{which}_port": "0" for which in ("gate", "mesh", "pub")}
    return load(
        {"http": "127.0.0.1:0", "bind": "127.0.0.1", "no_mdns": "true", **ports}, {}, [], Machine("one", folder)
    )


def test_what_a_start_has_read_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the database once they are the core's: they are as large as the catalog."""
    watched: list[weakref.ref[Watched]] = []
    held: list[Any] = []
    really_open = Store.open

    def open_(store: Store, *args: Any, **more: Any) -> Watched:
        loaded = really_open(store, *args, **more)
        found = Watched(**{field: getattr(loaded, field) for field in Loaded.__struct_fields__})
        watched.append(weakref.ref(found))
        return found

    async def serve(*_: object) -> int:
        gc.collect()
        held.append(watched[0]())
        return 0

    monkeypatch.setattr(Store, "open", open_)
    monkeypatch.setattr(Process, "_serve", serve)
    assert asyncio.run(Process(config(tmp_path / "data"), lambda: config(tmp_path / "data")).live()) == 0
    assert held == [None]
