"""An execution as its final word makes it."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron.messages import ResultItem
from meshcron.model import STATUS_CHANGES, Execution, Status


def finished(execution: Execution, item: ResultItem) -> Execution | None:
    """An execution as its agent's final word makes it; None where that may not follow (STATUS_CHANGES)."""
    status = {
        "ended": Status.SUCCESS if item.success else Status.FAILED,
        "timeout": Status.TIMEOUT,
        "killed": Status.KILLED,
        "failed": Status.FAILED,
        "lost": Status.LOST,
        "skipped": Status.SKIPPED,
    }[item.kind]
    if (execution.status, status) not in STATUS_CHANGES:
        return None
    final = replace(
        execution,
        status=status,
        reason=item.reason,
        started_wall_us=item.started_wall_us or execution.started_wall_us,
    )
    if item.ending is None:
        return final
    return replace(
        final,
        finished_wall_us=item.ending.finished_wall_us,
        exit_code=item.ending.exit_code,
        signal=item.ending.signal,
        output_tail=item.ending.output_tail,
        output_bytes=item.ending.output_bytes,
        output_truncated=item.ending.output_truncated,
    )
