"""Transports talk over real sockets, and heal by themselves from what happens to their peers."""

from __future__ import annotations

import asyncio
import errno
import select
import time
from itertools import pairwise
from typing import Any

import pytest
import zmq
from structlog.testing import capture_logs

from meshcron.errors import StartRefused
from meshcron.messages import Append, Order, Run, TakeOver
from meshcron.net import transport as module
from meshcron.net.address import endpoint
from meshcron.net.codec import MESSAGE_BYTES_MAX, Header, Malformed, decode, encode
from meshcron.net.curve import harden
from meshcron.net.transport import Peer
from tests.integration.net.net_stage import (
    CLUSTER,
    HOST,
    Station,
    acquaint,
    append,
    close,
    heartbeat,
    linked,
    run,
    sample,
    stations,
    subscribed,
    until,
)

PUBLISHED = 4000
"""Of 10 kB each: a thousand may wait at either end, and in the kernel what goes into its buffers."""

BATCH = 100


async def test_three_talk() -> None:
    """Each hears each by name, with the sender's generation, addressed and published."""
    async with stations("abc") as all_three:
        a, b, c = all_three
        for one in all_three:
            for other in all_three:
                if one is not other:
                    assert one.transport.send(other.node_id, TakeOver(ord(one.node_id)))
        await until(lambda: all(len(each.heard) == 2 for each in all_three))
        assert sorted(b.heard) == [("a", 7, TakeOver(97)), ("c", 7, TakeOver(99))]
        await subscribed(a, c)
        await subscribed(b, c)
        assert c.transport.counters.dropped == 0


async def test_a_topic_is_no_prefix() -> None:
    """Who hears "role=web" does not hear "role=webmaster"."""
    async with stations("ab") as (a, b):
        b.transport.subscribe(frozenset({"role=web"}))
        await subscribed(b, a, "role=web")
        b.heard.clear()
        a.transport.publish("role=webmaster", run(10))
        a.transport.publish("role=we", run(11))
        a.transport.publish("t", run(12))
        a.transport.publish("role=web", run(13))
        await until(lambda: run(13) in b.messages("a"))
        assert [message for message in b.messages("a") if message != run()] == [run(13)]


async def test_topics_may_change_at_any_time() -> None:
    """Also for peers that come later."""
    async with stations("ab", start=False) as (a, b):
        b.transport.subscribe(frozenset({"x", "y"}))
        acquaint(a, b)
        await subscribed(b, a, "x")
        b.transport.subscribe(frozenset({"y", "z"}))
        await subscribed(b, a, "z")
        b.heard.clear()
        a.transport.publish("x", run(10))
        a.transport.publish("y", run(11))
        await until(lambda: run(11) in b.messages("a"))
        assert run(10) not in b.messages("a")


async def test_only_heartbeats_and_runs_are_published() -> None:
    """All else has one addressee: published, it is malformed, and says so once."""
    async with stations("ab") as (a, b):
        await subscribed(b, a)
        b.heard.clear()
        with capture_logs() as lines:
            for _ in range(5):
                a.transport.publish("t", append())
            a.transport.publish("t", heartbeat())
            await until(lambda: heartbeat() in b.messages("a"))
        assert b.transport.counters.malformed == 5
        assert [line["sender"] for line in lines if line["event"] == "malformed message"] == ["a"]
        assert not [message for message in b.messages("a") if isinstance(message, Append)]


async def test_another_cluster_is_not_heard() -> None:
    """Before `enter` nobody is; after it, those of the same cluster, of any generation."""
    async with stations("ab") as (a, b):
        c = Station("c")
        c.up(cluster="")
        try:
            acquaint(a, b, c)
            await until(lambda: linked(a, b, c))
            assert not c.transport.send("a", TakeOver(1))
            c.transport.publish("t", run())
            a.transport.send("c", TakeOver(1))
            await until(lambda: c.transport.counters.foreign == 1)
            c.transport.enter("another", 1)
            c.transport.send("a", TakeOver(2))
            await until(lambda: a.transport.counters.foreign == 1)
            c.transport.enter(CLUSTER, 8)
            c.transport.send("a", TakeOver(3))
            await until(lambda: a.heard)
            assert a.heard == [("c", 8, TakeOver(3))]
        finally:
            await close([c])


