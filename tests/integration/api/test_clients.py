"""Two clients from PyPI, written for Dkron and unmodified, do with an agent all that they offer: pydkron 0.2.4, and
dkron 0.0.5 with its command line. They know nothing of tokens; that they read .netrc, as curl -n does, is enough."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.real_agent import RealAgent, wait_for

pydkron = pytest.importorskip("pydkron.client", reason="scripts/venv installs it")
dkron = pytest.importorskip("dkron", reason="scripts/venv installs it")

JOB = {
    "name": "backup",
    "schedule": "0 30 4 29 2 *",  # once in four years: the runs are those that a client asks for
    "command": "echo saved",
    "owner": "John Doe",
    "owner_email": "john@doe.com",
    "disabled": False,
    "tags": {"role": "web"},
}


@pytest.fixture(scope="module", params=["tokens in .netrc", "auth off"])
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAgent]:
    """A real agent, tagged as the job wants; with tokens, and as old clients were used to it."""
    real = RealAgent(tmp_path_factory.mktemp("agent") / "data", "--tag", "role=web")
    real.start(*(["--auth", "off"] if request.param == "auth off" else []))
    netrc = real.folder.with_name("netrc")
    if request.param == "auth off":
        netrc.touch()
    else:
        netrc.write_text(f"machine 127.0.0.1 login meshcron password {real.token}\n")
    netrc.chmod(0o600)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NETRC", str(netrc))
        yield real
    real.stop()


@pytest.fixture(autouse=True)
def empty(agent: RealAgent) -> None:
    """No jobs before a test."""
    for name in agent.jobs():
        agent.call("DELETE", f"/v1/jobs/{name}")


def offered(kind: type) -> set[str]:
    """The public methods of a class."""
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def ended(executions: Callable[[], list[dict[str, Any]]], count: int = 1) -> list[dict[str, Any]]:
    """So many executions, once they are over."""
    return wait_for(lambda: [found for found in [executions()] if sum(one["success"] for one in found) == count])[0]


def test_the_clients_are_the_ones_meant() -> None:
    """Exactly these versions, and nothing in them that the stories below leave out."""
    assert (version("pydkron"), version("dkron")) == ("0.2.4", "0.0.5")
    assert offered(pydkron.DkronClient) == {
        *("status", "jobs", "get_job", "save_job", "run_job", "delete_job", "create_job", "get_executions", "toggle"),
    }
    assert offered(pydkron.DkronJob) == {"save", "marshal", "executions", "run", "delete"}
    assert offered(dkron.Dkron) == {
        *("get_status", "get_leader", "get_members", "get_jobs", "get_job"),
        *("apply_job", "run_job", "delete_job", "get_executions"),
    }


def hosts(agent: RealAgent) -> list[str]:
    """For pydkron: one that nobody listens at, and ours. It tries them in any order."""
    return ["127.0.0.1:1", agent.url.removeprefix("http://")]


def test_pydkron_lives_with_a_job(agent: RealAgent) -> None:
    """Created, listed, shown, run, toggled, deleted."""
    client = pydkron.DkronClient(hosts(agent))
    assert client.status()["agent"]["name"] == "one"
    assert client.jobs() == []
    client.create_job(JOB)
    [job] = client.jobs()
    assert {key: job[key] for key in JOB} == JOB
    assert (job.success_count, job.error_count, job.last_success) == (0, 0, "0001-01-01T00:00:00Z")
    assert client.get_job("backup") == job
    assert client.run_job("backup")["name"] == "backup"
    [execution] = ended(lambda: client.get_executions("backup"))
    assert (execution["output"], execution["node_name"], execution["job_name"]) == ("saved\n", "one", "backup")
    assert client.get_job("backup").success_count == 1
    assert [client.toggle("backup").disabled for _ in range(2)] == [True, False]
    assert client.delete_job("backup")["name"] == "backup"
    assert client.jobs() == []


def test_pydkron_jobs_as_objects(agent: RealAgent) -> None:
    """A job that was read is changed in one field and saved with all the others, the computed ones included."""
    client = pydkron.DkronClient(hosts(agent))
    assert client.save_job(pydkron.DkronJob(client, **JOB))["name"] == "backup"
    job = client.get_job("backup")
    job.command = "echo other"
    job.retries = 2
    job.concurrency = "forbid"
    saved = job.save()
    changed = {"command": "echo other", "retries": 2, "concurrency": "forbid", "owner": "John Doe"}
    assert {key: saved[key] for key in changed} == changed
    assert json.loads(job.marshal())["command"] == "echo other"
    assert job.run()["name"] == "backup"
    assert [one["output"] for one in ended(job.executions)] == ["other\n"]
    child = client.create_job({"name": "after", "parent_job": "backup", "command": "true", "schedule": ""})
    assert client.get_job("backup").dependent_jobs == ["after"]
    assert child.delete()["name"] == "after"
    assert job.delete()["name"] == "backup"


def test_pydkron_hears_no(agent: RealAgent) -> None:
    """What is refused arrives as the client's own errors."""
    client = pydkron.DkronClient(hosts(agent))
    for call in (client.get_job, client.run_job, client.delete_job, client.get_executions, client.toggle):
        with pytest.raises(pydkron.DkronJobNotFound):
            call("nobody")
    with pytest.raises(pydkron.DkronClientException, match="status=400"):
        client.create_job(JOB | {"schedule": "61 * * * *"})
    assert client.jobs() == []


