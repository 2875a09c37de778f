"""What an agent is told at start and never changes while it runs."""

from __future__ import annotations

from msgspec import Struct

from meshcron.core.timing import LAN, Timing
from meshcron.messages import Endpoint
from meshcron.model import Token
from meshcron.vocabulary import VOCABULARY, Vocabulary

NOWHERE = Endpoint("", 0, 0, 0)
"""An agent that listens nowhere: alone, in tests."""


class Settings(Struct, frozen=True, kw_only=True):
    """From the configuration, the data directory and the sockets."""

    node_id: str
    name: str
    session: int
    """The number of this start (PROTOCOL 1)."""
    start_id: str = ""
    """Random, drawn for this start."""
    tags: dict[str, str]
    facts: dict[str, str]
    slots: int
    horizon_us: int
    cluster: str
    """Random id for the cluster, used if this agent forms one."""
    tokens: tuple[Token, ...]
    """The first tokens, used likewise."""
    public_key: str = ""
    endpoint: Endpoint = NOWHERE
    local_token: Token | None = None
    """This agent's own, committed with its admission."""
    priority: int = 100
    eligible: bool = True
    """False: `voter = never`."""
    form_at_once: bool = True
    """No key was given and nobody to join: a first start works at once."""
    expect: int = 1
    """Form no cluster before so many agents, this one among them, are there."""
    timing: Timing = LAN
    generation: int = 0
    """The one that an operator's recovery of this directory opens: from here on this agent alone votes. 0 = there was
    no recovery, or it is recorded already."""
    version: str = ""
    vocabulary: Vocabulary = VOCABULARY
