"""The SQL of schema.sql and queries.sql, read from the package once."""

from __future__ import annotations

from importlib.resources import files

_NAME = "-- name: "


def schema() -> str:
    """The statements that make an empty database of the present version."""
    return _text("schema.sql")


def queries() -> dict[str, str]:
    """The statements of queries.sql by name, without their comments and semicolons."""
    found = {}
    for part in _text("queries.sql").split(_NAME)[1:]:
        name, _, rest = part.partition("\n")
        lines = [line for line in rest.splitlines() if line and not line.startswith("--")]
        found[name] = "\n".join(lines).rstrip(";")
    return found


def _text(name: str) -> str:
    return files("meshcron.store").joinpath(name).read_text(encoding="utf-8")
