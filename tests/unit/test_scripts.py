"""The scripts in scripts/ against an agent that only writes down what it is asked: the reference's calls, as curl."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
TOKEN = "local-token-of-this-agent"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

SCRIPT_PROGRAMS = "bash cat dirname grep mkdir sed seq sleep stat tail tr wc".split()
"""What the scripts call that every Linux has."""


class Agent(http.server.ThreadingHTTPServer):
    """Answers everything with what it was told to, remembers what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str, str]] = []
        self.status = 200
        self.answer = "{}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Agent

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
        answer = self.server.answer.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Say nothing."""


@pytest.fixture
def agent() -> Iterator[Agent]:
    server = Agent()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def data_dir(agent: Agent, tmp_path: Path) -> Path:
    """What an agent leaves for the programs on its machine."""
    ports = {"gate_port": 1, "mesh_port": 2, "pub_port": 3}
    record = {"pid": os.getpid(), "name": "a", "node_id": "n", "url": agent.url, **ports}
    (tmp_path / "agent.json").write_text(json.dumps(record))
    (tmp_path / "local.token").write_text(TOKEN + "\n")
    return tmp_path


def run(script: str, *arguments: str, **env: str | Path) -> subprocess.CompletedProcess[str]:
    """A script in an environment without anything of ours but `env`."""
    return subprocess.run(
        [SCRIPTS / script, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **{name: str(value) for name, value in env.items()}},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@needs_curl
@pytest.mark.parametrize(
    ("command", "method", "path"),
    [
        (["job-list"], "GET", "/v1/jobs"),
        (["job-show", "cron_job"], "GET", "/v1/jobs/cron_job"),
        (["job-run", "cron_job"], "POST", "/v1/jobs/cron_job"),
        (["job-toggle", "cron_job"], "POST", "/v1/jobs/cron_job/toggle"),
        (["job-rm", "cron_job"], "DELETE", "/v1/jobs/cron_job"),
        (["executions", "größe 1"], "GET", "/v1/executions/größe 1"),
    ],
)
def test_reference_as_curl(agent: Agent, data_dir: Path, command: list[str], method: str, path: str) -> None:
    """Each script is one call of the reference; a name may hold any letter."""
    done = run(*command, MESHCRON_DATA_DIR=data_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}", "")
    asked_method, asked_path, authorization, body = agent.asked[0]
    assert (asked_method, unquote(asked_path)) == (method, path + "?pretty=true")
    assert (authorization, body) == (f"Bearer {TOKEN}", "")


@needs_curl
@pytest.mark.parametrize(
    ("name", "encoded"), [("a/b?c", "a%2Fb%3Fc"), ("100%25", "100%2525"), ("..", ".."), ("a#b", "a%23b")]
)
def test_a_name_is_one_part_of_the_path(agent: Agent, data_dir: Path, name: str, encoded: str) -> None:
    """Whatever is in it, it leads to no other path: the agent says that no job is called so."""
    for script, path in {
        "job-show": "/v1/jobs/{}",
        "job-run": "/v1/jobs/{}",
        "job-toggle": "/v1/jobs/{}/toggle",
        "job-rm": "/v1/jobs/{}",
        "executions": "/v1/executions/{}",
    }.items():
        assert run(script, name, MESHCRON_DATA_DIR=data_dir).returncode == 0
        assert agent.asked[-1][1] == path.format(encoded) + "?pretty=true"


@pytest.mark.parametrize(
    "words",
    [
        *[[script, ""] for script in ("job-show", "job-run", "job-toggle", "job-rm", "executions")],
        ["job-add", "", "@daily", "true"],
        ["job-add", "j", "@daily", "true", "role"],
        ["job-add", "j", "@daily", "true", "a=b", "=web"],
    ],
    ids=" ".join,
)
def test_what_was_left_out_asks_nothing(agent: Agent, data_dir: Path, words: list[str]) -> None:
    """An empty name, as an unset variable makes it, and a tag without `=` end with code 2 before anything is asked."""
    done = run(*words, MESHCRON_DATA_DIR=data_dir)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"scripts/{words[0]}" in done.stderr
    assert not agent.asked


@needs_curl
def test_job_add_sends_the_job_whatever_is_in_it(agent: Agent, data_dir: Path) -> None:
    """Quotes, backslashes and line ends of a command reach the agent as they were typed."""
    command = "printf \"%s\\n\" 'a\tb'\nexit 0"
    done = run("job-add", "j", "0 30 * * * *", command, "role=web", "x=a=b", MESHCRON_DATA_DIR=data_dir)
    assert done.returncode == 0, done.stderr
    method, path, _, body = agent.asked[0]
    assert (method, path) == ("POST", "/v1/jobs?pretty=true")
    assert json.loads(body) == {
        "name": "j",
        "schedule": "0 30 * * * *",
        "command": command,
        "tags": {"role": "web", "x": "a=b"},
    }


@needs_curl
def test_cluster_status_asks_three_things(agent: Agent, data_dir: Path) -> None:
    """The agent, the members, the leader."""
    assert run("cluster-status", MESHCRON_DATA_DIR=data_dir).returncode == 0
    assert [path.split("?")[0] for _, path, _, _ in agent.asked] == ["/v1/", "/v1/members", "/v1/leader"]


@needs_curl
def test_url_and_token_of_the_environment_win(agent: Agent, data_dir: Path) -> None:
    """MESHCRON_URL and MESHCRON_TOKEN beat what the data directory says."""
    (data_dir / "agent.json").write_text('{"url": "http://127.0.0.1:1"}')
    run("job-list", MESHCRON_DATA_DIR=data_dir, MESHCRON_URL=agent.url, MESHCRON_TOKEN="mine")
    assert agent.asked[0][2] == "Bearer mine"


@needs_curl
def test_of_two_agents_it_is_said_which_is_asked(agent: Agent, data_dir: Path, tmp_path: Path) -> None:
    """The checkout's quickstart runs beside the user's own: the answer comes from the first, and stderr names both. Who
    has said which one, or has only one, is told nothing."""
    script = tmp_path / "scripts/api"
    script.parent.mkdir()
    shutil.copy(SCRIPTS / "api", script)
    state, quickstart = tmp_path / "state/meshcron", tmp_path / ".meshcron/one"
    state.mkdir(parents=True)
    shutil.copy(data_dir / "agent.json", state)
    shutil.copy(data_dir / "local.token", state)

    def said(**env: str | Path) -> str:
        done = run(str(script), "GET", "/v1/jobs", XDG_STATE_HOME=state.parent, **env)
        assert (done.returncode, done.stdout) == (0, agent.answer)
        return done.stderr

    line = f"asking the agent of {quickstart}; another one: MESHCRON_DATA_DIR={state}\n"
    assert line not in said()
    quickstart.mkdir(parents=True)
    shutil.copy(data_dir / "agent.json", quickstart)
    assert line in said()
    assert [asked[2] for asked in agent.asked] == [f"Bearer {TOKEN}", ""]  # the first has no token here
    assert said(MESHCRON_DATA_DIR=state) == said(MESHCRON_URL=agent.url) == ""


@needs_curl
def test_escaped_slashes_of_agent_json_are_read(agent: Agent, data_dir: Path) -> None:
    """An escaped slash means the same in JSON."""
    (data_dir / "agent.json").write_text(json.dumps({"url": agent.url}).replace("/", "\\/"))
    assert run("job-list", MESHCRON_DATA_DIR=data_dir).returncode == 0


@needs_curl
def test_refusal_shows_the_answer_and_fails(agent: Agent, data_dir: Path) -> None:
    """What the agent says about the error is shown, and the script does not end as if all were well."""
    agent.status, agent.answer = 404, '{"error": {"code": "unknown_job"}}'
    done = run("job-show", "nope", MESHCRON_DATA_DIR=data_dir)
    assert (done.returncode, done.stdout) == (22, agent.answer)


@needs_curl
def test_no_agent_says_what_to_do(tmp_path: Path) -> None:
    """Nothing to talk to: the error names both ways to say where one is."""
    done = run("job-list", MESHCRON_DATA_DIR=tmp_path)
    assert done.returncode == 4
    assert "MESHCRON_URL" in done.stderr


def test_no_curl_says_what_to_install(tmp_path: Path) -> None:
    """A bare Debian has none."""
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(shutil.which(program) or program)
    done = run("job-list", PATH=tmp_path)
    assert (done.returncode, done.stderr) == (1, "curl is not installed (apt-get install curl)\n")


@pytest.fixture
def curl_arguments(tmp_path: Path) -> str:
    """A PATH whose curl prints its arguments and then the headers it is to read from a file."""
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nfor a; do case $a in @/dev/fd/*) cat "${a#@}";; esac; done\n')
    curl.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_no_token_is_an_argument(data_dir: Path, curl_arguments: str) -> None:
    """Arguments are everybody's to read; curl gets the token by a file descriptor."""
    said = run("job-list", MESHCRON_DATA_DIR=data_dir, PATH=curl_arguments).stdout.splitlines()
    assert said[-1] == f"Authorization: Bearer {TOKEN}"
    assert not any(TOKEN in line for line in said[:-1])


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:{port}",
        "http://127.0.0.1.evil.example:{port}",
        "http://localhost:{port}@evil.lan",
        "http://127.0.0.1:1{port}",
        "http://127.0.0.1",
    ],
)
def test_local_token_is_for_its_agent_alone(agent: Agent, data_dir: Path, curl_arguments: str, url: str) -> None:
    """The token that opens everything here is not sent anywhere else, nor to another port of this machine."""
    url = url.format(port=agent.server_port)
    done = run("job-list", MESHCRON_DATA_DIR=data_dir, MESHCRON_URL=url, PATH=curl_arguments)
    assert f"{url}/v1/jobs?pretty=true" in done.stdout.splitlines()
    assert TOKEN not in done.stdout


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("localhost:{port}", "http://127.0.0.1:{port}"),
        ("http://[::1]:{port}/", "http://127.0.0.1:{port}"),
        ("https://localhost:{port}", "https://localhost:{port}"),
    ],
)
def test_local_token_goes_where_its_agent_listens(
    agent: Agent, data_dir: Path, curl_arguments: str, url: str, reached: str
) -> None:
    """`localhost` may lead to another user's program with the same port. A certificate for it nobody else has."""
    url, reached = url.format(port=agent.server_port), reached.format(port=agent.server_port)
    done = run("job-list", MESHCRON_DATA_DIR=data_dir, MESHCRON_URL=url, PATH=curl_arguments)
    assert f"{reached}/v1/jobs?pretty=true" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == f"Authorization: Bearer {TOKEN}"


