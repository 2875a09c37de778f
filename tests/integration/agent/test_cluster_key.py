"""The key that an agent was given once is there at its next start, and no other one ever takes its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshcron.net.keys import read_key
from meshcron.runtime.credentials import new_identity, new_key
from meshcron.store.directory import machine_id
from meshcron.store.store import Store
from tests.integration.agent.real_agent import RealAgent, contents, refusal, wait_for


@pytest.fixture
def joined(agent: RealAgent, tmp_path: Path) -> Iterator[RealAgent]:
    """A second one, told where the first one's gate is; it was never started."""
    second = RealAgent(tmp_path / "two", "--name", "two", "--join", f"127.0.0.1:{agent.record['gate_port']}")
    yield second
    if second.running:
        second.stop()


def fingerprint(agent: RealAgent) -> str:
    return str(agent.call("GET", "/v1/")["mesh"]["fingerprint"])


def test_who_joined_by_the_variable_is_a_member_without_it(agent: RealAgent, joined: RealAgent) -> None:
    """As the README says it: MESHCRON_KEY=... meshcron up. After a restart it is still the agent it was."""
    key = read_key(agent.folder / "cluster.key")
    joined.start(MESHCRON_KEY=key.text)
    assert len(joined.call("GET", "/v1/members")) == 2
    node_id = joined.record["node_id"]
    joined.stop()
    joined.start()
    assert joined.record["node_id"] == node_id
    wait_for(lambda: {one["Status"] for one in agent.call("GET", "/v1/members")} == {1}, "both are alive")
    assert len(agent.call("GET", "/v1/members")) == len(joined.call("GET", "/v1/members")) == 2
    assert fingerprint(joined) == key.fingerprint
    assert (joined.folder / "cluster.key").stat().st_mode & 0o777 == 0o600


def test_what_is_given_counts_and_what_is_kept_stays(agent: RealAgent) -> None:
    """Another key by the variable: one line says so, and without it all is as before."""
    kept, given = read_key(agent.folder / "cluster.key"), new_key()
    agent.stop()
    agent.start(MESHCRON_KEY=given.text)
    assert fingerprint(agent) == given.fingerprint
    agent.stop()
    agent.start()
    assert fingerprint(agent) == kept.fingerprint
    assert agent.log.count("the cluster key that was given counts") == 1


def test_no_new_key_for_an_agent_of_a_cluster(agent: RealAgent, tmp_path: Path) -> None:
    """Its key lay in a file that is named no more: with a new one it would be alone, and say that it is ready."""
    key = tmp_path / "key"
    agent.stop()
    (agent.folder / "cluster.key").rename(key)
    before = contents(agent.folder)
    line = refusal(agent.folder)
    assert contents(agent.folder) == before
    assert line.startswith(f"{agent.folder} is that of an agent which has a cluster, and its key is not here: put it")
    agent.start("--key-file", str(key))
    assert fingerprint(agent) == read_key(key).fingerprint
    assert not (agent.folder / "cluster.key").exists()


def test_no_new_key_for_who_is_to_join(joined: RealAgent) -> None:
    """Nothing is made but the folder."""
    assert refusal(joined.folder, *joined.flags).startswith("`join` names a cluster, and its key is not here: put it")
    assert contents(joined.folder) == {}


def test_a_first_start_that_died_before_its_key_is_gone_on_with(tmp_path: Path) -> None:
    """It has an identity and a database already, and no key; nobody can miss it, and it is ready at once."""
    agent = RealAgent(tmp_path / "data")
    store = Store(agent.folder, machine_id())
    store.open(new_identity)
    store.close()
    agent.start()
    agent.add("fine")
    assert agent.stop() == 0
    assert (agent.folder / "cluster.key").exists()
