"""Log lines that a peer can cause: enough to see it, never enough to fill a disk."""

from __future__ import annotations

from structlog.testing import capture_logs

from meshcron.net.complaints import REMEMBERED_MAX, SILENCE_SECONDS, Complaints


def test_once_a_minute_of_a_kind_and_sender() -> None:
    """The first is said at once, the next after a minute; another sender or kind is another line."""
    now = 100.0
    complaints = Complaints(lambda: now)
    with capture_logs() as lines:
        for _ in range(1000):
            complaints.say("malformed message", "a", "why")
        complaints.say("malformed message", "b")
        complaints.say("foreign", "a")
    assert [(line["event"], line["sender"]) for line in lines] == [
        ("malformed message", "a"),
        ("malformed message", "b"),
        ("foreign", "a"),
    ]
    now += SILENCE_SECONDS
    with capture_logs() as lines:
        complaints.say("malformed message", "a", "why")
        complaints.say("malformed message", "a", "why")
    assert [line["why"] for line in lines] == ["why"]


def test_any_number_of_senders_is_a_bounded_number_of_lines() -> None:
    """Where anybody may be a sender, the surplus shares a line; a minute later the places are free again."""
    now = 0.0
    complaints = Complaints(lambda: now)
    with capture_logs() as lines:
        for number in range(3 * REMEMBERED_MAX):
            complaints.say("malformed knock", str(number))
    assert len(lines) == REMEMBERED_MAX + 1
    assert lines[-1]["sender"] == "others"
    now += SILENCE_SECONDS
    with capture_logs() as lines:
        complaints.say("malformed knock", "new")
    assert [line["sender"] for line in lines] == ["new"]
