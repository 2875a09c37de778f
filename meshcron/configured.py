"""What each room is told of the configuration, in that room's own terms."""

from __future__ import annotations

from meshcron import __version__
from meshcron.api.settings import ApiSettings, allowed_hosts
from meshcron.config import Config
from meshcron.core.settings import Settings
from meshcron.core.timing import LAN, SLOW
from meshcron.messages import Endpoint
from meshcron.model import Token
from meshcron.runtime.mesh import Place
from meshcron.runtime.standing import Facts, machine_facts
from meshcron.store.directory import Identity
from meshcron.vocabulary import VOCABULARY


def core_settings(
    config: Config,
    identity: Identity,
    *,
    session: int,
    start_id: str,
    cluster: str,
    tokens: tuple[Token, ...],
    local: Token,
    generation: int,
    endpoint: Endpoint,
    made_key: bool,
) -> Settings:
    """For the core. `cluster`, `tokens`: of the cluster that it forms, if it forms one. `generation`: the one that this
    start opens, 0 = none. `made_key`: nobody else can have this key yet."""
    return Settings(
        node_id=identity.node_id,
        name=config.name,
        session=session,
        start_id=start_id,
        tags=dict(config.tag),
        facts=machine_facts(config.name),
        slots=config.slots,
        horizon_us=config.horizon_us,
        cluster=cluster,
        tokens=tokens,
        generation=generation,
        public_key=identity.public_key,
        endpoint=endpoint,
        local_token=local,
        priority=config.priority,
        eligible=config.voter == "auto",
        form_at_once=made_key,
        expect=config.expect,
        timing=SLOW if config.timing == "slow" else LAN,
        version=__version__,
        vocabulary=VOCABULARY,
    )


def place(config: Config) -> Place:
    """For the mesh: where this agent listens and looks."""
    return Place(
        bind=config.bind,
        advertise=config.advertise,
        gate_port=config.gate_port,
        mesh_port=config.mesh_port,
        pub_port=config.pub_port,
        join=config.join,
        mdns=not config.no_mdns,
        mdns_interfaces=config.mdns_interface,
        slow_links=config.timing == "slow",
    )


def facts(config: Config, node_id: str, fingerprint: str, started_wall_us: int) -> Facts:
    """What this agent says of itself. `fingerprint`: the cluster key's."""
    return Facts(
        node_id=node_id,
        name=config.name,
        fingerprint=fingerprint,
        slots=config.slots,
        machine=machine_facts(config.name),
        started_wall_us=started_wall_us,
        warnings=tuple(config.warnings()),
    )


def api_settings(config: Config, node_id: str, passing_secret: str) -> ApiSettings:
    """For the API. `passing_secret`: what tells it that a request was passed on."""
    names = {"localhost", "127.0.0.1", "::1", config.http.host, config.advertise, config.name}
    return ApiSettings(
        agent=config.name,
        allowed_hosts=allowed_hosts(name for name in names if name),
        node_id=node_id,
        auth_on=config.auth == "on",
        trust_lan=config.trust_lan,
        passing_secret=passing_secret,
        access_log=config.log_level == "debug",
    )
