"""A bare Tornado handler in a process of its own: the limit that GET and POST are measured against.

As fast as Tornado's documentation allows: no access log, no ETag, a constant answer of as many bytes as the one
argument says. Prints its port; ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler


class Bare(RequestHandler):
    def initialize(self, body: bytes) -> None:
        self.body = body

    def compute_etag(self) -> None:
        return None

    def get(self, name: str) -> None:
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(self.body)

    post = get


async def serve(length: int) -> None:
    app = Application([(r"/v1/jobs/?([^/]*)", Bare, {"body": b"x" * length})])
    # Given as None it would raise within each request, which costs four fifths of the rate.
    app.settings["log_function"] = lambda handler: None
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(app)
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


@contextmanager
def bare_tornado(length: int) -> Iterator[tuple[int, int]]:
    """Its port and pid while the block runs."""
    command = [sys.executable, str(Path(__file__)), str(length)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
        process.stdin.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
