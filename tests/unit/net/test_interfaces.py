"""The addresses of this machine."""

from __future__ import annotations

import pytest

from meshcron.net.interfaces import interface_addresses


def test_addresses_pass_and_names_become_addresses() -> None:
    """Both may be mixed; what is said twice counts once."""
    assert interface_addresses(["10.1.2.3", "lo", "127.0.0.1"]) == ["10.1.2.3", "127.0.0.1"]


@pytest.mark.parametrize("name", ["no-such-one", "", "a" * 300, "l\0o", "256.1.1.1", "größer"])
def test_what_is_no_interface_contributes_nothing(name: str) -> None:
    """A wrong name is no reason not to use the others."""
    assert interface_addresses([name, "lo"]) == ["127.0.0.1"]


def test_none_given_means_every_one_but_loopback() -> None:
    """Others cannot reach loopback."""
    found = interface_addresses([])
    assert not [address for address in found if address.startswith("127.")]
    assert len(found) == len(set(found))
