"""The keys to the API: made here, shown once, stored as hashes."""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar

from meshcron.api import auth, forms, views
from meshcron.api.handler import LIST_SLICE, Handler
from meshcron.commands import PutToken, RevokeToken
from meshcron.errors import InvalidRequest
from meshcron.model import Token


class Tokens(Handler):
    """`GET`, `POST /v1/tokens`."""

    NEEDS: ClassVar = {"GET": "admin", "POST": "admin"}

    async def get(self) -> None:
        """Every token, oldest first, without its secret or hash."""
        tokens = self.context.service.tokens()
        chosen = self.query.page(("created_at",)).of(tokens)
        slices = (
            [views.token(each) for each in chosen[at : at + LIST_SLICE]] for at in range(0, len(chosen), LIST_SLICE)
        )
        await self.show_list(slices, len(tokens))

    async def post(self) -> None:
        """Makes a token: the answer holds its secret as `token`, this once."""
        form = forms.token_form(self.body())
        now_us = self.context.wall_clock_us()
        expires_us = form.expires_wall_us or (now_us + form.expires_in_us if form.expires_in_us else 0)
        if expires_us and expires_us <= now_us:
            raise InvalidRequest("expires_at", "has passed", "a time to come")
        secret = auth.new_secret()
        token = Token(
            id=auth.new_id(),
            name=form.name,
            role=form.role,
            sha256=auth.token_hash(secret),
            created_wall_us=now_us,
            expires_wall_us=expires_us,
        )
        stored = await self.context.service.put_token(PutToken(token=token, actor=self.actor), self.key)
        # A repeated call is answered with the first one's token, whose secret only the first answer held.
        shown = views.token(stored) | ({"token": secret} if stored.sha256 == token.sha256 else {})
        self.set_header("Location", f"/v1/tokens/{stored.id}")
        self.show(shown, HTTPStatus.CREATED)


class OneToken(Handler):
    """`DELETE /v1/tokens/{id}`."""

    NEEDS: ClassVar = {"DELETE": "admin"}

    async def delete(self, token_id: str) -> None:
        """Revokes it: from now on whoever holds it is refused."""
        revoked = await self.context.service.revoke_token(RevokeToken(id=token_id, actor=self.actor), self.key)
        self.show(views.token(revoked))
