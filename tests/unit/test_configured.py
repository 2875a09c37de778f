"""What each room is told of one configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshcron import configured
from meshcron.config import Config, Machine, load
from meshcron.core.settings import Settings
from meshcron.core.timing import LAN, SLOW
from meshcron.messages import Endpoint
from meshcron.model import Token
from meshcron.store.directory import Identity

IDENTITY = Identity(node_id="ab" * 16, public_key="public", secret_key="secret", created_wall_us=7)
HERE = Endpoint("192.0.2.1", 1, 2, 3)
LOCAL = Token(id="t", name="local", role="admin", sha256="ff", created_wall_us=7, node_id="ab" * 16)


def told(**flags: object) -> Config:
    return load(flags, {}, [], Machine("one", Path("/nowhere")))


def core_of(config: Config, *, made_key: bool = False) -> Settings:
    return configured.core_settings(
        config,
        IDENTITY,
        session=4,
        start_id="s",
        cluster="c" * 32,
        tokens=(LOCAL,),
        local=LOCAL,
        generation=0,
        endpoint=HERE,
        made_key=made_key,
    )


def test_the_core_learns_who_it_is_and_never_its_secret() -> None:
    """Of the identity: id and public key. Of the configuration: what it decides by."""
    settings = core_of(told(tag=("role=web",), priority=7, slots=3, horizon="2s"))
    assert (settings.node_id, settings.public_key, settings.name) == ("ab" * 16, "public", "one")
    assert (settings.tags, settings.priority, settings.slots) == ({"role": "web"}, 7, 3)
    assert (settings.horizon_us, settings.endpoint, settings.session) == (2_000_000, HERE, 4)
    assert settings.facts["meshcron.host"] == "one"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("flags", "eligible", "timing"),
    [({}, True, LAN), ({"voter": "never"}, False, LAN), ({"timing": "slow"}, True, SLOW)],
)
def test_words_become_what_they_mean(flags: dict[str, object], eligible: bool, timing: object) -> None:
    """A right to vote, a scale of all times."""
    settings = core_of(told(**flags))
    assert (settings.eligible, settings.timing) == (eligible, timing)


@pytest.mark.parametrize("made_key", [True, False])
def test_only_the_first_agent_of_a_key_forms_at_once(made_key: bool) -> None:
    """Nobody else can be there yet."""
    assert core_of(told(), made_key=made_key).form_at_once is made_key


def test_the_mesh_learns_where_to_listen_and_look() -> None:
    """Switches that forbid become what is allowed."""
    place = configured.place(told(bind="127.0.0.1", gate_port=5, no_mdns=True))
    assert (place.bind, place.gate_port, place.mdns) == ("127.0.0.1", 5, False)
    assert configured.place(told()).mdns


def test_the_api_answers_to_its_own_names_only() -> None:
    """Loopback's, the agent's, the one it is told to others under; a foreign name is DNS rebinding."""
    api = configured.api_settings(told(advertise="cron.example"), "ab" * 16, "passing")
    assert {"localhost", "127.0.0.1", "[::1]", "one", "cron.example"} <= api.allowed_hosts
    assert "evil.example" not in api.allowed_hosts
    assert "" not in api.allowed_hosts
    assert (api.auth_on, api.passing_secret, api.node_id, api.access_log) == (True, "passing", "ab" * 16, False)


def test_an_open_api_is_told_and_warned_of() -> None:
    """Without tokens: to the API, and in what the agent says of itself."""
    config = told(auth="off", trust_lan=True, http="192.0.2.1:8080", log_level="debug")
    api = configured.api_settings(config, "ab" * 16, "")
    assert (api.auth_on, api.trust_lan, api.access_log) == (False, True, True)
    facts = configured.facts(config, "ab" * 16, "fingerprint", 7)
    assert (facts.fingerprint, facts.started_wall_us, facts.name) == ("fingerprint", 7, "one")
    assert list(facts.warnings) == list(config.warnings()) != []
