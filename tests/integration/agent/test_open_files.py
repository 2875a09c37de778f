"""An agent whose descriptors are wanted by everybody (FAULTS 26)."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from tests.integration.agent.real_agent import RealAgent, wait_for

OPEN_FILES = 256
"""Soft and hard limit of the agent. It has some 40 open by itself; a quarter of the rest is for HTTP."""

FLOOD = OPEN_FILES + 40
"""Connections that are opened and say nothing: as many as would take every descriptor, and some more. Beyond what is
accepted the kernel's queue takes 128 and answers no more: a caller waits."""

CPU_SHARE_MAX = 0.3
"""Of a processor, of an agent that is flooded and has one job a second; it was 45 % and a megabyte of log a second."""


def test_26_a_flood_of_silent_connections_leaves_descriptors_for_runs(tmp_path: Path) -> None:
    """Accepting pauses and says so once, runs go on, and when the flood ends the API answers at once."""
    limit = ("/bin/sh", "-c", f'ulimit -n {OPEN_FILES}; exec "$@"', "sh")
    agent = RealAgent(tmp_path / "data", before=limit)
    agent.start()
    try:
        agent.add("each-second", schedule="@every 1s")
        port = urlsplit(agent.url).port
        with ExitStack() as flood:
            for _ in range(FLOOD):
                caller = flood.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(("127.0.0.1", port))
            wait_for(lambda: "no HTTP connection is accepted" in agent.log, "accepting pauses")
            began, cpu = time.monotonic(), agent.cpu_seconds
            wait_for(lambda: time.monotonic() > began + 4)
            assert agent.cpu_seconds - cpu < CPU_SHARE_MAX * 4
        ended = time.monotonic()
        assert agent.client("GET", "/health").status == 200
        assert time.monotonic() - ended < 2
        done = [one for one in agent.executions("each-second") if one["status"] not in ("armed", "running")]
        assert len(done) >= 3
        assert {one["status"] for one in done} == {"success"}
        assert agent.log.count("no HTTP connection is accepted") == 1
        assert "Traceback" not in agent.log
    finally:
        agent.stop()
