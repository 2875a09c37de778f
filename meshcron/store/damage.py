"""The error for a file that is not what was written: every one names the file and the remedy."""

from __future__ import annotations

from pathlib import Path

from meshcron.errors import DamagedStore

SALVAGE_HINT = (
    "Nothing was changed. `meshcron recover --salvage` sets the damaged files aside and goes on with what is intact."
)


def damaged(path: Path, what: object) -> DamagedStore:
    """`path` is damaged, rolled back or gone."""
    return DamagedStore(f"{path}: {what}. {SALVAGE_HINT}")


def what_of(error: DamagedStore) -> str:
    """The file and what is wrong with it, without the remedy."""
    return str(error).removesuffix(f". {SALVAGE_HINT}")
