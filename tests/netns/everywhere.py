"""A job each second on every machine, each start written down outside of meshcron, and the checker (after Jepsen's
Chronos test): for each tick and machine the starts against the records, one to one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.checker import LATE_US
from tests.integration.agent.real_agent import wait_for
from tests.integration.agent.ticks import STARTED, seconds_of
from tests.netns.machines import Lan, Machine

SETTLED_SECONDS = 30.0
"""What an agent missed while it was cut off is sent to it again within as long as it was, and runs then, late."""

LATE_MS = LATE_US // 1000

RUNS_MAX = 5000
"""Of one job in the history, and in one answer."""

Where = tuple[int, str]
"""A tick's second, a machine's name."""


class Everywhere:
    """The job `name`, on all machines of a network."""

    def __init__(self, lan: Lan, name: str, file: Path) -> None:
        self.name = name
        self._lan = lan
        self._file = file
        self.first = 0

    def begin(self) -> None:
        """Add the job, and wait until it starts everywhere."""
        self._file.touch()
        body = {
            "name": self.name,
            "schedule": "* * * * * *",
            "command": f'echo "$MESHCRON_SCHEDULED_AT $MESHCRON_AGENT" >> {self._file}',
            "history": {"runs": RUNS_MAX, "days": 1},
        }
        answer = self._lan.machines[0].ask("POST", "/v1/jobs", body)
        assert answer.status == 201, answer
        names = {one.name for one in self._lan.machines}
        wait_for(lambda: {name for _, name in self.starts()} == names, f"a start of {self.name} everywhere")
        self.first = min(tick for tick, _ in self.starts())

    def end(self) -> None:
        """Remove the job."""
        answer = self._lan.machines[0].ask("DELETE", f"/v1/jobs/{self.name}")
        assert answer.status == 200, answer

    def starts(self) -> Counter[Where]:
        """How often each tick started on each machine."""
        lines = (line.split() for line in self._file.read_text().splitlines())
        return Counter((seconds_of(tick), machine) for tick, machine in lines)

    def wait_until_together(self) -> int:
        """Until a tick that falls due from now on has started on all machines; which. An agent that returns gets no
        share in what was armed without it, but in all that comes later."""
        now, names = int(time.time()), {one.name for one in self._lan.machines}

        def together() -> list[int]:
            starts = self.starts()
            later = {tick for tick, _ in starts if tick > now}
            return sorted(tick for tick in later if all((tick, name) in starts for name in names))

        return wait_for(together, f"a tick of {self.name} on {sorted(names)}")[0]

    def pass_by(self, seconds: float, watch: Callable[[], object] = bool) -> None:
        """Let so much time go by; `watch` is called again and again meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            watch()
            time.sleep(0.05)

    def settled(self, before: int) -> list[dict[str, Any]]:
        """All records, once none of a tick before that second is open on any machine that answers."""
        found = self._lan.leader().executions(self.name)
        open_ = (one for one in found if one["status"] in {"armed", "running", "waiting"})
        return [] if any(seconds_of(one["scheduled_at"]) < before for one in open_) else found

    def check(self) -> dict[Where, dict[str, Any]]:
        """Every tick up to a moment ago has exactly one record for each machine, nothing started twice, and records and
        starts tell one story. Returns the record of each tick on each machine."""
        end = int(time.time()) - 1
        found = wait_for(lambda: self.settled(end), f"a record of every tick of {self.name}", SETTLED_SECONDS)
        names = [one.name for one in self._lan.machines]
        told: dict[Where, dict[str, Any]] = {}
        for record in found:
            begin = seconds_of(record["scheduled_at"])
            ticks = range(begin, begin + max(1, record["count"]))
            of = [record["node_name"]] if record["node_name"] else names
            for where in ((tick, name) for tick in ticks for name in of):
                assert where not in told, f"two records of {where}: {told[where]}, {record}"
                told[where] = record
        starts = self.starts()
        doubled = [one for one, count in starts.items() if count > 1]
        due = {(tick, name) for tick in range(self.first, end) for name in names}
        missing = sorted(due - told.keys())
        late = [one for one in due & told.keys() if int(told[one]["lateness_ms"]) > LATE_MS]
        print(f"missing {len(missing)} doubled {len(doubled)} late>{LATE_MS}ms {len(late)}")
        assert not doubled
        assert not missing, f"without a record: {missing}"
        untold = {one: told[one] for one in starts if one[0] < end and told[one]["status"] not in STARTED}
        assert not untold, f"started, but recorded as something else: {untold}"
        untrue = [one for one, record in told.items() if record["status"] == "success" and one not in starts]
        assert not untrue, f"recorded as success, but never started: {untrue}"
        return {one: told[one] for one in due}


def states(told: dict[Where, dict[str, Any]], machines: Iterable[Machine]) -> Counter[str]:
    """How the ticks ended on these machines."""
    names = {one.name for one in machines}
    return Counter(record["status"] for (_, name), record in told.items() if name in names)


def lateness_p99_ms(told: dict[Where, dict[str, Any]], machines: Iterable[Machine]) -> int:
    """By how much the ticks on these machines were late, but for one in a hundred."""
    names = {one.name for one in machines}
    late = sorted(int(record["lateness_ms"]) for (_, name), record in told.items() if name in names)
    return late[len(late) * 99 // 100]
