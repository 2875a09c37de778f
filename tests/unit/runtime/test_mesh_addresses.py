"""The addresses of the machine, looked at now and then."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any, cast

import pytest

from meshcron.runtime import mesh
from tests.unit.runtime.mesh_stage import unopened_mesh


class Announcer:
    """In place of mDNS: told each look where to be."""

    def __init__(self, looks: int) -> None:
        self.told: list[list[str]] = []
        self.enough = asyncio.Event()
        self._looks = looks

    async def move(self, addresses: list[str]) -> None:
        self.told.append(addresses)
        if len(self.told) == self._looks:
            self.enough.set()


def test_a_look_that_fails_is_not_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left to ask the kernel with, then the cable is out: the next look is as good. mDNS hears of
    addresses that are the same, too: its start may have failed."""
    made = unopened_mesh(tmp_path)
    looks = iter([["192.0.2.1"], None, [], ["192.0.2.2"], ["192.0.2.2"]])

    def addresses(_names: object) -> list[str]:
        found = next(looks, ["192.0.2.2"])
        if found is None:
            raise OSError(errno.EMFILE, "Too many open files")
        return found

    monkeypatch.setattr(mesh, "LOOK_SECONDS", 0)
    monkeypatch.setattr(mesh, "interface_addresses", addresses)

    async def story() -> None:
        announcer = Announcer(3)
        made._discovery = cast("Any", announcer)
        made._tasks.start("addresses", made._watch_addresses())
        async with asyncio.timeout(10):
            await announcer.enough.wait()
        await made._tasks.close()
        assert announcer.told == [["192.0.2.1"], ["192.0.2.2"], ["192.0.2.2"]]
        assert made._addresses == ["192.0.2.2"]

    asyncio.run(story())
