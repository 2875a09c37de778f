"""The status page of this agent, and the two questions a load balancer asks."""

from __future__ import annotations

from typing import ClassVar

from meshcron.api import views
from meshcron.api.handler import Handler
from meshcron.errors import NoLeader


class StatusPage(Handler):
    """`GET /v1/`: this agent and its place in the cluster."""

    NEEDS: ClassVar = {"GET": "local"}
    LOCAL: ClassVar = True

    def get(self) -> None:
        service = self.context.service
        self.show(views.status(service.agent(), list(service.members())))


class Metrics(Handler):
    """`GET /metrics`: this agent for Prometheus."""

    NEEDS: ClassVar = {"GET": "local"}
    LOCAL: ClassVar = True

    def get(self) -> None:
        from meshcron.api.exposition import CONTENT_TYPE_LATEST, exposition  # noqa: PLC0415 - 1 MiB where nobody asks

        service = self.context.service
        ready = service.why_not_ready() is None
        wrong = self.context.gate.wrong_tokens
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(exposition(service.agent(), service.members(), ready=ready, wrong_tokens=wrong))


class Health(Handler):
    """`GET /health`: the process answers. Tells nothing else, so it needs no token."""

    NEEDS: ClassVar = {"GET": "open"}
    LOCAL: ClassVar = True

    def get(self) -> None:
        self.show({"status": "healthy"})


class Ready(Handler):
    """`GET /ready`: 200 while this agent can take writes, else 503 with the reason. Needs no token."""

    NEEDS: ClassVar = {"GET": "open"}
    LOCAL: ClassVar = True

    def get(self) -> None:
        reason = self.context.service.why_not_ready()
        if reason is not None:
            raise NoLeader(reason)
        self.show({"status": "ready"})
