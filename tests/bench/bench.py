"""What every figure is given: where to work, what is to be met, how many agents."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import agents
from agents import Cluster
from goals import Goals


@dataclass(frozen=True)
class Bench:
    """One run of one column."""

    folder: Path
    bytecode: Path
    goals: Goals

    def running(self, name: str) -> AbstractContextManager[Cluster]:
        """The column's agents, one cluster, with data directories below a folder of this name."""
        return agents.running(self.folder / name, self.goals.agents, self.bytecode)

    def made(self, name: str) -> Cluster:
        """The same, not started yet."""
        return agents.made(self.folder / name, self.goals.agents, self.bytecode)

    def job(self, body: dict[str, object]) -> dict[str, object]:
        """A job that one agent of the column runs each time."""
        return body | ({"tags": self.goals.tags} if self.goals.tags else {})
