"""Whatever a seed dies of, the one command that runs exactly it again is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replayed(seed: int, command: str) -> Iterator[None]:
    """What fails in here fails as this seed; `command` runs it again."""
    try:
        yield
    except Exception as failure:
        raise AssertionError(f"seed {seed}: {type(failure).__name__}: {failure}\nreplay: {command}") from failure
