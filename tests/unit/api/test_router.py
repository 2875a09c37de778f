"""Paths find their handlers."""

from __future__ import annotations

import pytest

from meshcron.api.handler import Handler
from meshcron.api.router import Route, Router


class Jobs(Handler):
    pass


class Job(Handler):
    pass


class Run(Handler):
    pass


class Execution(Handler):
    pass


ROUTER = Router(
    [
        Route("/v1/jobs", Jobs),
        Route("/v1/jobs/{name}", Job),
        Route("/v1/jobs/{name}/run", Run),
        Route("/v1/jobs/{name}/executions/{id}", Execution),
    ]
)


@pytest.mark.parametrize(
    ("path", "handler", "arguments"),
    [
        ("/v1/jobs", Jobs, []),
        ("/v1/jobs/", Jobs, []),
        ("/v1/jobs/a", Job, [b"a"]),
        ("/v1/jobs/a/", Job, [b"a"]),
        ("/v1/jobs/jobs", Job, [b"jobs"]),
        ("/v1/jobs/a%2Fb", Job, [b"a/b"]),
        ("/v1/jobs/gr%C3%B6%C3%9Fe", Job, ["größe".encode()]),
        ("/v1/jobs/größe".encode().decode("latin-1"), Job, ["größe".encode()]),
        ("/v1/jobs/%FF", Job, [b"\xff"]),
        ("/v1/jobs/a/run", Run, [b"a"]),
        ("/v1/jobs/a/executions/1-b", Execution, [b"a", b"1-b"]),
    ],
)
def test_found(path: str, handler: type[Handler], arguments: list[bytes]) -> None:
    """With and without a slash at the end, variable parts decoded whole."""
    found = ROUTER.find(path)
    assert found == (handler, arguments, ["name", "id"][: len(arguments)])


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "//", "*", "v1/jobs", "/v1", "/v1/", "/v2/jobs", "/v1//jobs", "/v1/jobs//", "/v1/jobs//run"),
        *("/v1/jobs/a/b", "/v1/jobs/a//run", "/v1/jobs/a/executions", "/v1/jobs/a/executions/", "http://x/v1/jobs"),
        "/V1/jobs",
    ],
)
def test_not_found(path: str) -> None:
    """Everything else has no handler."""
    assert ROUTER.find(path) is None


def test_two_routes_for_one_path() -> None:
    """A slip in the table of routes shows at start."""
    with pytest.raises(ValueError, match="two routes"):
        Router([Route("/v1/a/{x}", Jobs), Route("/v1/a/{y}/", Job)])
