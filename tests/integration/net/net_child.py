"""A peer in a process of its own, which a test may kill or stop: it talks all the time, as a leader does."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

from meshcron.net.keys import CurvePair
from meshcron.net.transport import Peer
from tests.integration.net.net_stage import Station, append, heartbeat

BEAT_SECONDS = 0.01
"""Often enough that its last words are on their way when it dies."""


async def talk(node_id: str, public: str, secret: str, ports: list[int], peer: dict[str, object]) -> None:
    station = Station(node_id, CurvePair(public.encode(), secret.encode()))
    mesh_port, pub_port = ports or (0, 0)
    station.up(mesh_port, pub_port)
    other = Peer(**peer)  # type: ignore[arg-type]
    station.transport.set_peers([other])
    print(json.dumps([station.transport.mesh_port, station.transport.pub_port]), flush=True)
    while True:
        station.transport.publish("t", heartbeat())
        station.transport.send(other.node_id, append())
        await asyncio.sleep(BEAT_SECONDS)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(talk(*json.loads(sys.argv[1])))
