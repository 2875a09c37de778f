"""Leader: whose word counts about an execution, and how long a word may be.

A worker's key lets it into the mesh, so whatever it says is well-formed and no more: it speaks for its own executions
only, and what it says must fit into an entry.
"""

from __future__ import annotations

from msgspec.structs import replace

from meshcron.core.state import State
from meshcron.messages import ResultItem
from meshcron.model import OUTPUT_TAIL_BYTES

REASON_CHARS_MAX = 1000
"""Of a reason: ours are a sentence. One as long as a message would not fit into an entry (PROTOCOL 5)."""

ID_CHARS_MAX = 64
"""Of an execution's id: ours have 32."""


def owner(state: State, execution_id: str) -> str:
    """Node id of the agent that an execution was given to, also of one recorded as lost; "" where it is not known."""
    if execution := state.open.get(execution_id):
        return execution.node_id
    late = state.owed.get(f"late|{execution_id}")
    return late.node_id if late else ""


def may_report(state: State, sender: str, own: str, item: ResultItem) -> bool:
    """Whether an outcome is the sender's to tell. The leader, `own`, also tells what an earlier identity of its machine
    ran. What is not known any more anybody may tell: it changes nothing, and must be acknowledged."""
    if len(item.execution_id) > ID_CHARS_MAX:
        return False
    return sender == own or owner(state, item.execution_id) in {"", sender}


def bounded(item: ResultItem) -> ResultItem:
    """The same, no longer than an honest agent makes it."""
    ending = item.ending
    if ending is not None and len(ending.output_tail) > OUTPUT_TAIL_BYTES:
        item = replace(item, ending=replace(ending, output_tail=ending.output_tail[-OUTPUT_TAIL_BYTES:]))
    return replace(item, reason=item.reason[:REASON_CHARS_MAX]) if len(item.reason) > REASON_CHARS_MAX else item
