"""The members of the cluster and who leads it."""

from __future__ import annotations

from typing import ClassVar

from meshcron.api import views
from meshcron.api.handler import LIST_SLICE, Handler
from meshcron.errors import NotFound


class Members(Handler):
    """`GET /v1/members`: every member, by name."""

    NEEDS: ClassVar = {"GET": "viewer"}

    async def get(self) -> None:
        members = self.context.service.members()
        page = self.query.page()
        chosen = members[page.start : page.end]
        slices = (
            [views.member(each) for each in chosen[at : at + LIST_SLICE]] for at in range(0, len(chosen), LIST_SLICE)
        )
        await self.show_list(slices, len(members))


class Leader(Handler):
    """`GET /v1/leader`: the member that leads, 503 while none does."""

    NEEDS: ClassVar = {"GET": "viewer"}

    def get(self) -> None:
        self.show(views.member(self.context.service.leader()))


class IsLeader(Handler):
    """`GET /v1/isleader`: 200 on the agent that leads, 404 on every other."""

    NEEDS: ClassVar = {"GET": "viewer"}
    LOCAL: ClassVar = True

    def get(self) -> None:
        agent = self.context.service.agent()
        if agent.leader != agent.name:
            raise NotFound("leader", agent.name)
        self.show({"leader": True})
