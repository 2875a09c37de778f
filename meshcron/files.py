"""Names of files in a data directory that the agent and the command line both know."""

from __future__ import annotations

AGENT_FILE = "agent.json"
"""Where the running agent is reached."""

LOCAL_FILE = "local.token"
"""The token for programs on its machine."""
