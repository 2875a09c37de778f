"""First answers to calls that may be repeated (PROTOCOL 6): a part of the committed state, so they outlive a leader.

Instants are those of the entries, in cluster time: every holder of the log forgets the same answers with the same one.
"""

from __future__ import annotations

import msgspec

from meshcron.commands import JobAnswer, StopAnswer
from meshcron.core.state import State
from meshcron.entries import Once
from meshcron.model import SECOND_US, Member, Token
from meshcron.rows import CallRow, Drop, Row

REPEAT_US = 600 * SECOND_US
"""How long a repeated call gets the first answer (PROTOCOL 6: 10 min)."""

CALLS_MAX = 4096
"""So many answers are kept; under a storm of writes the oldest go before their time."""

CALLS_BYTES_MAX = 8 * 1024 * 1024
"""And so many bytes of them: most are 1-2 KB, one about a job of 64 KiB is as large as the job."""

_KINDS: dict[str, type] = {"job": JobAnswer, "stop": StopAnswer, "paused": bool, "member": Member, "token": Token}

_encoder = msgspec.json.Encoder()


def first_answer(state: State, once: Once) -> CallRow | None:
    """The answer that this call got within REPEAT_US, None where it is a new one."""
    row = state.calls.get(once.key)
    return None if row is None or once.cluster_us - row.cluster_us > REPEAT_US else row


def outcome_of(row: CallRow) -> object:
    """The answer itself, as the call got it."""
    return msgspec.json.decode(row.answer, type=_KINDS[row.kind])


def keep_answer(state: State, once: Once, index: int, outcome: object) -> list[Row]:
    """Remember what the entry at `index` was answered with; errors and calls to decide again stored nothing."""
    kind = next((name for name, one in _KINDS.items() if isinstance(outcome, one)), "")
    if not kind:
        return []
    rows = forget_answers(state, once.cluster_us)
    if once.key in state.calls:
        state.remove_call(once.key)  # an old one: the new one takes its place at the end of the order
    row = CallRow(once.key, index, once.cluster_us, kind, _encoder.encode(outcome).decode())
    state.add_call(row)
    rows.append(row)
    while len(state.calls) > CALLS_MAX or state.call_bytes > CALLS_BYTES_MAX:
        rows += _drop_oldest(state)
    return rows


def forget_answers(state: State, cluster_us: int) -> list[Row]:
    """Answers that nobody gets any more at this instant."""
    dropped: list[Row] = []
    while state.calls and cluster_us - next(iter(state.calls.values())).cluster_us > REPEAT_US:
        dropped += _drop_oldest(state)
    return dropped


def _drop_oldest(state: State) -> list[Row]:
    key = next(iter(state.calls))
    state.remove_call(key)
    return [Drop("calls", (key,))]
