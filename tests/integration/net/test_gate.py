"""The gate: who holds the cluster key gets an answer, a member too, a stranger nothing (FAULTS 36-38)."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import zmq
from structlog.testing import capture_logs

from meshcron.errors import StartRefused
from meshcron.messages import GateMessage, Hello, MemberInfo, Profile, Refused, Wait, Welcome
from meshcron.net import gate as module
from meshcron.net.address import endpoint
from meshcron.net.codec import Header, encode
from meshcron.net.curve import LAN, Patience, harden
from meshcron.net.gate import Gate
from meshcron.net.keys import GATE, GATE_CLIENT, ClusterKey, CurvePair, new_curve_pair
from meshcron.runtime.open_files import raise_limit
from tests.integration.net.net_stage import CLUSTER, HOST, inspected, linked, sample, stations, until
from tests.integration.net.test_strangers import CUT_SECONDS, busy, calling, closed, noises

KEY = ClusterKey(secrets.token_bytes(32))
OTHER_KEY = ClusterKey(secrets.token_bytes(32))

SUSPICION_SECONDS = 1.0
"""Four beats: who hears nothing for so long takes the other one for dead."""


def hello(node_id: str = "n") -> Hello:
    return sample(Hello, profile=sample(Profile, node_id=node_id))


def welcome(to: Hello, members: int = 1) -> Welcome:
    infos = tuple(
        sample(MemberInfo, node_id=f"{to.profile.node_id}{n}", name="m" * 30, public_key="k" * 40)
        for n in range(members)
    )
    return sample(Welcome, cluster=CLUSTER, generation=3, members=infos)


@asynccontextmanager
async def gate(
    knocked: Callable[[Hello], GateMessage | None] = welcome,
    key: ClusterKey | None = KEY,
    pair: CurvePair | None = None,
    gate_key: bytes = b"",
    patience: Patience = LAN,
) -> AsyncIterator[Gate]:
    pair = pair or new_curve_pair()
    made = Gate(key=key, pair=pair, bind=HOST, port=0, knocked=knocked, gate_key=gate_key, patience=patience)
    made.start()
    try:
        yield made
    finally:
        await made.close()


async def test_who_holds_the_key_is_answered() -> None:
    """And gets the answer to its own question, however many ask at once."""
    async with gate() as server, gate() as client:
        asked = [hello(f"n{number}") for number in range(50)]
        answers = await asyncio.gather(*(client.knock(HOST, server.port, each) for each in asked))
        assert answers == [welcome(each) for each in asked]
        assert client.counters == server.counters
        assert server.counters.refused == 0


@pytest.mark.parametrize(
    "answer",
    [
        Refused("the name is in use"),
        sample(Wait, why="forming"),
        sample(Welcome, cluster=CLUSTER, generation=2**40),
    ],
    ids=lambda answer: type(answer).__name__,
)
async def test_every_answer_comes_through(answer: GateMessage) -> None:
    """Refused and Wait are answers as well."""
    async with gate(lambda _hello: answer) as server, gate() as client:
        assert await client.knock(HOST, server.port, hello()) == answer


async def test_a_large_cluster_fits() -> None:
    """A thousand members in one Welcome."""
    async with gate(lambda who: welcome(who, 1000)) as server, gate() as client:
        assert await client.knock(HOST, server.port, hello()) == welcome(hello(), 1000)


async def test_another_key_is_told_apart_from_nobody() -> None:
    """A gate that does not know our key, or is no gate, is counted; a host that is not there is not. All say None."""
    async with gate() as server, gate(key=OTHER_KEY, patience=Patience(handshake_ms=1000)) as client:
        began = time.monotonic()
        assert await client.knock(HOST, server.port, hello()) is None
        assert time.monotonic() - began < 1.0
        assert client.counters.another_key == 1
        assert server.counters.refused >= 1
        with socket.socket() as nobody:
            nobody.bind((HOST, 0))
            assert await client.knock(HOST, nobody.getsockname()[1], hello()) is None
        assert client.counters.another_key == 1
        assert await client.knock("", 1, hello()) is None
        assert await client.knock("a" * 500, 1, hello()) is None
        assert await client.knock("no.such.host.invalid", 1, hello()) is None
        assert await client.knock(HOST, 0, hello()) is None
        assert await client.knock(HOST, 70_000, hello()) is None


async def test_no_answer_is_none_within_its_time() -> None:
    """A gate that has nothing to say says nothing."""
    async with gate(lambda _hello: None) as server, gate(patience=Patience(handshake_ms=100)) as client:
        assert await client.knock(HOST, server.port, hello()) is None
        assert client.counters == module.GateCounters()


async def test_a_member_enters_with_its_own_key() -> None:
    """It forgot the cluster key and runs no gate, but knows the gates' public key. It speaks for itself alone: with
    its key nobody else becomes a member; nor is it heard once it is none any more."""
    node = new_curve_pair()
    gates = KEY.curve_pair(GATE).public
    own = sample(Hello, profile=sample(Profile, node_id="n", public_key=node.public.decode()))
    async with gate() as server, gate(key=None, pair=node, gate_key=gates) as client:
        assert client.port == 0
        assert await client.knock(HOST, server.port, own) is None
        assert client.counters.another_key == 1
        server.set_members([new_curve_pair().public.decode(), node.public.decode()])
        assert await client.knock(HOST, server.port, own) == welcome(own)
        with capture_logs() as lines:
            assert await client.knock(HOST, server.port, hello("a friend")) is None
        assert [line["event"] for line in lines] == ["knocks with a member's key about another agent"]
        assert server.counters.uninvited == 1
        server.set_members([])
        assert await client.knock(HOST, server.port, own) is None
    async with gate(key=None, pair=node) as client:
        assert await client.knock(HOST, 1, own) is None


async def test_a_removed_member_that_is_still_connected() -> None:
    """Its connection passed the handshake while it was a member; what it says later counts no more (fault 39)."""
    node = new_curve_pair()
    own = sample(Hello, profile=sample(Profile, node_id="n", public_key=node.public.decode()))
    async with gate() as server:
        server.set_members([node.public.decode()])
        context = zmq.Context()
        raw = context.socket(zmq.DEALER)
        harden(raw, node, KEY.curve_pair(GATE).public)
        raw.connect(endpoint(HOST, server.port))
        try:
            raw.send_multipart(encode(Header("", 0), own))
            await until(lambda: raw.poll(0))
            raw.recv_multipart()
            server.set_members([])
            raw.send_multipart(encode(Header("", 0), own))
            await until(lambda: server.counters.uninvited == 1)
            assert not raw.poll(0)
        finally:
            context.destroy(linger=0)


async def test_another_key_is_said_once_in_words() -> None:
    """To the operator of the agent that knocks, however often it does; of each gate once."""
    async with gate() as server, gate() as second, gate(key=OTHER_KEY) as client:
        with capture_logs() as lines:
            for _ in range(5):
                assert await client.knock(HOST, server.port, hello()) is None
            assert await client.knock(HOST, second.port, hello()) is None
        said = [line["event"] for line in lines if "does not accept" in line["event"]]
        assert said == [
            f"the gate at {HOST}:{port} does not accept this key: another cluster's?"
            for port in (server.port, second.port)
        ]
        assert client.counters.another_key == 6


async def test_a_host_name_is_looked_up() -> None:
    """`--join` takes names."""
    async with gate() as server, gate() as client:
        assert await client.knock("localhost", server.port, hello()) == welcome(hello())


async def test_a_name_without_an_address_is_said_once_in_words() -> None:
    """Mistyped in `--join`, however often it is tried; a host that only does not answer is none of that."""
    async with gate() as client:
        with capture_logs() as lines:
            for _ in range(3):
                assert await client.knock("nowhere..invalid", 7, hello()) is None
            assert await client.knock(HOST, 7, hello()) is None
    assert [(line["event"], line["sender"], "why" in line) for line in lines] == [
        (module.NO_ADDRESS, "nowhere..invalid", True)
    ]
    assert "--join" in module.NO_ADDRESS


async def test_what_is_no_hello_is_dropped() -> None:
    """From one who holds the key: counted, said once, and the gate goes on."""
    async with gate() as server, gate() as client:
        context = zmq.Context()
        raw = context.socket(zmq.DEALER)
        harden(raw, KEY.curve_pair(GATE_CLIENT), KEY.curve_pair(GATE).public)
        raw.connect(endpoint(HOST, server.port))
        try:
            with capture_logs() as lines:
                for frames in ([b""], [b"{}"], [b"x"] * 9000, [b'{"v":1,"type":"run"}'], [b"\xff" * 1000]):
                    raw.send_multipart(frames)
                await until(lambda: server.counters.malformed == 5)
            assert [line["sender"] for line in lines if line["event"] == "malformed knock"] == [HOST]
            assert await client.knock(HOST, server.port, hello()) == welcome(hello())
        finally:
            context.destroy(linger=0)


async def test_an_answer_that_is_none_is_none() -> None:
    """From whoever holds the key and runs something else there."""
    async with gate() as client:
        context = zmq.Context()
        raw = context.socket(zmq.ROUTER)
        harden(raw, KEY.curve_pair(GATE))
        raw.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)
        port = raw.bind_to_random_port(f"tcp://{HOST}")
        try:
            for nonsense in (b"{}", b"", msgspec.json.encode({"type": "hello"})):
                before = client.counters.malformed
                asking = asyncio.create_task(client.knock(HOST, port, hello()))
                await until(lambda: raw.poll(0))
                raw.send_multipart([raw.recv_multipart()[0], nonsense])
                assert await asking is None
                assert client.counters.malformed == before + 1
        finally:
            context.destroy(linger=0)


async def test_its_sockets_have_curve_and_a_zap_domain() -> None:
    """The server's and a knock's, in a context that the mesh does not share."""
    seen: list[int] = []

    def knocked(who: Hello) -> GateMessage:
        for context in (server._context, client._context):
            seen.extend(inspected(context))
        return welcome(who)

    async with gate(knocked) as server, gate() as client:
        await client.knock(HOST, server.port, hello())
        assert sorted(seen) == sorted([zmq.ROUTER, zmq.ROUTER, zmq.DEALER])
        assert server._context is not client._context


async def test_noise_does_not_disturb_it() -> None:
    """Bytes that are no handshake, over and over, while newcomers knock."""
    chance = random.Random(7)
    async with gate() as server, gate() as client:
        for _ in range(10):
            callers = []
            for noise in noises(chance):
                caller = socket.create_connection((HOST, server.port), timeout=5)
                caller.send(noise)
                callers.append(caller)
            assert await client.knock(HOST, server.port, hello()) == welcome(hello())
            for caller in callers:
                caller.close()
        assert server.counters.malformed == 0


async def test_half_open_connections_do_not_keep_newcomers_out() -> None:
    """Five hundred that say nothing: a knock is answered at once, and they are cut off after the handshake time."""
    async with gate() as server, gate() as client:
        callers = [socket.create_connection((HOST, server.port), timeout=5) for _ in range(500)]
        try:
            began = time.monotonic()
            assert await client.knock(HOST, server.port, hello()) == welcome(hello())
            print(f"answered behind 500 half-open connections after {time.monotonic() - began:.3f} s")
            for caller in callers:
                caller.setblocking(False)
            await until(lambda: all(map(closed, callers)))
            await until(lambda: not server._open)
        finally:
            for caller in callers:
                caller.close()
        assert server.counters.shut == 0


async def test_37_a_flooded_gate_leaves_the_mesh_alone() -> None:
    """As many half-open connections as a gate bears, from opening to the cut: two members beside it talk on."""
    raise_limit()
    async with gate() as server, stations("ab") as (a, b), busy(a, b) as took:
        async with calling(server.port, module.CONNECTIONS_MAX - 1) as said:
            await said.readline()
            talked = len(took)
            await asyncio.wait_for(said.readline(), CUT_SECONDS)
        print(f"a message took {max(took):.3f} s at most, of {len(took)}")
        assert len(took) > talked
        assert max(took) < SUSPICION_SECONDS
        assert linked(a, b)
        assert server.counters.shut == 0


async def test_a_flood_shuts_it_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather no newcomers than an agent without descriptors: all are dropped and nobody gets in; then it is open."""
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 50)
    async with gate() as server, gate() as client:
        callers = [socket.create_connection((HOST, server.port), timeout=5) for _ in range(100)]
        await until(lambda: server.counters.shut)
        await until(lambda: not listening(server.port))
        for caller in callers:
            caller.close()
        await until(lambda: listening(server.port))
        await until(lambda: len(server._open) < 50)
        answers = [await client.knock(HOST, server.port, hello()) for _ in range(5)]
        assert welcome(hello()) in answers


def listening(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((HOST, port)) == 0


async def test_a_taken_port_is_named_with_its_remedy() -> None:
    """As the mesh ports are."""
    async with gate() as server:
        second = Gate(key=KEY, pair=new_curve_pair(), bind=HOST, port=server.port, knocked=welcome)
        with pytest.raises(StartRefused, match=f"gate-port {server.port} on {HOST}: .*--gate-port"):
            second.start()


@pytest.mark.parametrize(("bind", "port", "remedy"), [("192.0.2.99", 0, "--bind"), ("::1", 0, "")])
async def test_an_address_that_is_not_ours(bind: str, port: int, remedy: str) -> None:
    """Refused with the remedy; IPv6 is an address like any other."""
    made = Gate(key=KEY, pair=new_curve_pair(), bind=bind, port=port, knocked=welcome)
    if remedy:
        with pytest.raises(StartRefused, match=remedy):
            made.start()
        return
    made.start()
    try:
        async with gate() as client:
            assert await client.knock(bind, made.port, hello()) == welcome(hello())
    finally:
        await made.close()
