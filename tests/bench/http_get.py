"""Requests a second of `GET /v1/jobs/{name}` at 64 keep-alive connections, and of a bare Tornado handler beside it.

Run: `python tests/bench/http_get.py [SECONDS]`. Both servers are processes of their own and are measured in turns, so
that what else the machine does hits both. The goal is 60 % of the bare handler (DESIGN, Speed). The bare handler is the
fastest that Tornado's documentation allows: no access log, no ETag, a constant answer of the same size.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

CONNECTIONS = 64
ROUNDS = 5
WARM_UP_SECONDS = 0.5
FAKE = Path(__file__).parents[1] / "unit" / "api" / "api_fake.py"
"""The API over a cluster in memory: what is measured is the HTTP side alone."""

BARE = """
import asyncio, sys
from tornado.web import Application, RequestHandler

BODY = b"x" * int(sys.argv[1])

class Bare(RequestHandler):
    def compute_etag(self):
        return None
    def get(self, name):
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(BODY)

async def main():
    app = Application([(r"/v1/jobs/([^/]+)", Bare)], log_function=lambda handler: None)
    server = app.listen(0, "127.0.0.1")
    print('{"url": "http://127.0.0.1:%d", "token": ""}'
          % next(iter(server._sockets.values())).getsockname()[1], flush=True)
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()

asyncio.run(main())
"""


class Server(NamedTuple):
    """A server in a process of its own, and the request it is asked again and again."""

    process: subprocess.Popen[str]
    port: int
    request: bytes


class Figures(NamedTuple):
    """What one turn measured. Processor time is the steadier of the two where other processes run beside it."""

    per_second: float
    cpu_us: float


class Load(asyncio.Protocol):
    """One connection that sends the next request when an answer is whole. Answers are all of one length."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answers = 0
        self.length = 0
        self.received = b""
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.length:
            self.received += data
            self.length = answer_length(self.received)
            if not self.length:
                return
            self.missing = self.length - len(self.received) + len(data)
        self.missing -= len(data)
        if self.missing <= 0:
            self.answers += 1
            self.missing += self.length
            self.transport.write(self.request)


def answer_length(received: bytes) -> int:
    """Bytes of a whole answer with its headers, 0 while the headers are not there yet."""
    head, ended, _ = received.partition(b"\r\n\r\n")
    if not ended:
        return 0
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"the server said: {received.decode('latin-1')}")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(head) + 4 + int(length.partition(b":")[2])


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Processor time that a process has used, in user and system mode (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(server: Server, seconds: float) -> Figures:
    """Answers a second over all connections, and what one costs the server."""
    loop = asyncio.get_running_loop()
    loads = [Load(server.request) for _ in range(CONNECTIONS)]
    for load in loads:
        await loop.create_connection(lambda load=load: load, "127.0.0.1", server.port)
    await asyncio.sleep(WARM_UP_SECONDS)
    before, began, used = sum(load.answers for load in loads), time.perf_counter(), cpu_seconds(server.process)
    await asyncio.sleep(seconds)
    answers, took = sum(load.answers for load in loads) - before, time.perf_counter() - began
    used = cpu_seconds(server.process) - used
    for load in loads:
        load.transport.abort()
    return Figures(answers / took, used / answers * 1e6)


def start(*command: str) -> Server:
    """Starts a server that prints its address; it ends when its standard input does."""
    process = subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    port = urlsplit(said["url"]).port or 0
    token = f"Authorization: Bearer {said['token']}\r\n" if said["token"] else ""
    request = f"GET /v1/jobs/bench_job HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{token}Accept: */*\r\n\r\n"
    return Server(process, port, request.encode())


def stop(server: Server) -> None:
    """Ends a server that `start` started."""
    server.process.communicate(timeout=10)


def main() -> None:
    """Measures both in turns and prints the ratio."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    ours = start(str(FAKE))
    bare = start("-c", BARE, "900")
    try:
        rounds = [(asyncio.run(measure(bare, seconds)), asyncio.run(measure(ours, seconds))) for _ in range(ROUNDS)]
    finally:
        stop(ours)
        stop(bare)
    for one, other in rounds:
        print(
            f"bare {one.per_second:7,.0f}/s {one.cpu_us:5.0f} us   GET job {other.per_second:7,.0f}/s"
            f" {other.cpu_us:5.0f} us   {other.per_second / one.per_second:4.0%}"
        )
    ratio = statistics.median(other.per_second / one.per_second for one, other in rounds)
    cost = statistics.median(one.cpu_us / other.cpu_us for one, other in rounds)
    print(f"GET job at {CONNECTIONS} connections: {ratio:.0%} of bare Tornado, {cost:.0%} by processor time; goal 60 %")


if __name__ == "__main__":
    main()
