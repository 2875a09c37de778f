"""Parameters behind the `?`."""

from __future__ import annotations

import pytest

from meshcron.api.query import Page, Query
from meshcron.errors import InvalidRequest


def test_values() -> None:
    """Text, the last of several, numbers, flags, times."""
    query = Query({"a": [b"1", b"2"], "f": [b""], "t": [b"1970-01-01T00:00:01Z"], "ae": ["ä".encode()]})
    assert query.all("a") == ["1", "2"]
    assert (query.text("a"), query.whole("a"), query.text("none"), query.whole("none")) == ("2", 2, None, None)
    assert (query.flag("f"), query.flag("a" * 2), query.instant("t"), query.text("ae")) == (True, None, 1_000_000, "ä")
    assert "a" in query
    assert "b" not in query


def test_members() -> None:
    """`metadata[k]=v`, also with a key beyond ASCII, which Tornado hands over as Latin-1."""
    key = "metadata[größe]".encode().decode("latin-1")
    query = Query({"metadata[a]": [b"1", b"2"], key: [b"3"], "tags[a]": [b"4"], "metadata": [b"5"]})
    assert list(query.members("metadata")) == [("a", "1"), ("a", "2"), ("größe", "3")]


def test_page() -> None:
    """The whole list in its own order unless asked otherwise."""
    assert Query({}).page() == Page(start=0, end=None, sort="", descending=False)
    assert Query({}).page(descending=True).descending
    page = Query({"_start": [b"5"], "_end": [b"15"], "_sort": [b"name"], "_order": [b"desc"]}).page()
    assert page == Page(start=5, end=15, sort="name", descending=True)
    assert page.length == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("_start", bad) for bad in (b"", b"-1", b"x", b"1.5", b"9" * 30, "٣".encode(), b"1\x00", b"\xff")],
        *[("_end", bad) for bad in (b"-1", b"x", b"2")],
        *[("_order", bad) for bad in (b"up", b"\xff", b"A\nB")],
    ],
)
def test_bad_page(name: str, value: bytes) -> None:
    """A bad value names its parameter."""
    with pytest.raises(InvalidRequest) as caught:
        Query({"_start": [b"3"], name: [value]}).page()
    assert caught.value.field == name
    assert caught.value.hint


@pytest.mark.parametrize("value", [b"maybe", b"2", b"\xff"])
def test_bad_flag(value: bytes) -> None:
    """Neither true nor false; of quotes, which a URL has none of, nobody speaks."""
    with pytest.raises(InvalidRequest) as caught:
        Query({"follow": [value]}).flag("follow")
    assert caught.value.field == "follow"
    assert "quotes" not in str(caught.value)
