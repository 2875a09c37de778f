"""The SQL files of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshcron.store import queries as module
from meshcron.store.queries import queries

SOURCES = "\n".join(path.read_text() for path in sorted(Path(module.__file__).parent.glob("*.py")))


@pytest.mark.parametrize("name", queries())
def test_every_query_is_used_and_one_statement(name: str) -> None:
    """Named, described, and none is left over."""
    assert f'"{name}"' in SOURCES
    assert re.match(r"(SELECT|FROM) ", queries()[name])
    assert ";" not in queries()[name]
    assert "--" not in queries()[name]


def test_every_query_is_described() -> None:
    """A sentence after its name."""
    text = (Path(module.__file__).parent / "queries.sql").read_text()
    for part in text.split("-- name: ")[1:]:
        assert part.splitlines()[1].startswith("-- ")
