"""The agent that the tests of this folder talk to."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Agent(NamedTuple):
    """Where an agent answers, and a token of the role admin."""

    url: str
    token: str

    @property
    def address(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc
