"""For tests of crashes (FAULTS 1-5): `MESHCRON_FAIL=step:n` makes an agent kill itself, as kill -9 would, at the very
moment it reaches a step of a launch for the n-th time. Unset, there is nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

import structlog

from meshcron import entries
from meshcron.core.effects import Effect, Publish, Send
from meshcron.core.events import Event, MessageReceived
from meshcron.errors import StartRefused
from meshcron.messages import Append, ResultAck, Run, RunAck, StartedReport
from meshcron.runtime.driver import Passing

VARIABLE = "MESHCRON_FAIL"

log = structlog.get_logger("meshcron")


def _shows_intents(step: Event | Effect) -> bool:
    if not isinstance(step, Send) or not isinstance(step.message, Append):
        return False
    return any(isinstance(entries.decode(body), entries.Intents) for body in step.message.payload)


STEPS: Mapping[str, Callable[[Event | Effect], bool]] = {
    "intent": _shows_intents,
    "run": lambda step: isinstance(step, Publish | Send) and isinstance(step.message, Run),
    "run_ack": lambda step: isinstance(step, MessageReceived) and isinstance(step.message, RunAck),
    "started": lambda step: isinstance(step, MessageReceived) and isinstance(step.message, StartedReport),
    "result_ack": lambda step: isinstance(step, Send) and isinstance(step.message, ResultAck),
}
"""All are a leader's. `intent`: a decision to launch is about to leave it: no majority has it. `run`: it is committed,
no order was given. `run_ack`: orders were given, and the leader has heard no answer. `started`: a process runs.
`result_ack`: an outcome is committed, and its agent does not know."""


def failpoint(environment: Mapping[str, str]) -> Passing | None:
    """What `MESHCRON_FAIL` asks for, for the driver to tell of each step; None where it is not set. Raises StartRefused
    for what it cannot ask for."""
    if not (text := environment.get(VARIABLE, "").strip()):
        return None
    step, _, times = text.partition(":")
    if step not in STEPS or not times.isdecimal() or int(times) == 0:
        raise StartRefused(f"{VARIABLE}={text}: a test says STEP:N, N from 1, with a step of {', '.join(STEPS)}")
    left = int(times)

    def passing(what: Event | Effect) -> None:
        nonlocal left
        if STEPS[step](what):
            left -= 1
            if left == 0:
                log.warning("killed by a test", step=step)
                os.kill(os.getpid(), signal.SIGKILL)

    return passing
