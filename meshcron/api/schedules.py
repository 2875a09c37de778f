"""Schedules without a job: what one means."""

from __future__ import annotations

from typing import ClassVar

from meshcron.api import fields, views
from meshcron.api.handler import Handler
from meshcron.errors import InvalidRequest

TICKS_DEFAULT = 5
TICKS_MAX = 100
"""Ticks of one explanation: each costs up to a few milliseconds (LIMITS 2)."""


class Explain(Handler):
    """`GET /v1/explain?schedule=&timezone=&name=&count=`: in words, and the next ticks."""

    NEEDS: ClassVar = {"GET": "viewer"}

    def get(self) -> None:
        query = self.query
        schedule = query.text("schedule")
        if not schedule:
            raise InvalidRequest("schedule", "is missing", "e.g. ?schedule=0+30+*+*+*+*")
        explained = self.context.service.explain(
            fields.line()(schedule, "schedule"),
            fields.timezone(query.text("timezone") or "", "timezone"),
            fields.line()(query.text("name") or "", "name"),
            query.whole("count", 1, TICKS_MAX) or TICKS_DEFAULT,
        )
        self.show(views.explained(explained))
