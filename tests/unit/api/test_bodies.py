"""Bytes that anybody may send: a JSON value, or InvalidRequest in little time and memory; nothing else ever."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.api.bodies import DEPTH_MAX, VALUES_MAX, kind, merge_patch, parse, parse_object, printable
from meshcron.errors import InvalidRequest
from tests.unit.api.bad_input import HUGE_BODIES, REFUSED_BODIES

MIB = 1024 * 1024


@pytest.mark.parametrize("body", REFUSED_BODIES, ids=lambda body: repr(body[:24]))
def test_refused(body: bytes) -> None:
    """Each says what is wrong."""
    with pytest.raises(InvalidRequest, match=REFUSED_BODIES[body]):
        parse(body)


@pytest.mark.parametrize("written", ["NaN", "-Infinity", "1e400", "9" * 500, '"\\u0000"', '"x\\udfff"'])
def test_the_field_at_fault_is_named(written: str) -> None:
    """Wherever it stands; where all of the body is one bad value, that is said."""
    for text, field in {
        '{"a": 1, "retries": %s}': "retries",
        '{"limits": {"memory": %s}}': "limits.memory",
        '{"codes": [1, 2.5, %s], "b": 1e400}': "codes.2",
        "[[%s]]": "0.0",
        "%s": "body",
    }.items():
        with pytest.raises(InvalidRequest) as caught:
            parse((text % written).encode())
        assert caught.value.field == field
        assert caught.value.hint


@pytest.mark.parametrize("what", HUGE_BODIES)
def test_huge_takes_little(what: str) -> None:
    """Whatever fits the largest body is read or refused in under 50 ms with flat memory (FAULTS 41)."""
    body = HUGE_BODIES[what]
    took = []
    for _ in range(3):
        began = time.thread_time()  # what others do to the machine does not count
        with contextlib.suppress(InvalidRequest):
            parse(body)
        took.append(time.thread_time() - began)
    assert min(took) < 0.05
    tracemalloc.start()
    with contextlib.suppress(InvalidRequest):
        parse(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MIB


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_depth_is_counted_outside_strings() -> None:
    """The limit itself passes, one more does not, and brackets in a string count as nothing."""
    parse(nested(DEPTH_MAX))
    with pytest.raises(InvalidRequest, match="deeper"):
        parse(nested(DEPTH_MAX + 1))
    assert parse(json.dumps(["[" * 1000, 'a"' + "{" * 1000]).encode()) == ["[" * 1000, 'a"' + "{" * 1000]


def test_values_are_counted() -> None:
    """As many values as allowed, and one more."""
    parse(b"[" + b"1," * (VALUES_MAX - 1) + b"1]")
    with pytest.raises(InvalidRequest, match=str(VALUES_MAX)):
        parse(b"[" + b"1," * VALUES_MAX + b"1]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_json_is_read_as_it_is(value: object, ascii_only: bool) -> None:
    """What the stdlib writes is read back, but for NUL."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    if "\\u0000" in text:
        return
    assert parse(text.encode()) == value


@given(st.binary() | st.text().map(str.encode) | st.text('{}[]",:0123456789.eE-+ \\untrf\x00a').map(str.encode))
def test_any_bytes(body: bytes) -> None:
    """A value or InvalidRequest, nothing else."""
    try:
        parse(body)
    except InvalidRequest as error:
        assert error.why


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"a"', b"true"])
def test_only_objects(body: bytes) -> None:
    """A body that is no object names what it is."""
    with pytest.raises(InvalidRequest, match=r"must be a JSON object, not (an array|null|a number|a string|a boolean)"):
        parse_object(body)


def test_kinds() -> None:
    """Every type of JSON has its name."""
    values: tuple[object, ...] = (None, True, 1, 1.5, "", [], {})
    kinds = [kind(value) for value in values]
    assert kinds == ["null", "a boolean", "a number", "a number", "a string", "an array", "an object"]


RFC_7396: list[tuple[object, object, object]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
"""The examples of RFC 7396, appendix A: target, patch, result."""


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merge_patch(target: object, patch: object, result: object) -> None:
    """The RFC's own examples."""
    assert merge_patch(target, patch) == result


def test_printable() -> None:
    """What stands in a message is short and moves no cursor."""
    assert printable("a\r\nb\u202ec") == "a\ufffd\ufffdb\ufffdc"
    assert printable("a" * 100) == "a" * 57 + "..."
