"""Knocks of the mesh: a few at once, whatever the core asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from meshcron.core.effects import Knock
from meshcron.runtime.mesh import KNOCKS_MAX
from tests.unit.runtime.mesh_stage import unopened_mesh


class Gates:
    """In place of the network: nobody answers until he is told to."""

    def __init__(self) -> None:
        self.asked: dict[int, asyncio.Future[None]] = {}

    async def knock(self, host: str, port: int, hello: Any) -> None:
        self.asked[port] = asyncio.get_running_loop().create_future()
        await self.asked[port]


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_few_knocks_are_under_way_at_once(tmp_path: Path) -> None:
    """Each takes descriptors. What waits has its turn, the last asked for first, and each gate once."""

    async def story() -> None:
        made, gates = unopened_mesh(tmp_path), Gates()
        made._gate = cast("Any", gates)
        for port in range(1, 31):
            for _ in range(2):
                made.knock(Knock("192.0.2.1", port, cast("Any", None)))
        await some_turns()
        assert list(gates.asked) == list(range(1, KNOCKS_MAX + 1))
        gates.asked[1].set_result(None)
        await some_turns()
        assert list(gates.asked) == [*range(1, KNOCKS_MAX + 1), 30]
        while waiting := [one for one in gates.asked.values() if not one.done()]:
            assert len(waiting) <= KNOCKS_MAX
            waiting[0].set_result(None)
            await some_turns()
        assert sorted(gates.asked) == list(range(1, 31))
        assert (made._knocking, made._to_knock) == (set(), {})

    asyncio.run(story())
