"""`meshcron up` on the machines of a network: agents with nothing but a key in common."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from meshcron.runtime.credentials import new_key
from tests.integration.agent.real_agent import environment, wait_for
from tests.netns.network import Network, connection

ANSWER_SECONDS = 10.0
"""A write without a majority is given up by the agent after 5 s."""

FORMED_SECONDS = 30.0
"""Three members stand within 3 s and vote within 15; the machine of a test is slow and busy."""

NOTHING: dict[str, Any] = {"cluster": "", "leader": "", "term": 0, "voters": 0, "members": 0, "alive": 0, "failed": 0}
"""What an agent knows that is in no cluster yet: it answers 503."""


class Answer(NamedTuple):
    status: int
    json: Any


class Inside(http.client.HTTPConnection):
    """To the loopback of a namespace."""

    def __init__(self, namespace: str, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self._namespace = namespace

    def connect(self) -> None:
        self.sock = connection(self._namespace, self.port, ANSWER_SECONDS)


class Machine:
    """An agent on a machine of its own, with the default ports, and told nothing but its name."""

    def __init__(self, network: Network, name: str, folder: Path, key: str) -> None:
        self.name = name
        self.folder = folder / name
        self._network = network
        self._key = key
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it ever said, over all its starts."""
        return self._log.read_text()

    def launch(self, *flags: str) -> None:
        """Start it; the processes of a test end with the test, however that ends."""
        (self.folder / "agent.json").unlink(missing_ok=True)
        inside = ("ip", "netns", "exec", self._network.namespace(self.name), "setpriv", "--pdeathsig", "KILL")
        up = (sys.executable, "-m", "meshcron", "up", "--data-dir", str(self.folder), "--name", self.name)
        words = [*inside, *up, "--http", "127.0.0.1:0", *flags]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, env=environment(MESHCRON_KEY=self._key), stdout=log, stderr=log)

    def wait(self) -> None:
        """Until it can be asked."""
        wait_for(lambda: not self.running or (self.folder / "agent.json").exists(), f"the start of {self.name}")
        assert self.running, self.log

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """One request from this machine, with its token. Raises OSError."""
        status, said = self._ask(method, path, None if body is None else json.dumps(body))
        return Answer(status, json.loads(said))

    def metrics(self) -> dict[tuple[str, ...], float]:
        """What it counts: by name and the values of its labels."""
        status, said = self._ask("GET", "/metrics")
        assert status == 200, said
        families = text_string_to_metric_families(said.decode())
        return {(each.name, *each.labels.values()): each.value for one in families for each in one.samples}

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        port = urlsplit(json.loads((self.folder / "agent.json").read_text())["url"]).port
        assert port is not None
        token = (self.folder / "local.token").read_text().strip()
        asked = Inside(self._network.namespace(self.name), port)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            asked.request(method, path, body, headers)
            answer = asked.getresponse()
            return answer.status, answer.read()
        finally:
            asked.close()

    def mesh(self) -> dict[str, Any]:
        """What it knows of the cluster: leader, term, members, voters, alive ..."""
        answer = self.ask("GET", "/v1/")
        if answer.status == 503:
            return dict(NOTHING)
        assert answer.status == 200, answer
        mesh: dict[str, Any] = answer.json["mesh"]
        return mesh

    def executions(self, job: str) -> list[dict[str, Any]]:
        """All that is recorded of a job."""
        answer = self.ask("GET", f"/v1/executions/{job}?_start=0&_end=5000")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json
        return found


class Lan:
    """Machines `a`, `b`, `c` ... on one network, 10.77.0.1 and on, with one key; all gone after `close`."""

    def __init__(self, name: str, folder: Path, count: int) -> None:
        self.network = Network(name)
        self.key = new_key().text
        self._folder = folder
        self._count = count
        self.machines: list[Machine] = []

    def start(self) -> None:
        """All agents at once."""
        self.network.start()
        for number in range(1, self._count + 1):
            self.add("abcdefgh"[number - 1], f"10.77.0.{number}", self.key).launch()

    def add(self, name: str, address: str, key: str) -> Machine:
        """One more machine; no agent runs there yet."""
        self.network.add(name, address)
        machine = Machine(self.network, name, self._folder, key)
        self.machines.append(machine)
        return machine

    def close(self) -> None:
        for machine in self.machines:
            machine.kill()
        self.network.close()

    def logs(self) -> str:
        """What all agents said."""
        return "\n".join(f"--- {one.name}\n{one.log}" for one in self.machines)

    def whole(self, machines: Iterable[Machine], voters: int) -> bool:
        """These agents agree on one leader, on so many voters, and hear one another."""
        seen = [one.mesh() for one in machines]
        views = {(mesh["cluster"], mesh["leader"], mesh["term"], mesh["voters"]) for mesh in seen}
        agreed = len(views) == 1 and bool(seen[0]["leader"]) and seen[0]["voters"] == voters
        return agreed and all(mesh["alive"] == mesh["members"] == len(seen) for mesh in seen)

    def wait_until_whole(self, voters: int, seconds: float = FORMED_SECONDS) -> None:
        """Until all is well among all of them. Says what is not, where it does not become so."""
        for machine in self.machines:
            machine.wait()
        try:
            wait_for(lambda: self.whole(self.machines, voters), "one whole cluster", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {[one.mesh() for one in self.machines]}\n{self.logs()}") from None

    def term(self, machines: Iterable[Machine] = ()) -> int:
        """The highest one known: each election there ever was has taken at least one."""
        return max(int(one.mesh()["term"]) for one in machines or self.machines)

    def leader(self, machines: Iterable[Machine] = ()) -> Machine:
        """Whom all of these (or all) agents take for the leader."""
        asked = list(machines) or self.machines

        def agreed() -> str:
            names = {str(one.mesh()["leader"]) for one in asked}
            return names.pop() if len(names) == 1 else ""

        name = wait_for(agreed, "one leader of all")
        return next(one for one in self.machines if one.name == name)

    def others(self, *without: Machine) -> list[Machine]:
        """All but these."""
        return [one for one in self.machines if one not in without]
