"""A schedule in words, also where cron-descriptor alone would have it wrong."""

from __future__ import annotations

import locale

import pytest

from meshcron.core.cron_text import read_fields
from meshcron.core.schedule_words import cron_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30 2 * * *", "At 02:30"),
        ("5 30 2 * * *", "At 02:30:05"),
        ("*/5 * * * *", "Every 5 minutes"),
        ("*/10 * * * * *", "Every 10 seconds"),
        ("0 9 * * MON-FRI", "At 09:00, Monday through Friday"),
        ("0 9 * * FRI-SUN", "At 09:00, Friday through Sunday"),
        ("0 0 L * *", "At 00:00, on the last day of the month"),
        ("0 0 1,L * *", "At 00:00, on day 1 of the month, or at 00:00, on the last day of the month"),
        ("0 0 * * L5", "At 00:00, on the last Friday of the month"),
        ("0 0 * * FRI#2", "At 00:00, on the second Friday of the month"),
        (
            "0 0 * 3 MON#1,FRI#2",
            (
                "At 00:00, on the first Monday of the month, only in March, "
                "or at 00:00, on the second Friday of the month, only in March"
            ),
        ),
        ("0 0 13 * FRI", "At 00:00, on day 13 of the month, or at 00:00, only on Friday"),
        ("0 0 1-7 * MON-FRI", "At 00:00, between day 1 and 7 of the month, or at 00:00, Monday through Friday"),
    ],
)
def test_words(text: str, words: str) -> None:
    """Either of two day fields is an "or", and `L` and `#` in a list keep their meaning."""
    assert cron_words(read_fields(text).text) == words


def test_words_have_an_end() -> None:
    """Nobody reads 42 alternatives: eight are told, the rest counted."""
    every = ",".join(f"{day}#{nth}" for day in range(7) for nth in range(1, 6))
    words = cron_words(f"0 0 0 * * {every}")
    assert words.count(", or ") == 8
    assert words.endswith(", or on 27 other kinds of day")


def test_words_do_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent with a German locale answers in English, like all others."""
    monkeypatch.setattr(locale, "getlocale", lambda: ("de_DE", "UTF-8"))
    assert cron_words("0 30 14 * * 1") == "At 14:30, only on Monday"
