"""The state diagrams of docs/PROTOCOL.md, made from the tables that the code goes by.

`python -m tests.diagrams` writes them anew between their marks; tests/unit/test_diagrams.py demands that they are so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshcron.core.catalog_members import STANDING_CHANGES
from meshcron.core.seen import DEAD, SEEN_CHANGES
from meshcron.core.voter import ROLE_CHANGES
from meshcron.model import STATUS_CHANGES

PAGE = Path(__file__).parents[1] / "docs" / "PROTOCOL.md"

BLOCK = re.compile(r"(<!-- made from ([\w.]+) by tests/diagrams.py -->\n).*?(<!-- end -->)", re.DOTALL)

Changes = Mapping[Any, str]
"""(old, new) -> what brings it about; None = there is nothing yet, or no more."""

TABLES: dict[str, Changes] = {
    "core.catalog_members.STANDING_CHANGES": STANDING_CHANGES,
    "core.voter.ROLE_CHANGES": {(None, "follower"): "start", **ROLE_CHANGES},
    "core.seen.SEEN_CHANGES": {
        **SEEN_CHANGES,
        ("accepted", None): "forgotten by a recovery, which makes it lost",
        **{(state, None): "forgotten once acknowledged and start_by has passed" for state in sorted(DEAD)},
    },
    "model.STATUS_CHANGES": STATUS_CHANGES,
}
"""Under the name that the page's mark gives."""


def diagram(changes: Changes) -> str:
    """A table as a mermaid block."""
    lines = [f"  {_state(old)} --> {_state(new)}: {why}" for (old, new), why in changes.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"]) + "\n"


def _state(name: str | None) -> str:
    return name.replace(" ", "_") if name else "[*]"


def drawn(page: str) -> str:
    """The page with its diagrams as the tables have them. Raises KeyError for a mark that names no table."""
    return BLOCK.sub(lambda found: found[1] + diagram(TABLES[found[2]]) + found[3], page)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