async def test_too_large_is_not_sent() -> None:
    """It raises before anything left; what fits goes through, and the connection lives on."""
    async with stations("ab") as (a, b):
        with pytest.raises(Malformed, match="the limit"):
            a.transport.send("b", append(bytes(MESSAGE_BYTES_MAX)))
        with pytest.raises(Malformed, match="the limit"):
            a.transport.publish("t", append(bytes(MESSAGE_BYTES_MAX)))
        largest = append(bytes(MESSAGE_BYTES_MAX - 400))
        assert a.transport.send("b", largest)
        await until(lambda: largest in b.messages("a"))


async def test_a_part_too_large_ends_the_senders_connection_only() -> None:
    """What a member sends past our own code is cut off by libzmq; others notice nothing."""
    async with stations("ab") as (a, b):
        context = zmq.Context()
        try:
            rogue = Station("r")
            b.transport.set_peers([a.peer, Peer("r", rogue.pair.public.decode())])
            raw = context.socket(zmq.DEALER)
            harden(raw, rogue.pair, b.pair.public)
            raw.connect(endpoint(HOST, b.transport.mesh_port))
            raw.send(bytes(2 * 1024 * 1024))
            raw.send_multipart(encode(Header(CLUSTER, 0), TakeOver(5)))
            raw.send_multipart([b"x"] * 10_000)
            a.transport.send("b", TakeOver(6))
            await until(lambda: TakeOver(6) in b.messages("a"))
            assert linked(a, b)
        finally:
            context.destroy(linger=0)


async def test_a_peer_whose_address_is_unknown_is_let_in() -> None:
    """It can talk to us, and is not dialled."""
    async with stations("ab", start=False) as (a, b):
        a.transport.set_peers([b.peer])
        b.transport.set_peers([Peer("a", a.pair.public.decode())])
        await until(lambda: a.transport.send("b", TakeOver(1)))
        await until(lambda: b.heard)
        assert not b.transport.send("a", TakeOver(1))
        assert not b.transport.connected("a")
        assert b.transport.counters.dropped == 1


@pytest.mark.parametrize(
    ("host", "port"),
    [("localhost", 5), ("a b", 5), ("", 5), ("*", 5), ("h\0st", 5), (HOST, -1), (HOST, 65536), ("é" * 99, 5)],
)
async def test_an_address_that_is_none_hurts_nobody(host: str, port: int) -> None:
    """It is the peer's own word. The peer is let in, not dialled; the others are."""
    async with stations("ab", start=False) as (a, b):
        odd = Peer("x", Station("x").pair.public.decode(), host, port, port)
        a.transport.set_peers([odd, b.peer])
        b.transport.set_peers([a.peer])
        await until(lambda: linked(a, b))
        assert not a.transport.send("x", TakeOver(1))


async def test_who_is_admitted_later_gets_in_by_itself() -> None:
    """libzmq's client gives up for ever after one refusal; ours does not, on neither of its connections."""
    async with stations("ab", start=False) as (a, b):
        a.transport.set_peers([b.peer])
        await until(lambda: b.transport.counters.refused >= 4)
        assert not a.transport.connected("b")
        acquaint(a, b)
        took = await until(lambda: linked(a, b))
        print(f"admitted after a refusal: {took:.3f} s")
        await subscribed(a, b)
        await subscribed(b, a)


async def test_telling_it_again_changes_nothing() -> None:
    """The same list, in any order and with ourselves in it, keeps every connection."""
    async with stations("abc") as (a, b, c):
        links = dict(a.transport._links)
        a.transport.set_peers([c.peer, a.peer, b.peer])
        a.transport.set_peers(iter([b.peer, c.peer]))
        assert a.transport._links == links
        assert linked(a, b, c)


async def test_many_peers_are_dialled_in_slices() -> None:
    """A hundred at once: a few in a turn of the loop, and who is removed meanwhile is not dialled any more."""
    async with stations("ab", start=False) as (a, b):
        many = [Peer(f"x{n}", Station("x").pair.public.decode(), HOST, 1, 1) for n in range(99)]
        a.transport.set_peers([*many, b.peer])
        seen = [len(a.transport._links)]
        while len(a.transport._links) < 40:
            await asyncio.sleep(0)
            seen.append(len(a.transport._links))
        assert max(after - before for before, after in pairwise([0, *seen])) <= 10
        b.transport.set_peers([a.peer])
        a.transport.set_peers([many[0], b.peer])
        await until(lambda: linked(a, b))
        assert sorted(a.transport._links) == ["b", "x0"]