def test_localhost_is_no_agent_that_listens_elsewhere(data_dir: Path, curl_arguments: str) -> None:
    """On an address of the LAN alone: at `localhost` may be a tunnel to another cluster."""
    record = json.loads((data_dir / "agent.json").read_text())
    (data_dir / "agent.json").write_text(json.dumps(record | {"url": "http://192.0.2.5:8080"}))
    done = run("job-list", MESHCRON_DATA_DIR=data_dir, MESHCRON_URL="http://localhost:8080", PATH=curl_arguments)
    assert "http://localhost:8080/v1/jobs?pretty=true" in done.stdout.splitlines()
    assert TOKEN not in done.stdout
    assert TOKEN in run("job-list", MESHCRON_DATA_DIR=data_dir, PATH=curl_arguments).stdout


def test_a_dead_agents_port_gets_no_token(agent: Agent, data_dir: Path, curl_arguments: str) -> None:
    """It was killed, its agent.json is still there: whoever listens on that port now is a stranger."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for pid in (f'"pid": {gone.pid}, ', ""):
        (data_dir / "agent.json").write_text(f'{{{pid}"url": "{agent.url}"}}')
        done = run("job-list", MESHCRON_DATA_DIR=data_dir, PATH=curl_arguments)
        assert f"{agent.url}/v1/jobs?pretty=true" in done.stdout.splitlines()
        assert TOKEN not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_another_users_process_with_its_number_gets_no_token(data_dir: Path, curl_arguments: str) -> None:
    """Numbers of processes come round again."""
    os.chown(data_dir / "agent.json", 65534, 65534)
    assert TOKEN not in run("job-list", MESHCRON_DATA_DIR=data_dir, PATH=curl_arguments).stdout


@needs_curl
@pytest.mark.slow
def test_smoke_test_fails_when_nothing_runs(agent: Agent, data_dir: Path) -> None:
    """An agent that takes every call and runs nothing does not pass."""
    agent.answer = "[]"
    done = run("smoke-test", agent.url, MESHCRON_DATA_DIR=data_dir)
    assert done.returncode == 1
    assert "no successful execution" in done.stderr
    assert [method for method, *_ in agent.asked][-1] == "DELETE"


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with what every Linux has: no curl."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for program in SCRIPT_PROGRAMS:
        (folder / program).symlink_to(shutil.which(program) or program)
    return str(folder)


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment whose meshcron knows one list of members."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    program = folder / "bin/meshcron"
    rows = ["NAME  STATE  ROLE    ADDRESS", "one   alive  leader  127.0.0.1:1", "two   alive  voter   127.0.0.1:2"]
    program.write_text("#!/bin/sh\n" + "".join(f'echo "{row}"\n' for row in rows))
    program.chmod(0o755)
    (folder / ".meshcron-test").touch()
    return folder


def test_a_cluster_needs_no_curl(tmp_path: Path, bare_path: str, venv: Path) -> None:
    """It asks through the command that was installed with it: who the members are, and which of them leads."""
    folder = tmp_path / "cluster"
    (folder / "one").mkdir(parents=True)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", str(folder / "one")]
    with subprocess.Popen(sleep) as process:
        (folder / "one/agent.json").write_text(json.dumps({"pid": process.pid}))
        told = run("cluster", "--dir", str(folder), "status", PATH=bare_path, VENV=venv)
        killed = run("cluster", "--dir", str(folder), "kill-leader", PATH=bare_path, VENV=venv)
        if killed.returncode:
            process.terminate()
    assert (told.returncode, told.stdout.splitlines()[1]) == (0, "one   alive  leader  127.0.0.1:1"), told
    assert (killed.returncode, killed.stdout, killed.stderr) == (0, "one\n", "")
    assert process.returncode == -signal.SIGKILL


def program(path: Path, text: str) -> None:
    """One that a script finds in place of the real one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_demo_talks_to_its_own_cluster_only(tmp_path: Path) -> None:
    """Also with the address, the token and the key of a real one in the caller's environment."""
    said, programs = tmp_path / "said", tmp_path / "bin"
    tell = f"env | grep ^MESHCRON_ >>{said}"
    program(tmp_path / "scripts/venv", f"{tell}; echo {programs}")
    program(tmp_path / "scripts/cluster", f"{tell}; mkdir -p {tmp_path}/.meshcron/demo; echo one")
    for name in ("meshcron", "python", "sleep"):
        program(programs / name, f"{tell}; true")
    shutil.copy(SCRIPTS / "demo-failover", tmp_path / "scripts")
    theirs = {"MESHCRON_URL": "http://127.0.0.1:1", "MESHCRON_TOKEN": "theirs", "MESHCRON_KEY": "mk1-"}
    done = run(str(tmp_path / "scripts/demo-failover"), PATH=f"{programs}:{os.environ['PATH']}", **theirs)
    assert done.returncode == 0, done
    assert set(said.read_text().split()) == {f"MESHCRON_DATA_DIR={tmp_path}/.meshcron/demo/one"}


