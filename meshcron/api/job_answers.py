"""Answers that show one job, with what a write tells in headers."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from meshcron.api import views
from meshcron.api.handler import Handler
from meshcron.api.moments import instant_text
from meshcron.commands import JobAnswer, JobView

OPEN_SHOWN_MAX = 50
"""Executions named in `X-Meshcron-Open`: a header has its limits."""


def show(handler: Handler, view: JobView, status: int = HTTPStatus.OK) -> None:
    """Answers with a job; its revision is its ETag."""
    handler.set_header("ETag", f'"{view.revision}"')
    handler.show(views.job(view), status)


def show_answer(handler: Handler, answer: JobAnswer, status: int = HTTPStatus.OK) -> None:
    """Answers a write: the job, since when an edit holds, what is still open."""
    if answer.holds_from_wall_us:
        handler.set_header("X-Meshcron-From", instant_text(answer.holds_from_wall_us))
    if answer.open_executions:
        handler.set_header("X-Meshcron-Open", ",".join(map(quote, answer.open_executions[:OPEN_SHOWN_MAX])))
    if answer.run_id:
        handler.set_header("X-Meshcron-Run", answer.run_id)
    show(handler, answer.view, status)
