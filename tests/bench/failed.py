"""The one error of the bench."""

from __future__ import annotations


class Failed(Exception):
    """A figure could not be measured; the message says why, and counts as not met."""
