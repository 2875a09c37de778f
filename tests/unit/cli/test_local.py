"""Finding the agent and the token."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from meshcron.cli.failures import Failure
from meshcron.cli.local import URL_DEFAULT, Endpoint, Given, find, find_again


def given(folder: Path, url: str | None = None, token_file: Path | None = None, **environment: str) -> Given:
    return Given(url, token_file, folder, environment)


def an_agent(folder: Path, url: str = "http://127.0.0.1:1234", token: str = "local-secret", pid: int = 0) -> None:
    record = {
        "pid": pid or os.getpid(),
        "name": "one",
        "node_id": "n",
        "url": url,
        "gate_port": 1,
        "mesh_port": 2,
        "pub_port": 3,
    }
    (folder / "agent.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "local.token").write_text(token + "\n", encoding="utf-8")


def test_an_agent_of_this_machine_is_found_by_its_files(tmp_path: Path) -> None:
    """Nothing said: agent.json has the address, local.token opens it."""
    an_agent(tmp_path)
    assert find(given(tmp_path))[:2] == ("http://127.0.0.1:1234", "local-secret")


def test_the_data_directory_may_come_from_the_environment_or_the_file(tmp_path: Path) -> None:
    """MESHCRON_DATA_DIR, or data_dir in the file that MESHCRON_CONFIG names."""
    an_agent(tmp_path)
    by_variable = Given(None, None, None, {"MESHCRON_DATA_DIR": str(tmp_path)})
    assert find(by_variable).url == "http://127.0.0.1:1234"
    file = tmp_path / "m.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n', encoding="utf-8")
    assert find(Given(None, None, None, {"MESHCRON_CONFIG": str(file)})).url == "http://127.0.0.1:1234"


@pytest.mark.parametrize("by_flag", [True, False], ids=["--data-dir", "MESHCRON_DATA_DIR"])
def test_a_named_directory_without_an_agent_is_refused(tmp_path: Path, by_flag: bool) -> None:
    """It led to whatever agent is at the default address. A URL beats it, as ever."""
    folder = tmp_path / "typo"
    asked = given(folder) if by_flag else Given(None, None, None, {"MESHCRON_DATA_DIR": str(folder)})
    rest = f'start one with "meshcron up --data-dir {folder}", or name another directory or --url'
    with pytest.raises(Failure) as raised:
        find(asked)
    assert (str(raised.value), raised.value.exit_code) == (f"no agent has run in {folder}; {rest}", 4)
    folder.mkdir()
    (folder / "local.token").write_text("secret\n", encoding="utf-8")
    with pytest.raises(Failure) as raised:
        find(asked)
    assert str(raised.value) == f"no agent runs in {folder}; {rest}"
    assert find(asked._replace(url="http://127.0.0.1:1")).url == "http://127.0.0.1:1"


def test_a_restarted_agent_is_found_again(tmp_path: Path) -> None:
    """Where it is by now; it is nowhere while its record is gone, or is that of a dead process, which gets no token."""
    before = Endpoint("http://127.0.0.1:1234", "local-secret")
    (tmp_path / "local.token").write_text("local-secret\n", encoding="utf-8")
    assert find_again(given(tmp_path), before) is None
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    an_agent(tmp_path, pid=dead.pid)
    assert find_again(given(tmp_path), before) is None
    an_agent(tmp_path, "http://127.0.0.1:4321")
    assert find_again(given(tmp_path), before) == ("http://127.0.0.1:4321", "local-secret", "")
    assert find_again(given(tmp_path, "http://127.0.0.1:1"), Endpoint("http://127.0.0.1:1", "")) is not None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": 1}', '{"url": null}', '{"url": "ftp://x"}'])
def test_a_broken_record_is_as_none(tmp_path: Path, content: str) -> None:
    """A half-written or foreign agent.json does not stop the command: the default address is tried."""
    (tmp_path / "agent.json").write_text(content, encoding="utf-8")
    assert find(given(tmp_path)).url == URL_DEFAULT


@pytest.mark.parametrize(
    ("recorded", "reached"),
    [
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://[::]:8080", "http://[::1]:8080"),
        ("https://127.0.0.1:8443/", "https://127.0.0.1:8443"),
    ],
)
def test_all_interfaces_are_reached_on_loopback(tmp_path: Path, recorded: str, reached: str) -> None:
    """An agent that listens everywhere is reached without leaving the machine."""
    an_agent(tmp_path, url=recorded)
    assert find(given(tmp_path)).url == reached


def test_flag_beats_environment_beats_record(tmp_path: Path) -> None:
    """For the address and for the token alike."""
    an_agent(tmp_path)
    file = tmp_path / "t"
    file.write_text("from-file", encoding="utf-8")
    env = {"MESHCRON_URL": "http://127.0.0.1:2", "MESHCRON_TOKEN": "from-env"}
    assert find(given(tmp_path, "127.0.0.1:3", file, **env))[:2] == ("http://127.0.0.1:3", "from-file")
    assert find(given(tmp_path, None, None, **env))[:2] == ("http://127.0.0.1:2", "from-env")


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://127.0.0.1:1234", True),
        ("http://localhost:1234", True),
        ("http://127.0.0.1:1235", False),
        ("https://127.0.0.1:1234", False),
        ("http://other.example:1234", False),
        ("http://127.0.0.1.evil.example:1234", False),
    ],
)
def test_the_local_token_is_for_its_agent_alone(tmp_path: Path, url: str, sent: bool) -> None:
    """It opens all of this agent: an address somebody wrote into a script does not get it."""
    an_agent(tmp_path)
    assert find(given(tmp_path, url)).token == ("local-secret" if sent else "")


@pytest.mark.parametrize(
    ("recorded", "asked", "reached"),
    [
        ("http://127.0.0.1:1234", "http://localhost:1234", "http://127.0.0.1:1234"),
        ("http://127.0.0.1:1234", "http://[::1]:1234/", "http://127.0.0.1:1234"),
        ("http://192.168.1.5:1234", "192.168.1.5:1234/", "http://192.168.1.5:1234"),
        ("https://127.0.0.1:1234", "https://localhost:1234", "https://localhost:1234"),
    ],
)
def test_the_local_token_goes_where_its_agent_listens(tmp_path: Path, recorded: str, asked: str, reached: str) -> None:
    """`localhost` may lead to ::1 first, where another user's program has the same port. A certificate for `localhost`
    nobody else has."""
    an_agent(tmp_path, url=recorded)
    assert find(given(tmp_path, asked))[:2] == (reached, "local-secret")


def test_an_agent_on_a_lan_address_gets_its_token_there(tmp_path: Path) -> None:
    """`--http 192.168.1.5:8080`: the address it listens on is its own. On loopback somebody else listens, or a tunnel
    to another cluster ends."""
    an_agent(tmp_path, url="http://192.168.1.5:8080")
    assert find(given(tmp_path)).token == "local-secret"
    assert find(given(tmp_path, "localhost:8080"))[:2] == ("http://localhost:8080", "")


def test_a_dead_agents_port_gets_no_token(tmp_path: Path) -> None:
    """The agent was killed, its agent.json is still there: whoever listens on that port now is a stranger."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    an_agent(tmp_path, pid=gone.pid)
    found = find(given(tmp_path))
    assert found[:2] == ("http://127.0.0.1:1234", "")
    assert "does not run" in found.why_no_token


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_another_users_process_with_its_number_gets_no_token(tmp_path: Path) -> None:
    """Numbers of processes come round again."""
    an_agent(tmp_path)
    os.chown(tmp_path / "agent.json", 65534, 65534)
    assert find(given(tmp_path)).token == ""


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "http://:80", "http://h:99999", "http://h?x=1", "http://u:p@h", "http://h:0", "http://[x"],
)
def test_a_wrong_url_is_refused(tmp_path: Path, url: str) -> None:
    """Code 2 and what one looks like; a password in a URL ends up in logs and is refused too."""
    with pytest.raises(Failure, match="is not the URL of an agent") as refused:
        find(given(tmp_path, url))
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", "tök".encode()])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    """What is no token is never sent: a wrong file name must not leak a file."""
    file = tmp_path / "t"
    file.write_bytes(content)
    with pytest.raises(Failure, match="holds no token") as refused:
        find(given(tmp_path, "http://127.0.0.1:1", file))
    assert refused.value.exit_code == 2


def test_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    """A named file must be there."""
    with pytest.raises(Failure, match="cannot read the token"):
        find(given(tmp_path, "http://127.0.0.1:1", tmp_path / "none"))


def test_no_token_is_no_error_yet(tmp_path: Path) -> None:
    """The agent may run with auth off; why there is none is kept for the case that it does not."""
    found = find(given(tmp_path, "http://127.0.0.1:1"))
    assert found.token == ""
    assert str(tmp_path / "local.token") in found.why_no_token
