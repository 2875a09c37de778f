"""Single values: the typed value, or InvalidRequest naming the field and the remedy."""

# The tables of bad values hold empty lists and objects, whose items have no type to name.
# mypy: disable-error-code="var-annotated"

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.api import fields
from meshcron.errors import InvalidRequest
from meshcron.model import SECOND_US

GOOD: list[tuple[Any, object, object]] = [
    (fields.line(), "", ""),
    (fields.line(), "größe 日本", "größe 日本"),
    (fields.text, "a\n\tb\r\n", "a\n\tb\r\n"),
    (fields.name, "cron_job", "cron_job"),
    (fields.name, "a.b-c_9", "a.b-c_9"),
    (fields.name, "größe", "größe"),
    (fields.name, "नमस्ते", "नमस्ते"),
    (fields.name, "x" * 128, "x" * 128),
    (fields.name, "_", "_"),
    (fields.flag, True, True),
    (fields.flag_word, "TRUE", True),
    (fields.flag_word, "0", False),
    (fields.flag_word, False, False),
    (fields.whole(0, 9), 9, 9),
    (fields.whole(-1, 9), -1, -1),
    (fields.whole(0, 9), 3.0, 3),
    (fields.number(1, 2), 1, 1.0),
    (fields.choice("a", "b"), "b", "b"),
    (fields.duration, "10s", 10 * SECOND_US),
    (fields.duration, "1h30m", 5400 * SECOND_US),
    (fields.duration, " 1.5s ", 1_500_000),
    (fields.duration, 10, 10 * SECOND_US),
    (fields.duration, 0.1, 100_000),
    (fields.duration, "10", 10 * SECOND_US),
    (fields.duration, "", 0),
    (fields.instant, "1970-01-01T00:00:01Z", SECOND_US),
    (fields.instant, "", 0),
    (fields.email, "john@doe.com", "john@doe.com"),
    (fields.email, "a@b, c@d.e", "a@b, c@d.e"),
    (fields.email, "", ""),
    (fields.account, "johndoe", "johndoe"),
    (fields.account, "", ""),
    (fields.account, "svc-web$", "svc-web$"),
    (fields.timezone, "Europe/Berlin", "Europe/Berlin"),
    (fields.timezone, "", ""),
    (fields.texts, {"a": True, "b": 2, "c": 1.5, "d": "x", "e": None}, {"a": "true", "b": "2", "c": "1.5", "d": "x"}),
    (fields.tags, {"role": "web:2", "zone": "eu"}, {"role": "web:2", "zone": "eu"}),
    (fields.tags, {}, {}),
    (fields.env, {"A_1": "x"}, {"A_1": "x"}),
    (fields.configs, {"files": {"forward": True}}, {"files": {"forward": "true"}}),
]


@pytest.mark.parametrize(("check", "value", "found"), GOOD)
def test_good(check: Any, value: object, found: object) -> None:
    """What is right comes out typed."""
    assert check(value, "field") == found


BAD: list[tuple[Any, object]] = [
    *[(fields.line(), bad) for bad in (None, 1, True, [], {}, "a\nb", "a\x00", "\x7f", "\x85", "\u2028", "x" * 257)],
    *[(fields.text, bad) for bad in (None, 1, "\x00", "\x1b[2J", "\x9b", "x" * (1024 * 1024 + 1))],
    *[
        (fields.name, bad)
        for bad in (
            *(None, 1, "", ".", "..", ".hidden", "../x", "a/b", "a b", "a\x00", "a\r\n", "\u202eabc", "a\u200b"),
            *("x" * 129, "ä" * 65, "x" * 10_000, "e\u0301", "\u0301a", "a:b", "a%b", "💥", "\ud800", "a\\b", "½"),
        )
    ],
    *[(fields.flag, bad) for bad in (None, 0, 1, "true", "", [], {})],
    *[(fields.flag_word, bad) for bad in (None, 1, "yes", "", [], {})],
    *[(fields.whole(0, 9), bad) for bad in (None, -1, 10, 1.5, True, "1", "", [], {}, 10**400)],
    *[(fields.number(1, 2), bad) for bad in (None, 0.9, 2.1, True, "1", [], 10**400)],
    *[(fields.choice("a", "b"), bad) for bad in (None, 1, "", "A", "c", [], {}, "x" * 10**6)],
    *[(fields.duration, bad) for bad in (None, True, [], {}, "ten", "-1s", "1", "1x") if bad != "1"],
    *[(fields.duration, bad) for bad in (-1, 10**400, 1e300, "9999999h", "1s" * 100, "1e3s", "٣s")],
    *[(fields.instant, bad) for bad in (None, 1, True, "tomorrow", "2030-01-01", "x" * 10**6)],
    *[(fields.email, bad) for bad in (None, 1, "john", "@", "a@b@c", "a b@c", "a@b;c@d", "a@b,", "a@b\r\nBcc: x@y")],
    *[(fields.account, bad) for bad in (None, 1, "a b", "a:b", "a/b", "-x", "a\n", "x" * 257, "\x00")],
    *[(fields.timezone, bad) for bad in (None, 1, "Europe Berlin", "../etc/passwd", "x" * 65)],
    *[(fields.texts, bad) for bad in (None, 1, "a", [], {"": "x"}, {"a": []}, {"a": {}}, {"a\n": "x"}, {"a": "\x00"})],
    (fields.texts, {str(i): "x" for i in range(257)}),
    (fields.texts, {"k" * 257: "x"}),
    *[(fields.tags, bad) for bad in ({"a": "web:x"}, {"a": "web:0"}, {"a": "web:-1"}, {"a": "web:"}, {"a": ":2"})],
    *[(fields.tags, bad) for bad in ({"a": "web:9999999"}, {"a": "web: 2"}, {"a": "b\nc"}, {"a": "x" * 257}, [])],
    *[(fields.env, bad) for bad in ({"1A": "x"}, {"A-B": "x"}, {"A=B": "x"}, {"MESHCRON_JOB": "x"}, "A=1", [])],
    *[(fields.configs, bad) for bad in (None, [], {"a": "b"}, {"a": {"b": []}})],
]


@pytest.mark.parametrize(("check", "value"), BAD)
def test_bad(check: Any, value: object) -> None:
    """What is wrong names the field, says why in a short sentence, and how it would be right."""
    with pytest.raises(InvalidRequest) as caught:
        check(value, "field")
    error = caught.value
    assert error.field == "field" or error.field.startswith("field.")
    assert 0 < len(error.why) < 200
    assert error.hint
    assert (error.why + error.hint + error.field).isprintable()


def test_members_are_named() -> None:
    """The path leads to the member at fault."""
    with pytest.raises(InvalidRequest) as caught:
        fields.tags({"role": "web:x"}, "tags")
    assert caught.value.field == "tags.role"
    with pytest.raises(InvalidRequest) as caught:
        fields.items([1, "x"], "success_exit_codes", fields.whole(0, 255))
    assert caught.value.field == "success_exit_codes.1"


@given(st.text())
def test_names_are_safe_everywhere(text: str) -> None:
    """What passes as a name is no path, no header, no line end, and at most 128 bytes."""
    try:
        name = fields.name(text, "name")
    except InvalidRequest:
        return
    assert name == text
    assert 1 <= len(name.encode()) <= 128
    assert name[0] != "."
    assert not set(name) & set("/\\:%?#&=\r\n\x00 \t\"'<>")