def test_dkron_lives_with_a_job(agent: RealAgent) -> None:
    """Every method of the library."""
    client = dkron.Dkron(["http://127.0.0.1:1", agent.url])
    assert client.get_status()["agent"]["name"] == "one"
    assert client.get_members() == [client.get_leader()]
    assert client.get_jobs() == []
    job = client.apply_job(JOB)
    assert {key: job[key] for key in JOB} == JOB
    assert client.get_job("backup") == job
    assert client.get_jobs() == [job]
    client.run_job("backup")
    [execution] = ended(lambda: client.get_executions("backup"))
    assert (execution["output"], execution["node_name"]) == ("saved\n", "one")
    again = client.get_job("backup") | {"command": "echo again"}
    assert client.apply_job(again)["command"] == "echo again"
    assert client.delete_job("backup")["name"] == "backup"
    for call in (client.get_job, client.run_job, client.delete_job, client.get_executions):
        with pytest.raises(dkron.DkronException, match="code 404"):
            call("backup")
    with pytest.raises(dkron.DkronException, match=r"code 400.*schedule"):
        client.apply_job(JOB | {"schedule": "61 * * * *"})


@pytest.fixture
def dkron_cli(agent: RealAgent) -> Callable[..., str]:
    """The command line of dkron 0.0.5, as a process of its own; what it prints."""

    def run(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "dkron", *words]
        variables = os.environ | {"DKRON_HOSTS": agent.url}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == code, done
        return done.stdout

    return run


def test_dkron_cli_lives_with_a_job(agent: RealAgent, dkron_cli: Callable[..., str], tmp_path: Path) -> None:
    """Every command, but help."""
    file = tmp_path / "backup.json"
    file.write_text(json.dumps(JOB))
    assert json.loads(dkron_cli("get", "status"))["agent"]["name"] == "one"
    assert json.loads(dkron_cli("get", "members")) == [json.loads(dkron_cli("get", "leader"))]
    assert dkron_cli("apply", "job", str(file)) == f"Processed: {file}\n"
    [job] = json.loads(dkron_cli("get", "jobs"))
    assert {key: job[key] for key in JOB} == JOB
    assert json.loads(dkron_cli("get", "job", "backup")) == job
    dkron_cli("run", "backup")
    [execution] = ended(lambda: json.loads(dkron_cli("get", "executions", "backup")))
    assert execution["output"] == "saved\n"
    dkron_cli("delete", "job", "backup")
    assert json.loads(dkron_cli("get", "jobs")) == []
    assert "code 404" in dkron_cli("get", "job", "backup", code=1)
    assert "code 404" in dkron_cli("delete", "job", "backup", code=1)
    assert "code 404" in dkron_cli("run", "backup", code=1)


def test_what_dkron_cli_exports_can_be_applied(agent: RealAgent, dkron_cli: Callable[..., str], tmp_path: Path) -> None:
    """Its way to move to another cluster: every job as a file, and back, with nothing changed."""
    full = JOB | {
        "name": "full", "timezone": "Europe/Berlin", "retries": 3, "concurrency": "forbid", "timeout": "1m30s",
        "env": {"A": "1"}, "metadata": {"team": "ops"}, "starts_at": "2030-01-01T00:00:00Z", "disabled": True,
    }  # fmt: skip
    for job in (JOB, full):
        agent.call("POST", "/v1/jobs", job)
    before = agent.call("GET", "/v1/jobs")
    dkron_cli("export", str(tmp_path))
    files = sorted(map(str, tmp_path.glob("*.json")))
    assert [Path(file).stem for file in files] == ["backup", "full"]
    for name in agent.jobs():
        agent.call("DELETE", f"/v1/jobs/{name}")
    dkron_cli("apply", "job", *files)
    assert agent.call("GET", "/v1/jobs") == before
