"""mDNS: announce this agent's gate and hear of others (PROTOCOL 1). Trusted for nothing but an address to knock at.

Anybody on the network may announce anything, and a killed agent stays announced for over an hour: mDNS neither says who
is a member nor who lives.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence

import structlog
from zeroconf import Error, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

SERVICE = "_meshcron._tcp.local."
PROTOCOL = "1"

INSTANCE_ID_LETTERS = 24
"""Of the node id, in an instance name: a label has 63 bytes at most, and 96 bits are unique."""

INSTANCES_MAX = 1000
"""Announcements remembered: a stranger may invent any number. A new one takes the place of the oldest."""

ADDRESSES_MAX = 8
"""Of one announcement: how many network cards a machine has, generously."""

NODE_ID = re.compile(rb"[0-9a-z]{1,64}")

log = structlog.get_logger("meshcron.net")


class Discovery:
    """Announces the gate at `addresses` and calls `found(node id, host, gate port)` for others' of our `fingerprint`.

    `addresses` are this machine's own, on the interfaces to use (`interface_addresses`). `session` tells this start
    from earlier ones: those may still be announced. `found` hears of an address once while it stays announced, and with
    each `tell_again`.
    """

    def __init__(
        self,
        *,
        fingerprint: str,
        node_id: str,
        session: int,
        gate_port: int,
        addresses: Sequence[str],
        found: Callable[[str, str, int], None],
    ) -> None:
        self._fingerprint = fingerprint
        self._node_id = node_id
        self._session = session
        self._gate_port = gate_port
        self._addresses = list(addresses)
        self._found = found
        self._heard: dict[str, frozenset[tuple[str, str, int]]] = {}
        self._zeroconf: AsyncZeroconf | None = None
        self._service: AsyncServiceInfo | None = None
        self._failed = False

    async def start(self) -> None:
        """Listen and announce; takes half a second, others hear of us at once. Where mDNS does not work (no interface,
        no multicast) one warning is logged and nothing is found until a `move` starts it. A port of 0 is not
        announced."""
        if not self._addresses:
            log.warning("no mDNS: no network interface has an address; other agents are found by --join only")
            return
        try:
            await self._start()
        except (OSError, Error, RuntimeError) as error:  # the last: zeroconf's word for no such IPv6 address here
            if not self._failed:
                log.warning("no mDNS: other agents are found by --join only", why=str(error), addresses=self._addresses)
            await self.close()
            self._failed = True
        else:
            self._failed = False

    async def move(self, addresses: Sequence[str]) -> None:
        """Go on at other addresses of this machine; the same ones are tried again where the start failed, as without
        a free descriptor, and else nothing happens."""
        if self._failed or list(addresses) != self._addresses:
            await self.close()
            self._addresses = list(addresses)
            await self.start()

    def tell_again(self) -> None:
        """Of everything that is announced now."""
        for places in list(self._heard.values()):
            for place in sorted(places):
                self._found(*place)

    async def close(self) -> None:
        """Say goodbye; takes a quarter of a second."""
        zeroconf, self._zeroconf = self._zeroconf, None
        service, self._service = self._service, None
        self._heard.clear()
        if zeroconf is None:
            return
        try:
            try:
                if service is not None:
                    await (await zeroconf.async_unregister_service(service))
            finally:
                await zeroconf.async_close()
        except (OSError, Error) as error:
            log.warning("mDNS ended without a goodbye", why=str(error))

    async def _start(self) -> None:
        self._zeroconf = AsyncZeroconf(interfaces=self._addresses, ip_version=IPVersion.V4Only)
        await self._zeroconf.zeroconf.async_wait_for_start()
        AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])
        if self._gate_port:
            service = self._announcement()
            # Without "cooperating" zeroconf first asks for 1.2 s whether the name is taken; ours is unique by itself.
            announced = await self._zeroconf.async_register_service(service, cooperating_responders=True)
            self._service = service
            await announced

    def _announcement(self) -> AsyncServiceInfo:
        instance = f"{self._fingerprint}-{self._node_id[:INSTANCE_ID_LETTERS]}-{self._session:x}"
        return AsyncServiceInfo(
            SERVICE,
            f"{instance}.{SERVICE}",
            port=self._gate_port,
            properties={"fp": self._fingerprint, "id": self._node_id, "v": PROTOCOL},
            server=f"{instance}.local.",
            parsed_addresses=self._addresses,
        )

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Called by the browser: an announcement came, changed or was taken back."""
        before = self._heard.get(name, frozenset())
        if state_change is ServiceStateChange.Removed:
            self._heard.pop(name, None)
            return
        now = self._read(zeroconf, service_type, name)
        if now:
            if not before and len(self._heard) >= INSTANCES_MAX:
                del self._heard[next(iter(self._heard))]
            self._heard[name] = now
        for place in sorted(now - before):
            self._found(*place)

    def _read(self, zeroconf: Zeroconf, service_type: str, name: str) -> frozenset[tuple[str, str, int]]:
        """What an announcement says, as far as it has arrived (an agent's comes in one packet; what comes later is
        reported as a change). Nothing where it is not ours to know or makes no sense."""
        try:
            service = AsyncServiceInfo(service_type, name)
            complete = service.load_from_cache(zeroconf)
            node_id = self._other(service.properties) if complete else ""
        except (Error, ValueError):
            return frozenset()
        if not node_id or not service.port:
            return frozenset()
        hosts = [host for host in service.parsed_addresses(IPVersion.V4Only) if _reachable(host)]
        return frozenset((node_id, host, service.port) for host in hosts[:ADDRESSES_MAX])

    def _other(self, properties: Mapping[bytes, bytes | None]) -> str:
        """The node id of another agent with our fingerprint, else ""."""
        node_id = properties.get(b"id") or b""
        ours = properties.get(b"fp") == self._fingerprint.encode() and node_id != self._node_id.encode()
        return node_id.decode() if ours and NODE_ID.fullmatch(node_id) else ""


def _reachable(host: str) -> bool:
    """False for what is no machine's address."""
    address = ipaddress.ip_address(host)
    return not (address.is_multicast or address.is_unspecified or address.is_reserved)
