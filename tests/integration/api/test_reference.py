"""docs/reference/rest-api.md, word for word, with a real agent: every curl example is run, every answer compared with
the one shown. MESHCRON_TEST_URL and MESHCRON_TEST_TOKEN point it at an agent that runs already.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from tests.integration.api.agent_under_test import Agent

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "rest-api.md"
HOST_SHOWN = "dkron-node:8080"
"""The host of every example: the name of the agent under test stands in for it."""

JOB = "cron_job"
RAN = "reference_job"
"""Names the variables $JOB_NAME and $EXECUTION_JOB_NAME stand for."""


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Example(NamedTuple):
    """One section: the command, the status line, the JSON that is shown."""

    title: str
    command: str
    status: str
    shown: Any


def examples() -> Iterator[Example]:
    """Every section of the document that has a curl example and a response."""
    for section in re.split(r"\n(?=### )", DOCUMENT.read_text()):
        command = re.search(r"```bash\n\$ (.*?)\n```", section, re.DOTALL)
        answer = re.search(r"```\nHTTP/1.1 (.*?)\n```\s+```json\n(.*?)\n```", section, re.DOTALL)
        if command and answer:
            title = section.partition("\n")[0].strip("# ")
            yield Example(title, command[1], answer[1], json.loads(answer[2]))


EXAMPLES = list(examples())


def test_every_endpoint_of_the_document_is_tried() -> None:
    """As many examples as it has, one for each endpoint, with its method and path: none was missed in reading."""
    text = DOCUMENT.read_text()
    endpoints = re.findall(r"```\n([A-Z]+) (/\S*)\n```", text)
    assert (
        len(EXAMPLES) == text.count("#### Curl Example") == text.count("#### Response Example") == len(endpoints) == 9
    )
    for example, (method, path) in zip(EXAMPLES, endpoints, strict=True):
        url = re.search(rf"{HOST_SHOWN}(\S+)", example.command)
        assert url, example.title
        assert (re.findall(r"-X (\w+)", example.command) or ["GET"]) == [method]
        assert re.sub(r"\$\w+", "*", url[1]) == re.sub(r"{\w+}", "*", path)


@pytest.fixture
def scene(agent: Agent) -> Iterator[requests.Session]:
    """The job of the examples, and another that ran once; both are gone afterwards."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {agent.token}"
        for name, command in ((JOB, "/usr/bin/date"), (RAN, "date")):
            body = {"name": name, "schedule": "@yearly", "command": command}
            assert session.put(f"{agent.url}/v1/jobs/{name}", json=body, timeout=10).status_code == 201
        assert session.post(f"{agent.url}/v1/jobs/{RAN}?wait=20", timeout=30).status_code == 200
        yield session
        for name in (JOB, RAN):
            session.delete(f"{agent.url}/v1/jobs/{name}", timeout=10)


def run(command: str, agent: Agent, netrc: Path) -> tuple[str, dict[str, str], bytes]:
    """A command as it stands in the document, in a shell; only the host is put in its place, and .netrc is ours."""
    host, _, port = agent.address.partition(":")
    netrc.write_text(f"machine {HOST_SHOWN.partition(':')[0]} login meshcron password {agent.token}\n")
    netrc.chmod(0o600)
    to = f"--connect-to {HOST_SHOWN}:{host}:{port} -H 'Host: {agent.address}' --netrc-file {netrc}"
    script = (
        f'curl() {{ command curl -sS -i --max-time 20 {to} "$@"; }}\n'
        f"JOB_NAME={JOB} EXECUTION_JOB_NAME={RAN}\n{command}\n"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=30)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return status.removeprefix("HTTP/1.1 "), dict(line.split(": ", 1) for line in lines), body


def assert_like(found: Any, shown: Any, where: str = "answer") -> None:
    """Has every key that is shown, each with a value of the type that is shown."""
    assert type(found) is type(shown), f"{where} is {found!r}, shown is {shown!r}"
    if isinstance(shown, dict):
        for key, value in shown.items():
            if key != "...":  # "and so on": the document's own way of leaving out
                assert key in found, f"{where} has no {key}"
                assert_like(found[key], value, f"{where}.{key}")
    elif isinstance(shown, list):
        assert found, f"{where} is empty"
        for at, item in enumerate(found):
            assert_like(item, shown[0], f"{where}.{at}")


