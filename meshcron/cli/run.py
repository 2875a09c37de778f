"""The command run: start a job now, and with --wait follow the run to its end."""

from __future__ import annotations

import time

import click

from meshcron.cli.client import OVER, PASSING_CODES, Client, url_path
from meshcron.cli.executions import OPEN, Execution
from meshcron.cli.failures import INTERRUPTED, JOB_FAILED, NOT_FOUND, SIGNAL_BASE, TIMED_OUT, Failure, Refusal
from meshcron.cli.jobs import Job, with_nearest
from meshcron.cli.options import NAME, pair, prints, talks
from meshcron.cli.screen import Screen, write
from meshcron.cli.times import read

LOOK_SECONDS = 0.1
"""Pause between two looks at a run: output appears at once for a person, and costs the agent ten reads a second."""

REPEATED = frozenset({"failed", "timeout", "lost"})
"""Endings that another attempt may follow."""


@click.command()
@NAME
@click.option("--wait", is_flag=True, help="Print what it writes, and exit as it exits.")
@click.option("--env", metavar="K=V", multiple=True, callback=pair, help="Add to the environment (repeatable).")
@prints
@talks
@click.pass_context
def run(ctx: click.Context, client: Client, screen: Screen, name: str, wait: bool, env: dict[str, str]) -> None:
    """Run a job now.

    With --wait the exit code is the job's own: 124 when it timed out, 128 + n when signal n ended it, 1 when it was
    lost or skipped; of several agents' the first that is not 0.
    """
    try:
        answer = client.call("POST", url_path("jobs", name, "run"), body={"env": env} if env else None)
    except Refusal as refusal:
        raise with_nearest(client, name, refusal) from None
    run_id = answer.headers.get("X-Meshcron-Run", "")
    if not wait:
        _say_started(screen, answer.value, run_id)
        return
    try:
        executions = follow(client, screen, answer.value, run_id)
    except KeyboardInterrupt:
        said = f'"{name}" runs on; meshcron output {name} -f shows it, meshcron kill {name} ends it'
        raise Failure(said, INTERRUPTED) from None
    if screen.as_json:
        screen.data(executions)
    ctx.exit(exit_code(executions))


def _say_started(screen: Screen, job: Job, run_id: str) -> None:
    if screen.as_json:
        screen.data({**job, "run_id": run_id})
    else:
        screen.line(f'"{job["name"]}" was started; meshcron output {job["name"]} -f shows what it writes')


def follow(client: Client, screen: Screen, job: Job, run_id: str) -> list[Execution]:
    """Print what the executions of a run write until the agent says that no more will come, also across a restart of
    the agent; the decisive ones, oldest first, none where the job went with its success."""
    printer = _Printer(client, screen, job["name"])
    give_up = 0.0
    while True:
        try:
            executions, over = _look(client, printer, run_id)
            give_up = 0.0
        except Failure as failure:
            if failure.exit_code == NOT_FOUND and job.get("ephemeral"):
                screen.aside(f'"{job["name"]}" is gone, as an ephemeral job is after its success')
                return []
            give_up = _outlast(client, failure, give_up, job["name"])
            continue
        if over:
            return decisive(executions)
        time.sleep(LOOK_SECONDS)


def _look(client: Client, printer: _Printer, run_id: str) -> tuple[list[Execution], bool]:
    """Print what is new of a run; its executions, and whether no more will come."""
    answer = client.call("GET", url_path("runs", run_id), patient=False)
    executions: list[Execution] = answer.value
    for execution in executions:
        printer.catch_up(execution, alone=len({each["node_name"] for each in executions}) < 2)
    return executions, answer.headers.get(OVER) == "true"


def _outlast(client: Client, failure: Failure, give_up: float, name: str) -> float:
    """As `Client.outlast`; whoever gives up hears that the run does not end with that."""
    try:
        return client.outlast(failure, give_up)
    except Failure:
        if failure.exit_code == NOT_FOUND:
            raise
        raise Failure(f'{failure}; "{name}" runs on; meshcron output {name} -f shows it', failure.exit_code) from None


class _Printer:
    """Where the output of each execution has been printed to, and whether its ending has been said."""

    def __init__(self, client: Client, screen: Screen, job: str) -> None:
        self._client = client
        self._screen = screen
        self._job = job
        self._offsets: dict[str, int] = {}
        self._said: set[str] = set()

    def catch_up(self, execution: Execution, *, alone: bool) -> None:
        """Print what is new of one execution; the agent's name before each line where there are several. An agent that
        does not show its output holds up neither the others' nor the end of the run."""
        name = execution["id"]
        if name in self._said:
            return
        ended = execution["status"] not in OPEN
        content, offset, missing = b"", self._offsets.get(name, 0), False
        if read(execution["started_at"]) is not None:
            try:
                for piece, behind in self._client.pieces(self._job, name, offset):
                    content, offset = content + piece, behind
            except Refusal as refusal:
                if refusal.code not in PASSING_CODES:
                    raise
                missing = True
            self._offsets[name] = offset
        if self._screen.as_json:
            pass
        elif alone:
            write(content)
        else:
            self._write_lines(execution, content, ended=ended)
        if ended:
            self._said.add(name)
            if missing:
                later = f"meshcron output {self._job} {name} may show it later"
                self._screen.aside(f"{execution['node_name']}: the rest of the output is not to be had; {later}")
            self._say_ending(execution)

    def _write_lines(self, execution: Execution, content: bytes, *, ended: bool) -> None:
        """Whole lines only, so that two agents never share one; the rest waits for its end."""
        name = execution["id"]
        lines = content.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n") and not ended:
            self._offsets[name] -= len(lines.pop())
        prefix = f"{execution['node_name']}: ".encode()
        for line in lines:
            write(prefix + line.rstrip(b"\r\n") + b"\n")

    def _say_ending(self, execution: Execution) -> None:
        status = execution["status"]
        if status != "success":
            where = execution["node_name"] or "no agent"
            reason = f" ({execution['reason']})" if execution["reason"] else ""
            self._screen.aside(f"{where}: {status}{reason}, attempt {execution['attempt']}")


def decisive(executions: list[Execution]) -> list[Execution]:
    """The executions that no later attempt stands for: these decide the run (API.md, Jobs: retries)."""
    left: list[Execution] = []
    for execution in sorted(executions, key=lambda each: int(each["attempt"])):
        before = [each for each in left if each["attempt"] == execution["attempt"] - 1 and each["status"] in REPEATED]
        same = [each for each in before if each["node_name"] == execution["node_name"]]
        for each in (same or before)[:1]:
            left.remove(each)
        left.append(execution)
    return left


def exit_code(executions: list[Execution]) -> int:
    """What the shell gets: 0 when all succeeded, else the code of the first that did not."""
    return next((code for code in map(_code, executions) if code), 0)


def _code(execution: Execution) -> int:
    if execution["status"] == "success":
        return 0
    if execution["status"] == "timeout":
        return TIMED_OUT
    if execution["signal"] is not None:
        return SIGNAL_BASE + int(execution["signal"])
    return int(execution["exit_code"] or JOB_FAILED)
