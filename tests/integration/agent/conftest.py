"""A real agent in a process of its own, which a test may kill and start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

READY_SECONDS = 20.0


def wait_for(condition: Callable[[], Any], seconds: float = READY_SECONDS) -> Any:
    """The first true value of a condition. Fails when it stays false for too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


class RealAgent:
    """`meshcron up` on one data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        (self.folder / "agent.json").unlink(missing_ok=True)
        flags = ["--name", "one", "--data-dir", str(self.folder), "--http", "127.0.0.1:0"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MESHCRON_")}
        with self.folder.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "meshcron", "up", *flags], env=environment, stdout=log, stderr=log
            )
        wait_for(lambda: self._ended() or (self.folder / "agent.json").exists())
        assert self.process.poll() is None, self.folder.with_suffix(".log").read_text()

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """As a power cut would: kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """TERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(READY_SECONDS)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request with the local token."""
        record = json.loads((self.folder / "agent.json").read_text())
        token = (self.folder / "local.token").read_text().strip()
        request = urllib.request.Request(
            record["url"] + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RealAgent]:
    """An agent that runs, and does not outlive its test."""
    real = RealAgent(tmp_path / "data")
    real.start()
    yield real
    if real.process is not None and real.process.poll() is None:
        real.stop()