FREE = {"tags", "Tags"}
"""Objects whose members are the user's: the document's are only examples."""


def without_free(shown: Any) -> Any:
    """What is shown, without the members that are only examples."""
    if isinstance(shown, dict):
        return {key: {} if key in FREE else without_free(value) for key, value in shown.items()}
    return [without_free(item) for item in shown] if isinstance(shown, list) else shown


@needs_curl
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_example(example: Example, agent: Agent, scene: requests.Session, tmp_path: Path) -> None:
    """The command works as written; status, keys and types are as shown."""
    status, headers, body = run(example.command, agent, tmp_path / "netrc")
    assert status == example.status, body
    assert headers["Content-Type"] == "application/json; charset=UTF-8"
    assert headers["X-Whom"]
    assert_like(json.loads(body), without_free(example.shown))


@needs_curl
def test_what_was_created_is_what_was_sent(agent: Agent, scene: requests.Session, tmp_path: Path) -> None:
    """The values too, not only their types."""
    [create] = [example for example in EXAMPLES if example.title == "Job Create or update"]
    _, _, body = run(create.command, agent, tmp_path / "netrc")
    sent = json.loads(create.command.partition("-d '")[2].rstrip("'"))
    for answer in (json.loads(body), scene.get(f"{agent.url}/v1/jobs/{JOB}", timeout=10).json()):
        assert {key: answer[key] for key in sent} == sent
        assert (answer["success_count"], answer["error_count"]) == (0, 0)
        assert answer["last_success"] == answer["last_error"] == "0001-01-01T00:00:00Z"


TYPES = {
    "string": str,
    "email": str,
    "hostname": str,
    "date-time": str,
    "integer": int,
    "boolean": bool,
    "object": dict,
}
"""The document's types in Python."""

OBJECTS = {
    "Status": "/v1/",
    "Job": f"/v1/jobs/{JOB}",
    "Member": "/v1/leader",
    "Execution": f"/v1/executions/{RAN}",
}
"""Where an object of each chapter is found."""


@pytest.mark.parametrize("chapter", OBJECTS)
def test_attributes(chapter: str, agent: Agent, scene: requests.Session) -> None:
    """Every attribute of every table, of its type. Where table and example differ the example counts: Name is text."""
    [text] = re.findall(rf"\n## {chapter}\n(.*?)(?=\n### \w+ |\n## |\Z)", DOCUMENT.read_text(), re.DOTALL)
    attributes = re.findall(r"^\| \*\*(\w+)\*\* \| \*([\w-]+)\* \|", text, re.MULTILINE)
    assert attributes
    answer = scene.get(agent.url + OBJECTS[chapter], timeout=10).json()
    found = answer[0] if isinstance(answer, list) else answer
    for name, kind in attributes:
        assert type(found[name]) is (str if name == "Name" else TYPES[kind]), name


def test_pretty(agent: Agent, scene: requests.Session) -> None:
    """Default API responses are unformatted JSON; `pretty=true` formats them."""
    plain = scene.get(f"{agent.url}/v1/jobs", timeout=10)
    pretty = scene.get(f"{agent.url}/v1/jobs?pretty=true", timeout=10)
    assert "\n" not in plain.text
    assert "\n" in pretty.text
    assert [job["name"] for job in plain.json()] == [job["name"] for job in pretty.json()]


def test_execution_values(agent: Agent, scene: requests.Session) -> None:
    """What ran is told as it was: success, times in order, the output of `date`."""
    [shown] = scene.get(f"{agent.url}/v1/executions/{RAN}", timeout=10).json()
    assert (shown["job_name"], shown["success"]) == (RAN, True)
    assert shown["output"]
    assert "2012" < shown["started_at"] <= shown["finished_at"]


def test_delete_forgets_the_executions(agent: Agent, scene: requests.Session) -> None:
    """A deleted job and its history are gone for everybody at once."""
    assert scene.delete(f"{agent.url}/v1/jobs/{RAN}", timeout=10).status_code == 200
    assert scene.get(f"{agent.url}/v1/jobs/{RAN}", timeout=10).status_code == 404
    assert scene.get(f"{agent.url}/v1/executions/{RAN}", timeout=10).status_code == 404
