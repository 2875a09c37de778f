"""The load generator: a process of its own that sends one request after another on each of many connections.

Run as a program it reads an `Order` as JSON from its standard input and prints a `Report`. It shares the machine's
processors with what it measures: with two of them an agent still has one to itself, for an agent's loop uses one.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from failed import Failed
from table import quantile

CONNECTIONS = 64
"""Clients of the speed table's HTTP figures."""

NUMBER = b"@N@"
"""Where a request's number goes into its body."""

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Order(msgspec.Struct):
    """What to send: for `seconds` after `warm_up_seconds`, or `count` requests in all where that is not 0."""

    port: int
    token: str
    method: str
    path: str
    body: str = ""
    first: int = 0
    count: int = 0
    seconds: float = 0.0
    warm_up_seconds: float = 0.0
    connections: int = CONNECTIONS


class Report(msgspec.Struct):
    """What came back while it counted."""

    answers: int
    seconds: float
    p50_s: float
    p99_s: float
    sent: int
    """Requests sent in all, those of the warm-up included: the next free number."""

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


class Load:
    """All connections together: which request is next, what has been answered."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.next = order.first
        self.counting = not order.warm_up_seconds
        self.took: list[float] = []
        self.done = asyncio.Event()
        self.idle = 0
        token = f"Authorization: Bearer {order.token}\r\n" if order.token else ""
        host = f"Host: 127.0.0.1:{order.port}\r\nAccept: */*\r\n"
        self.head = f"{order.method} {order.path} HTTP/1.1\r\n{host}{token}".encode()
        self.body = order.body.encode()

    def request(self) -> bytes | None:
        """The next request, None when there are no more."""
        if self.order.count and self.next >= self.order.first + self.order.count:
            self.idle += 1
            if self.idle == self.order.connections:
                self.done.set()
            return None
        number, self.next = self.next, self.next + 1
        if not self.body:
            return self.head + b"\r\n"
        body = self.body.replace(NUMBER, b"%d" % number)
        return b"%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (self.head, len(body), body)

    def answered(self, seconds: float) -> None:
        if self.counting:
            self.took.append(seconds)


class Connection(asyncio.Protocol):
    """One client: the next request goes out when the answer is whole."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.received = b""
        self.length = 0
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        request = self.load.request()
        if request is not None:
            self.sent_at = time.perf_counter()
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.length:
            self.length = answer_length(self.received)
        if self.length and len(self.received) >= self.length:
            self.load.answered(time.perf_counter() - self.sent_at)
            self.received, self.length = self.received[self.length :], 0
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.load.done.is_set():
            raise SystemExit(f"the server closed a connection: {exc}")


def answer_length(received: bytes) -> int:
    """Bytes of a whole answer with its headers, 0 while the headers are not there yet. Ends at any but a 2xx."""
    head, ended, _ = received.partition(b"\r\n\r\n")
    if not ended:
        return 0
    length = LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 2") or length is None:
        raise SystemExit(f"the server said: {received.decode('latin-1')}")
    return len(head) + 4 + int(length.group(1))


async def drive(order: Order) -> Report:
    loop = asyncio.get_running_loop()
    load = Load(order)
    began = time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: Connection(load), "127.0.0.1", order.port))[1]
        for _ in range(order.connections)
    ]
    if order.warm_up_seconds:
        await asyncio.sleep(order.warm_up_seconds)
        load.counting, began = True, time.perf_counter()
    if order.count:
        await load.done.wait()
    else:
        await asyncio.sleep(order.seconds)
    seconds = time.perf_counter() - began
    took = list(load.took)
    load.done.set()
    for connection in connections:
        connection.transport.abort()
    return Report(len(took), seconds, quantile(took, 0.5), quantile(took, 0.99), load.next - order.first)


def generate(order: Order) -> Report:
    """Has a process of its own send what is ordered. Raises Failed with what went wrong."""
    command = [sys.executable, str(Path(__file__))]
    done = subprocess.run(command, input=msgspec.json.encode(order), capture_output=True, check=False)
    if done.returncode:
        raise Failed(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return msgspec.json.decode(done.stdout, type=Report)


if __name__ == "__main__":
    report = asyncio.run(drive(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)))
    sys.stdout.buffer.write(msgspec.json.encode(report))
