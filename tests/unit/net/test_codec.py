"""Messages as frames and back: nothing is lost on the way, and no bytes get through that are no message."""

from __future__ import annotations

import json
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from meshcron.messages import Append, Hello, LogHead, Message, RosterNews, Run, TakeOver
from meshcron.net import codec
from meshcron.net.codec import (
    FRAMES_MAX,
    INTEGER_MAX,
    MESH,
    MESSAGE_BYTES_MAX,
    PUBLISHED,
    Header,
    Malformed,
    decode,
    encode,
)

HEADER = Header("c" * 32, 3)
CLASSES: list[type[Message]] = list(get_args(Message))
APPEND = Append(
    term=4,
    prev_index=9,
    prev_term=3,
    commit_index=8,
    sent_boot_us=10**12,
    cluster_us=10**15,
    heads=(LogHead(10, 4, 2**32 - 1), LogHead(11, 4, 0)),
    payload=(b"\0one", b""),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-INTEGER_MAX, INTEGER_MAX),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    types.NoneType: st.none(),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Every value that a field of this type may have."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in {Union, types.UnionType}:
        return st.one_of([values_of(each) for each in arguments])
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    assert issubclass(hint, Struct), hint
    return st.builds(hint, **{name: values_of(each) for name, each in get_type_hints(hint).items()})


def header_of(message: Message) -> Header:
    """A message that names a cluster or generation says it once."""
    return Header(
        getattr(message, "cluster", HEADER.cluster)[:64], abs(getattr(message, "generation", HEADER.generation))
    )


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_message_comes_back(kind: type[Message], data: st.DataObject) -> None:
    """What one agent says is what the other hears, for every kind of message and whatever stands in it."""
    message = data.draw(values_of(kind))
    header = header_of(message)
    if getattr(message, "generation", 0) < 0:
        with pytest.raises(Malformed):
            decode(encode(Header(header.cluster, message.generation), message))
        return
    assert decode(encode(header, message)) == (header, message)


def test_every_kind_of_message_has_a_place() -> None:
    """A new message is read somewhere: at the mesh port, at a gate, or as a gate's answer."""
    assert {kind.message for kind in codec.ALL.values()} == set(CLASSES)
    assert len(codec.ALL) == len(CLASSES)


def test_first_frame_is_flat_json_and_the_payload_is_not_in_it() -> None:
    """Anybody can read the first frame; bytes travel as they are."""
    first, *payload = encode(HEADER, APPEND)
    fields = json.loads(first)
    assert payload == [b"\0one", b""]
    assert "payload" not in fields
    assert (fields["v"], fields["cluster"], fields["generation"], fields["type"]) == (1, "c" * 32, 3, "append")


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_no_bytes_crash_it(frames: list[bytes]) -> None:
    """Noise is malformed, and nothing worse."""
    with pytest.raises(Malformed):
        decode(frames)


@given(data=st.data())
def test_no_damage_crashes_it(data: st.DataObject) -> None:
    """A message with some bytes changed, lost or doubled is a message or malformed, and nothing worse."""
    message = data.draw(values_of(data.draw(st.sampled_from(CLASSES))))
    try:
        first, *payload = encode(header_of(message), message)
    except Malformed:
        return
    at = data.draw(st.integers(0, len(first)))
    span = data.draw(st.integers(0, 3))
    damaged = first[:at] + data.draw(st.binary(max_size=4)) + first[at + span :]
    decoded_or_malformed([damaged, *payload])


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data(), kind=st.sampled_from(CLASSES))
def test_no_values_crash_it(data: st.DataObject, kind: type[Message]) -> None:
    """A well-formed frame with the right names and any values is a message or malformed, and nothing worse."""
    fields = {name: data.draw(wild) for name in kind.__struct_fields__ if name != "payload"}
    fields |= {"v": 1, "cluster": "c", "generation": data.draw(wild), "type": kind.__struct_config__.tag}
    decoded_or_malformed([json.dumps(fields).encode()])


def decoded_or_malformed(frames: Sequence[bytes]) -> None:
    """Raises only what is neither; what is decoded can be said again."""
    try:
        header, message = decode(frames)
    except Malformed:
        return
    encode(header, message)


def take_over(extra: str = "", term: str = "1", start: str = '"v":1,"cluster":"c","generation":0') -> list[bytes]:
    return [f'{{{start},"type":"take_over","term":{term}{extra}}}'.encode()]


def test_the_example_is_good() -> None:
    """The frames that the tests below spoil."""
    assert decode(take_over()) == (Header("c", 0), TakeOver(1))


@pytest.mark.parametrize("term", ["NaN", "Infinity", "-Infinity", "1e400", "1.0", "true", '"1"', "null", "[]", "1,"])
def test_what_ujson_takes_for_a_number_is_refused(term: str) -> None:
    """ujson reads more than JSON has; none of it becomes an integer of ours."""
    with pytest.raises(Malformed):
        decode(take_over(term=term))


@pytest.mark.parametrize(
    "term", [str(INTEGER_MAX + 1), str(-INTEGER_MAX - 1), str(2**64), "1" + "0" * 400, "1" + "0" * 5000]
)
def test_integer_beyond_63_bits_is_refused(term: str) -> None:
    """SQLite would raise where nobody expects it."""
    with pytest.raises(Malformed):
        decode(take_over(term=term))
    assert decode(take_over(term=str(INTEGER_MAX)))[1] == TakeOver(INTEGER_MAX)


