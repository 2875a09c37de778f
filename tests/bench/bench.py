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
    goals: Goals

    def running(self, name: str, *flags: str) -> AbstractContextManager[Cluster]:
        """The column's agents, with data directories below a folder of this name."""
        return agents.running(self.folder / name, self.goals.agents, self.folder / "bytecode", *flags)