async def test_without_descriptors_it_dials_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent at its limit says so, leaves nothing half open, and tries again by itself."""
    monkeypatch.setattr(module, "DIAL_AGAIN_SECONDS", 0.01)
    fails = [zmq.PAIR, zmq.SUB, zmq.DEALER]

    class Exhausted(zmq.Context):  # type: ignore[type-arg]
        def socket(self, socket_type: int, socket_class: Any = None, **named: Any) -> Any:
            if fails and socket_type == fails[-1] and armed:
                fails.pop()
                raise zmq.ZMQError(errno.EMFILE)
            return super().socket(socket_type, socket_class, **named)

    armed: list[int] = []
    monkeypatch.setattr(zmq, "Context", Exhausted)
    async with stations("ab", start=False) as (a, b):
        b.transport.set_peers([a.peer])
        await until(lambda: b.transport._links)
        open_before = len(a.transport._context._sockets)
        armed.append(1)
        with capture_logs() as lines:
            a.transport.set_peers([b.peer])
            await until(lambda: not fails)
            assert len(a.transport._context._sockets) == open_before
            await until(lambda: linked(a, b))
        assert [line["event"] for line in lines if "dial" in line["event"]] == ["cannot dial"]


async def test_what_zeromq_refuses_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """One peer's matter, or that of who would have listened: the protocol repeats, and what follows goes through."""

    class Refusing:
        def send(self, *_: object) -> None:
            raise zmq.ZMQError(errno.EHOSTUNREACH)

    async with stations("ab") as (a, b):
        await subscribed(b, a)
        with monkeypatch.context() as patch, capture_logs() as lines:
            patch.setattr(a.transport._links["b"], "_dealer", Refusing())
            patch.setattr(a.transport, "_pub", Refusing())
            assert not a.transport.send("b", TakeOver(1))
            a.transport.publish("t", run(10))
        assert a.transport.counters.dropped == 1
        assert [line["event"] for line in lines] == ["cannot publish"]
        assert a.transport.send("b", TakeOver(2))
        await until(lambda: TakeOver(2) in b.messages("a"))


@pytest.mark.parametrize("same_ports", [True, False])
async def test_a_restarted_peer_is_back(same_ports: bool) -> None:
    """With the same ports nobody needs to be told; with new ones, one list is enough."""
    async with stations("ab") as (a, b):
        await subscribed(b, a)
        await subscribed(a, b)
        await b.transport.close()
        await until(lambda: not a.transport.connected("b"))
        ports = (b.transport.mesh_port, b.transport.pub_port) if same_ports else (0, 0)
        b.up(*ports)
        b.transport.subscribe(frozenset({"t"}))
        b.transport.set_peers([a.peer])
        if not same_ports:
            a.transport.set_peers([b.peer])
        took = await until(lambda: linked(a, b))
        heard = await subscribed(a, b)
        print(f"restarted, same ports {same_ports}: linked after {took:.3f} s, heard after {heard:.3f} s more")
        await subscribed(b, a)
        assert a.transport.send("b", TakeOver(1))


async def test_another_key_on_the_same_ports_is_another_agent() -> None:
    """Whoever took the ports of a dead peer is not spoken to; the peer itself, back there, is."""
    async with stations("ab") as (a, b):
        stranger = Station("b")
        await b.transport.close()
        stranger.up(b.transport.mesh_port, b.transport.pub_port)
        stranger.transport.set_peers([a.peer])
        await until(lambda: stranger.transport.counters.refused > 0 or a.transport.counters.refused > 0)
        assert not a.transport.connected("b")
        assert not a.transport.send("b", TakeOver(1))
        await stranger.transport.close()
        b.up(stranger.transport.mesh_port, stranger.transport.pub_port)
        b.transport.set_peers([a.peer])
        await until(lambda: linked(a, b))


async def test_a_new_key_of_the_same_node_replaces_the_old() -> None:
    """What the old key says is not heard any more."""
    async with stations("ab") as (a, b):
        renewed = Station("b")
        renewed.up()
        try:
            renewed.transport.set_peers([a.peer])
            a.transport.set_peers([renewed.peer])
            await until(lambda: linked(a, renewed))
            b.transport.send("a", TakeOver(1))
            renewed.transport.send("a", TakeOver(2))
            await until(lambda: a.heard and a.transport.counters.uninvited)
            assert a.messages("b") == [TakeOver(2)]
        finally:
            await close([renewed])