@pytest.mark.parametrize(
    "extra", [',"x":"\\ud800"', ',"x":"\\uD800"', ',"\\udfff":1', ',"x":[{"y":"\\udc00"}]', ',"x":99999999999999999999']
)
def test_what_hurts_further_in_is_refused_wherever_it_stands(extra: str) -> None:
    """Lone surrogates have no UTF-8, and no integer is beyond 63 bits, also in fields we do not know yet."""
    with pytest.raises(Malformed):
        decode(take_over(extra))


@pytest.mark.parametrize("extra", [',"x":"\\ud83d\\ude00"', ',"x":"9999999999999999999"', ',"x":"\\\\ud800"'])
def test_what_only_looks_like_it_is_not(extra: str) -> None:
    """A pair of surrogates is a letter, digits in a string are text, a backslash before "ud" is one."""
    assert decode(take_over(extra))[1] == TakeOver(1)


def test_unknown_fields_are_passed_over() -> None:
    """A later protocol may say more."""
    assert decode(take_over(',"later":{"a":[1]}'))[1] == TakeOver(1)


def test_of_duplicate_keys_the_last_counts() -> None:
    """One parser reads a message, once: nobody can be shown one value and act on another."""
    assert decode(take_over(',"term":2,"cluster":"d"')) == (Header("d", 0), TakeOver(2))


@pytest.mark.parametrize(
    "start",
    [
        '"v":2,"cluster":"c","generation":0',
        '"v":true,"cluster":"c","generation":0',
        '"cluster":"c","generation":0',
        '"v":1,"generation":0',
        '"v":1,"cluster":7,"generation":0',
        f'"v":1,"cluster":"{"c" * 65}","generation":0',
        '"v":1,"cluster":"c"',
        '"v":1,"cluster":"c","generation":-1',
        '"v":1,"cluster":"c","generation":true',
        '"v":1,"cluster":"c","generation":1.5',
    ],
)
def test_a_wrong_header_is_refused(start: str) -> None:
    """Another framing, no cluster, no generation."""
    with pytest.raises(Malformed):
        decode(take_over(start=start))


@pytest.mark.parametrize(
    "frame",
    [b"", b"null", b"[]", b'"v"', b"\xff", b"\xed\xa0\x80", b"{}", b"[" * 5000, b'{"a":' * 5000, b"{} x"],
)
def test_what_is_no_object_is_refused(frame: bytes) -> None:
    """Deep nesting included: ujson stops by itself."""
    with pytest.raises(Malformed):
        decode([frame])


def test_a_payload_stands_where_it_belongs() -> None:
    """Neither in the JSON, nor behind a message that has none."""
    first, *_ = encode(HEADER, APPEND)
    for frames in ([first[:-1] + b',"payload":[]}'], [*take_over(), b"more"], []):
        with pytest.raises(Malformed):
            decode(frames)


@pytest.mark.parametrize("tag", ['"no such"', "null", "7", "[]", "{}", '"hello"'])
def test_only_known_kinds_are_read(tag: str) -> None:
    """A socket reads the kinds that belong there, whatever others there are."""
    with pytest.raises(Malformed):
        decode([b'{"v":1,"cluster":"c","generation":0,"type":%s,"term":1}' % tag.encode()], MESH)
    with pytest.raises(Malformed, match="not known here"):
        decode(encode(HEADER, APPEND), PUBLISHED)


def test_sizes_are_checked_on_both_sides() -> None:
    """512 KiB in all its frames, and not too many of those."""
    fits = append_of(MESSAGE_BYTES_MAX - 400)
    assert decode(encode(HEADER, fits)) == (HEADER, fits)
    for message in (append_of(MESSAGE_BYTES_MAX), append_of(*[0] * FRAMES_MAX)):
        with pytest.raises(Malformed, match="the limit"):
            encode(HEADER, message)
        with pytest.raises(Malformed, match="the limit"):
            decode([encode(HEADER, APPEND)[0], *message.payload])


def append_of(*sizes: int) -> Append:
    return Append(
        term=4,
        prev_index=9,
        prev_term=3,
        commit_index=8,
        sent_boot_us=1,
        cluster_us=1,
        payload=tuple(bytes(size) for size in sizes),
    )


def test_a_message_agrees_with_its_header() -> None:
    """Some messages name a cluster or generation themselves; it is the header's."""
    news = RosterNews(fence=None, cluster="d", roster_index=1, members=())  # type: ignore[arg-type]
    hello = Hello(profile=None, cluster="c" * 32, generation=4)  # type: ignore[arg-type]
    for message in (news, hello):
        with pytest.raises(Malformed, match="than its header"):
            encode(HEADER, message)


def test_what_is_no_utf8_is_not_sent() -> None:
    """A lone surrogate, e.g. from a file name, is the sender's mistake already."""
    run = Run(fence=None, cluster_us=1, orders=("\ud800",))  # type: ignore[arg-type]
    with pytest.raises(Malformed, match="no JSON"):
        encode(HEADER, run)
