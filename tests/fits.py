"""What the simulated networks ask of each message: that the real codec takes it."""

from __future__ import annotations

from meshcron.messages import Message
from meshcron.net.codec import Header, Malformed, encode


def assert_fits(message: Message) -> None:
    """The shell drops what is too large (runtime/mesh), and its sender would repeat just that for ever."""
    header = Header(getattr(message, "cluster", "c" * 32), getattr(message, "generation", 1 << 40))
    try:
        encode(header, message)
    except Malformed as error:
        raise AssertionError(f"17: a {type(message).__name__} that no peer takes: {error}") from None
