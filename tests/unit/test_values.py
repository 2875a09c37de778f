"""How people write values: what is read, and that nothing but InvalidRequest comes out of anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron import values
from meshcron.errors import InvalidRequest
from meshcron.values import Address, Reader

DAY_US = 86400 * 10**6
READERS: dict[str, Reader] = {
    "text": values.text,
    "path": values.path,
    "switch": values.switch,
    "choice": values.choice("lan", "slow"),
    "integer": values.integer(1, 10),
    "port": values.port,
    "duration": values.duration(1, DAY_US),
    "size": values.size,
    "agent_name": values.agent_name,
    "user_name": values.user_name,
    "ip": values.ip,
    "host": values.host,
    "optional_host": values.optional_host,
    "listen_address": values.listen_address,
    "peer_address": values.peer_address(8946),
    "listed": values.listed(values.text),
    "tags": values.tags,
}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text("0123456789.:[]=~smhdKMiB-", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("reader", READERS)
@given(value=ANYTHING)
def test_anything_is_read_or_refused(reader: str, value: object) -> None:
    """Whatever a TOML file may hold gives a value or InvalidRequest that names the place; never another error."""
    try:
        READERS[reader]("there", value)
    except InvalidRequest as refusal:
        assert refusal.field == "there"
        assert refusal.why
        assert refusal.hint


@pytest.mark.parametrize(
    ("reader", "given_value", "expected"),
    [
        ("path", "/var/lib/meshcron", Path("/var/lib/meshcron")),
        ("path", Path("relative"), Path.cwd() / "relative"),
        ("path", "~/x", Path.home() / "x"),
        ("path", "", None),
        ("switch", True, True),
        ("switch", "OFF", False),
        ("switch", "1", True),
        ("choice", " lan ", "lan"),
        ("integer", "10", 10),
        ("port", 0, 0),
        ("port", "65535", 65535),
        ("duration", "3s", 3_000_000),
        ("duration", "10m", 600_000_000),
        ("duration", "1h30m", 5_400_000_000),
        ("duration", "1.5s", 1_500_000),
        ("duration", "500ms", 500_000),
        ("duration", "1d", DAY_US),
        ("size", "10MiB", 10 * 2**20),
        ("size", "500KB", 500_000),
        ("size", 4096, 4096),
        ("agent_name", "größe-1.lan_x", "größe-1.lan_x"),
        ("ip", "::1", "::1"),
        ("host", "db_1.lan.", "db_1.lan."),
        ("optional_host", "", ""),
        ("listen_address", "127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("listen_address", "[::]:0", Address("::", 0)),
        ("listen_address", "localhost:80", Address("127.0.0.1", 80)),
        ("peer_address", "fe80::1", Address("fe80::1", 8946)),
        ("peer_address", "[fe80::1]:1", Address("fe80::1", 1)),
        ("peer_address", "db.lan", Address("db.lan", 8946)),
        ("listed", "one", ("one",)),
        ("tags", ["role=web", "empty=", "expr=a=b"], {"role": "web", "empty": "", "expr": "a=b"}),
        ("tags", {"role": "web"}, {"role": "web"}),
        ("tags", {f"{n:03}": "x" * 251 for n in range(257)}, {f"{n:03}": "x" * 251 for n in range(257)}),
    ],
)
def test_read(reader: str, given_value: object, expected: object) -> None:
    """The forms people write."""
    assert READERS[reader]("there", given_value) == expected


@pytest.mark.parametrize(
    ("reader", "given_value", "hint"),
    [
        ("text", 5, "quotes"),
        ("text", "a\0b", "remove"),
        ("path", "~nobody-of-that-name/x", "whole path"),
        ("switch", "maybe", "true or false"),
        ("switch", 1.0, "true or false"),
        ("choice", "loan", "did you mean lan?"),
        ("choice", "quick", "write one"),
        ("integer", "11", "1 to 10"),
        ("integer", True, "1 to 10"),
        ("integer", 2.0, "1 to 10"),
        ("integer", "9" * 5000, "1 to 10"),
        ("port", 65536, "0 to 65535"),
        ("port", "-1", "0 to 65535"),
        ("duration", 3, "such as 3s"),
        ("duration", "3", "such as 3s"),
        ("duration", "-3s", "such as 3s"),
        ("duration", "2d", "86400s"),
        ("size", "0", "such as 10MiB"),
        ("size", "10mib", "such as 10MiB"),
        ("size", -5, "such as 10MiB"),
        ("agent_name", ".hidden", "no leading dot"),
        ("agent_name", "a/b", "no leading dot"),
        ("agent_name", "ä" * 65, "at most 128"),
        ("user_name", "a b", "/etc/passwd"),
        ("user_name", "", "/etc/passwd"),
        ("ip", "eth0", "192.168.1.5"),
        ("host", "0.0.0.0", "reach this one"),
        ("host", "192.168.1.300", "host.example"),
        ("host", "-a.lan", "host.example"),
        ("host", "", "host.example"),
        ("listen_address", ":8080", "0.0.0.0:8080"),
        ("listen_address", "127.0.0.1", "127.0.0.1:8080"),
        ("listen_address", "::1:8080", "127.0.0.1:8080"),
        ("listen_address", "myhost:80", "192.168.1.5"),
        ("peer_address", "db.lan:0", "usually 8946"),
        ("peer_address", "db.lan:x", "0 to 65535"),
        ("peer_address", "a:1:2", "host.example"),
        ("tags", ["role"], "role=web"),
        ("tags", ["=web"], "K=V"),
        ("tags", ["a=1", "a=2"], "one value"),
        ("tags", ["meshcron.os=linux"], "another key"),
        ("tags", {"a": 1}, "quotes"),
        ("tags", ["a=" + "x" * 254], "255"),
        ("tags", [f"{n:03}=" + "x" * 251 for n in range(258)], "65536"),
    ],
)
def test_refused_with_the_remedy(reader: str, given_value: object, hint: str) -> None:
    """The slips people make, each with what to write instead."""
    with pytest.raises(InvalidRequest) as caught:
        READERS[reader]("there", given_value)
    assert hint in caught.value.hint


def test_address_as_text_is_what_one_dials() -> None:
    """An IPv6 host goes back into its brackets."""
    assert [str(Address("10.0.0.1", 80)), str(Address("::1", 80))] == ["10.0.0.1:80", "[::1]:80"]


def test_loopback_is_an_address_never_a_name() -> None:
    """A name could resolve anywhere, so it is not trusted to stay on this machine."""
    assert [values.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0")] == [
        True,
        True,
        False,
        False,
    ]
