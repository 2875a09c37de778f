"""Imports point inward: the core knows nothing of disk, net or clock, and nobody but `main` sees everything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "meshcron").rglob("*.py"))

INNER = set("chain commands durations entries errors files messages model rows vocabulary __version__".split())
"""What everybody may import: plain values, which import nothing of ours but each other."""

ROOMS: dict[str, set[str]] = {
    **dict.fromkeys(INNER, INNER),
    "__init__": set(),
    "__main__": {"cli"},
    "hangup": set(),
    "values": {"durations", "errors"},
    "config": {"values", "errors"},
    "reload": {"config", "errors"},
    "configured": INNER
    | {"config", "core.settings", "core.timing", "api.settings", "runtime.mesh", "runtime.standing", "store.directory"},
    "core": INNER | {"core"},
    "store": INNER | {"store"},
    "net": INNER | {"net"},
    "notify": INNER | {"notify"},
    "runtime": INNER | {"values", "core", "store", "net", "runtime", "service"},
    "service": {"model", "errors", "commands"},
    "api": INNER | {"values", "service", "api"},
    "web": INNER | {"service", "api", "web"},
    "cli": INNER | {"values", "config", "hangup", "main", "cli", "core.schedule", "net.keys"},
}
"""What the modules of a room may import of ours. `main` is not here: it alone sees all."""

LIBRARIES: dict[str, str] = {
    "apprise": r"notify/apprise\.py",
    "click": r"cli/.*",
    "cron_descriptor": r"core/schedule_words\.py",
    "croniter": r"core/schedule\.py",
    "crontab": r"cli/.*",
    "platformdirs": r"config\.py",
    "prometheus_client": r"api/.*|runtime/.*|main\.py",
    "psutil": r"runtime/.*",
    "sqlite3": r"store/.*",
    "tornado": r"api/.*|web/.*|notify/.*|runtime/.*|main\.py|cli/root\.py",
    "uvloop": r"runtime/.*|main\.py",
    "yaml": r"cli/.*",
    "zeroconf": r"net/discovery\.py",
    "zmq": r"net/.*|cli/root\.py",
}
"""Where a library is used, so that it can be replaced there (cli/root.py only asks versions)."""

IMPURE = set(
    "asyncio io logging multiprocessing os pathlib queue random secrets select shutil signal socket ssl structlog "
    "subprocess tempfile threading time urllib uuid".split()
)
"""No pure module needs these: they are clock, chance, disk, net and processes."""


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_inward(file: Path) -> None:
    """A module imports only rooms further in, a library only in its own room, and pure code nothing impure."""
    inside = file.relative_to(ROOT / "meshcron")
    room = inside.parts[0].removesuffix(".py")
    for name in imports(file):
        top, _, ours = name.partition(".")
        if top == "meshcron" and room != "main":
            assert any(f"{ours}.".startswith(f"{each}.") for each in ROOMS[room]), f"{inside} imports {name}"
        if top in LIBRARIES:
            assert re.fullmatch(LIBRARIES[top], str(inside)), f"{inside} imports {name}"
        if room in INNER | {"core"}:
            assert top not in IMPURE, f"{inside} is pure and imports {name}"