async def test_a_lost_connection_leaves_nothing_undone() -> None:
    """Also to a peer to whom nothing is said: libzmq frees what it held once our thread lets it."""
    async with stations("ab") as (a, b):
        await until(lambda: linked(a, b))
        news = int(a.transport._links["b"]._dealer.getsockopt(zmq.FD))
        await b.transport.close()
        await until(lambda: not a.transport.connected("b"))
        await until(lambda: not select.select([news], [], [], 0)[0], 5)


async def test_who_does_not_read_costs_little() -> None:
    """A peer that stands still is soon not sent to any more; it does not grow our memory, nor hold up others."""
    async with stations("abc") as (a, b, c):
        b.transport._reader.close()
        sent = 0
        while a.transport.send("b", append(bytes(100_000))):
            sent += 1
            await asyncio.sleep(0)
            assert sent < 2000
        assert a.transport.counters.dropped == 1
        assert a.transport.send("c", TakeOver(1))
        await until(lambda: c.heard)


async def test_a_subscriber_that_does_not_read_is_left_out() -> None:
    """More is published than may wait for it: the rest it never gets. Who reads gets all of it, and what is published
    once the slow one reads again reaches it, too."""
    async with stations("abc") as (a, b, c):
        await subscribed(b, a)
        await subscribed(c, a)
        unread = b.transport._links["a"]._sub
        asyncio.get_running_loop().remove_reader(int(unread.getsockopt(zmq.FD)))
        order = sample(Run, orders=(sample(Order, execution_id="x" * 10_000),))
        heard = ("a", 7, order)
        for _ in range(PUBLISHED // BATCH):
            before = c.heard.count(heard)
            for _ in range(BATCH):
                a.transport.publish("t", order)
            await until(lambda before=before: c.heard.count(heard) == before + BATCH)  # type: ignore[misc]
        waited = 0

        def read() -> bool:
            nonlocal waited
            a.transport.publish("t", run(99))
            while unread.poll(0):
                if decode(unread.recv_multipart()[1:])[1] == run(99):
                    return True
                waited += 1
            return False

        await until(read)
        print(f"{waited} of {PUBLISHED} had waited")
        assert 0 < waited < PUBLISHED


async def test_a_flood_starves_nobody() -> None:
    """While one peer sends what it can, another's message arrives, and no turn of the loop is long."""
    async with stations("abc") as (a, b, c):
        flood = encode(Header(CLUSTER, 7), append())
        for _ in range(20):
            while a.transport._links["b"].send(flood):
                pass
            sent_at = time.monotonic()
            assert c.transport.send("b", TakeOver(1))
            await until(lambda: TakeOver(1) in b.messages("c"))
            assert time.monotonic() - sent_at < 2.0
            b.heard.clear()


async def test_malformed_messages_are_counted_and_dropped() -> None:
    """A member whose build is broken: one line a minute, and what it says right is heard."""
    async with stations("ab") as (a, b):
        with capture_logs() as lines:
            for frames in ([b""], [b"\xff" * 100], [b"{}"], [b"x"] * 5000, [b"{}", b"", b"{"]):
                assert a.transport._links["b"].send(frames)
            a.transport.send("b", TakeOver(1))
            await until(lambda: b.heard)
        assert b.heard == [("a", 7, TakeOver(1))]
        assert b.transport.counters.malformed == 5
        assert len([line for line in lines if line["event"] == "malformed message"]) == 1


@pytest.mark.parametrize("which", ["mesh_port", "pub_port"])
async def test_a_taken_port_is_named_with_its_remedy(which: str) -> None:
    """And what was opened before it is closed again."""
    async with stations("a") as (a,):
        taken = {"mesh_port": 0, "pub_port": 0, which: getattr(a.transport, which)}
        with pytest.raises(
            StartRefused, match=f"{which.replace('_', '-')} {taken[which]} .*--{which.replace('_', '-')}"
        ):
            Station("b").up(**taken)


async def test_close_is_quick_and_final() -> None:
    """Also with a peer that is connected and one that never answered."""
    async with stations("ab") as (a, b):
        c = Station("c")
        c.up()
        c.transport.set_peers([a.peer, b.peer, Peer("x", Station("x").pair.public.decode(), HOST, 1, 1)])
        began = time.monotonic()
        await c.transport.close()
        assert time.monotonic() - began < 1.0