def test_of_five_that_run_three_are_one_cluster(tmp_path: Path, bare_path: str, venv: Path) -> None:
    """`start 3` where five run already starts none, and does not wait until two of them are gone."""
    folder, names = tmp_path / "cluster", "one two three four five".split()
    members = [{"Name": name, "statusText": "alive", "voter": True, "leader": name == "two"} for name in names]
    told = json.dumps(members)
    program(venv / "bin/meshcron", f"case $* in *--json) echo '{told}' ;; *) echo 'two  alive  leader  x' ;; esac")
    running = []
    for name in names:
        (folder / name).mkdir(parents=True)
        words = [sys.executable, "-c", "import time; time.sleep(60)", str(folder / name)]
        running.append(subprocess.Popen(words))
        (folder / name / "agent.json").write_text(json.dumps({"pid": running[-1].pid}))
    (folder / "cluster.key").write_text("mk1-")
    try:
        done = run("cluster", "--dir", str(folder), "start", "3", PATH=bare_path, VENV=venv)
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert (done.returncode, done.stdout) == (0, "one two three four five are one cluster, two leads\n"), done


def test_an_environment_without_pip_is_made_anew(tmp_path: Path) -> None:
    """Interrupted while it is made, it has a Python and no pip: no call after that could install anything."""
    venv, programs = tmp_path / "venv", tmp_path / "bin"
    program(venv / "bin/python", f'test -e {venv}/bin/pip || exit 1; echo "$*" >>{tmp_path}/said')
    program(programs / "python3", f'case $1 in -m) cp "$0" {venv}/bin/pip ;; esac')
    for _ in range(2):
        done = run("venv", PATH=f"{programs}:{os.environ['PATH']}", VENV=venv)
        assert (done.returncode, done.stdout) == (0, f"{venv}/bin\n"), done
    assert "--editable" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("script", ["quickstart", "cluster", "demo-failover"])
def test_what_is_tried_first_calls_no_curl(script: str) -> None:
    """Nor the scripts that do: Python is all that a first look may ask for."""
    called = "\n".join(line for line in (SCRIPTS / script).read_text().splitlines() if not line.startswith("#"))
    assert not re.search(r"curl|scripts/(api|job-|executions|smoke)", called)


@pytest.mark.parametrize(
    "words",
    [
        ["cluster"],
        ["cluster", "start"],
        ["cluster", "start", "0"],
        ["cluster", "start", "10"],
        ["cluster", "start", "3", "2"],
        ["cluster", "stop", "now"],
        ["cluster", "--dir"],
        ["quickstart", "begin"],
    ],
    ids=" ".join,
)
def test_a_slip_starts_nothing(words: list[str]) -> None:
    """What the scripts that start agents do not understand they refuse, and say how they are called."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: scripts/{words[0]}")


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir()))
def test_every_script_explains_itself(script: str) -> None:
    """-h prints how it is called and what it does, and touches nothing."""
    done = run(script, "-h")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: scripts/{script}")
    assert len(done.stdout.splitlines()) > 1
