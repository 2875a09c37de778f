"""What is printed: aligned, harmless, and the same for a pipe as for a person without colours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.cli.screen import Screen, clean, pairs, width

NOON_US = 1_769_860_800_000_000


def screen(*, utc: bool = True) -> Screen:
    return Screen(as_json=False, utc=utc, now_us=NOON_US)


def test_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Texts to the left, numbers to the right, wide letters take two columns, nothing trails a line."""
    screen().table(("NAME", "STATE", "OK"), [("a", "success", 5), ("夜間", "", 120), ("e\u0301t\u00e9", None, 0)])
    assert capsys.readouterr().out == (
        "NAME  STATE     OK\na     success    5\n夜間  -        120\ne\u0301t\u00e9   -          0\n"
    )


def test_table_without_rows_is_its_titles(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list still says what it would show."""
    screen().table(("NAME", "OK"), [])
    assert capsys.readouterr().out == "NAME  OK\n"


def test_fields_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is known is shown; zero is known."""
    screen().fields([("name", "a"), ("owner", ""), ("runs", 0), ("tags", {})])
    assert capsys.readouterr().out == "name  a\nruns  0\n"


def test_states_alone_are_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a setting with the same word, nor a job of that name."""
    shown: list[str] = []
    monkeypatch.setattr("click.echo", shown.append)
    screen().fields([("status", "failed"), ("on_lost", "lost"), ("when", "success")])
    screen().table(("NAME", "STATE"), [("failed", "failed")])
    assert [line.count("\x1b[3") for line in shown] == [1, 0, 0, 0, 1]
    assert shown[-1].startswith("failed")


@given(st.text())
def test_nothing_moves_the_cursor(text: str) -> None:
    """Whatever stands in a job's name or command, no escape sequence reaches the terminal."""
    assert clean(text).isprintable()
    assert len(clean(text)) == len(text)


def test_when_is_absolute_and_relative() -> None:
    """A time is shown both ways, never as a dash."""
    assert screen().when("2026-01-31T12:03:00Z") == "2026-01-31 12:03:00Z (in 3m)"
    assert screen().when("0001-01-01T00:00:00Z") == "-"


def test_pairs_are_sorted() -> None:
    """The same tags look the same, whatever order they came in."""
    assert pairs({"role": "web:2", "os": "linux"}) == "os=linux, role=web:2"
    assert pairs({}) == pairs(None) == ""


@given(st.text(alphabet=st.characters(max_codepoint=126, min_codepoint=32)))
def test_width_of_ascii_is_its_length(text: str) -> None:
    """The quick path and the slow one agree."""
    assert width(text) == len(text)
