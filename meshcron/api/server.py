"""The listening end: sockets, limits of a connection, and JSON also where Tornado gives up before any handler."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from meshcron.api.app import Api
from meshcron.api.entrance import CONNECTIONS_MAX, Entrance, Say
from meshcron.api.intake import DRAIN_BYTES_MAX
from meshcron.errors import InvalidRequest, StartRefused
from meshcron.values import Address

IDLE_SECONDS = 60.0
"""How long a connection may be silent between requests, and take for its headers (slowloris: FAULTS 47)."""

BODY_SECONDS = 30.0
"""How long a body may take: 1 MiB in 30 s is a slow modem."""

HEADER_BUFFER_BYTES = 64 * 1024
"""Headers beyond this end the connection without an answer; from settings.HEADER_BYTES_MAX on they get a 431."""

TORNADO_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""All that Tornado says to a malformed request line, header, length or chunk."""


class ApiServer(HTTPServer):
    """An HTTP server on one address. `port` is the port it was bound to."""

    port: int
    _listening: Sequence[socket.socket]
    _entrance: Entrance

    def admit(self, sockets: Sequence[socket.socket], most: int, say: Say) -> None:
        """Listen on these sockets, with at most so many connections at a time. Instead of `add_sockets`, whose loop of
        accepts takes every descriptor there is, and then fails in each turn with a traceback."""
        self.port = int(sockets[0].getsockname()[1])
        self._listening = sockets
        self._entrance = Entrance(self._handle_connection, most=most, say=say)
        self._entrance.open(sockets)

    def stop(self) -> None:
        """Take no more connections, and give the port back."""
        self._entrance.close()
        for one in self._listening:
            one.close()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """One connection. Its `write` is watched for Tornado's empty refusal, which becomes ours with a body."""
        self._entrance.came()
        write = stream.write

        def speak(data: bytes | memoryview) -> Any:
            return write(self._spoken_refusal() if data == TORNADO_REFUSAL else data)

        vars(stream)["write"] = speak
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        """Tornado says that one has closed."""
        super().on_close(server_conn)
        self._entrance.went()

    def _spoken_refusal(self) -> bytes:
        api = self.request_callback
        assert isinstance(api, Api)  # ours: serve() made this server
        error = InvalidRequest("request", "is not well-formed HTTP/1.1")
        status, headers, body = api.plain_refusal(error)
        headers["Connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.get_all())
        return f"HTTP/1.1 {status} Bad Request\r\n{lines}\r\n".encode("latin-1") + body


def _say_nothing(what: str, sender: str, why: str) -> None:
    pass


def serve(app: Api, address: str, port: int, ssl_context: ssl.SSLContext | None = None) -> ApiServer:
    """Listens on an address and answers from the running event loop. Port 0 takes any free one; see `port`.

    Raises OSError where the address is in use or not this machine's. `await server.close_all_connections()` after
    `server.stop()` ends it.
    """
    return serve_on(app, bind_sockets(port, address), ssl_context)


def serve_on(
    app: Api,
    sockets: Sequence[socket.socket],
    ssl_context: ssl.SSLContext | None = None,
    *,
    connections_max: int = CONNECTIONS_MAX,
    say: Say = _say_nothing,
) -> ApiServer:
    """The same on sockets that listen already, with so many connections at a time at most; `say` may be called for each
    that comes beyond."""
    server = ApiServer(
        app,
        ssl_options=ssl_context,
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=BODY_SECONDS,
        max_header_size=HEADER_BUFFER_BYTES,
        # The intake refuses at settings.body_bytes_max, with an answer; this is how much of the rest it may drop.
        max_body_size=DRAIN_BYTES_MAX,
    )
    server.admit(sockets, connections_max, say)
    return server


def listen(http: Address) -> list[socket.socket]:
    """Sockets for `serve_on`: who connects now is answered once it is called. Raises StartRefused."""
    try:
        return bind_sockets(http.port, http.host)
    except OSError as error:
        raise StartRefused(
            f"cannot listen on {http}: {error.strerror}; end what uses it or choose another with --http"
        ) from None


def tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """TLS with a certificate and its key, in files. Raises StartRefused."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise StartRefused(f"tls_cert {certificate}: cannot be used: {error}") from None
    return context


async def close_server(server: ApiServer) -> None:
    """Take no more requests, end those under way."""
    server.stop()
    await server.close_all_connections()
