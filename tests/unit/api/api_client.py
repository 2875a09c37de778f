"""A small HTTP client that sends exactly what a test says, over a real connection."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; every answer of the API but an output is."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The one shape of all errors."""
        error: dict[str, Any] = self.json["error"]
        return error


class Client:
    """Requests to one server, each on a connection of its own; `token` None sends none."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port = port
        self.token = token

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        raw: bytes | None = None,
    ) -> Answer:
        """One request; `body` is sent as JSON, `raw` as it is."""
        sent = dict(headers or {})
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        content = raw if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host="Host" in sent)
            for name, value in sent.items():
                connection.putheader(name, value)
            if content is not None:
                if "Content-Type" not in sent:
                    connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def bytes(self, request: bytes, seconds: float = 5.0) -> bytes:
        """What a connection answers to these bytes, until the other side closes it or is quiet for so long.

        Our own side stays open: Tornado drops a connection whose client has stopped sending.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(request)
            received = b""
            try:
                while piece := connection.recv(65536):
                    received += piece
            except TimeoutError:
                pass
            return received
