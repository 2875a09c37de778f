"""The members of the cluster and who leads it."""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar
from urllib.parse import quote

from meshcron.api import views
from meshcron.api.handler import LIST_SLICE, Handler
from meshcron.commands import RemoveMember
from meshcron.errors import NotFound


class Members(Handler):
    """`GET /v1/members`: every member, by name."""

    NEEDS: ClassVar = {"GET": "local"}

    async def get(self) -> None:
        members = self.context.service.members()
        chosen = self.query.page(("Name",)).of(members)
        slices = (
            [views.member(each) for each in chosen[at : at + LIST_SLICE]] for at in range(0, len(chosen), LIST_SLICE)
        )
        await self.show_list(slices, len(members))


class OneMember(Handler):
    """`DELETE /v1/members/{name}`: it leaves for good; its seat as a voter is given to another one first."""

    NEEDS: ClassVar = {"DELETE": "admin"}

    async def delete(self, name: str) -> None:
        """202: it has begun, and is over when the member is gone from the list."""
        member = await self.context.service.remove_member(RemoveMember(name, self.actor), self.key)
        self.show({"name": member.name, "id": member.node_id, "leaving": True}, HTTPStatus.ACCEPTED)


class Leave(Handler):
    """`POST /v1/leave`: this agent leaves its cluster for good."""

    NEEDS: ClassVar = {"POST": "admin"}

    def asked_as(self) -> tuple[str, str]:
        """As `DELETE /v1/members/{own node id}`: there `leave` would be the other agent's. Not by name: after a long
        silence it may be a newcomer's, and ours `name~4`."""
        return "DELETE", f"/v1/members/{quote(self.context.settings.node_id, safe='')}"

    async def post(self) -> None:
        """The same, where this agent leads."""
        command = RemoveMember(self.context.settings.node_id, self.actor)
        member = await self.context.service.remove_member(command, self.key)
        self.show({"name": member.name, "id": member.node_id, "leaving": True}, HTTPStatus.ACCEPTED)


class Leader(Handler):
    """`GET /v1/leader`: the member that leads, 503 while none does."""

    NEEDS: ClassVar = {"GET": "local"}

    def get(self) -> None:
        self.show(views.member(self.context.service.leader()))


class IsLeader(Handler):
    """`GET /v1/isleader`: 200 on the agent that leads, 404 on every other."""

    NEEDS: ClassVar = {"GET": "local"}
    LOCAL: ClassVar = True

    def get(self) -> None:
        settings = self.context.settings
        if not any(one.leader and one.node_id == settings.node_id for one in self.context.service.members()):
            raise NotFound("leader", settings.agent)
        self.show({"leader": True})
