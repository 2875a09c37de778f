"""How an execution ended, put together from what the kernel, the trampoline and the output say."""

from __future__ import annotations

from pathlib import Path

from meshcron.model import Ending
from meshcron.runtime.output import OutputFile
from meshcron.runtime.process_record import Process
from meshcron.runtime.trampoline import Exit, Status, exit_of, read_status


def ending_of(process: Process, folder: str, now_wall_us: int, shell_reports: bool) -> Ending | None:
    """How `process`, whose trampoline is gone, ended; None when nobody can know.

    `folder` is its folder, `shell_reports` what `trampoline.shell_reports_deaths` found. Raises OSError when
    the files cannot be read just now.
    """
    # The usual case needs no file: it was our child, and all went well.
    status = Status(0, "") if process.waited == 0 else read_status(Path(folder, "status"), process.execution_id)
    how = exit_of(process.waited, status, shell_reports)
    if how is None and process.fatal:
        how = Exit(None, process.fatal)  # an adopted one: our signal took the trampoline with it
    if how is None:
        return None
    if process.waited is None and status.code is not None:
        now_wall_us = Path(folder, "status").stat().st_mtime_ns // 1000  # it may have ended while no agent ran
    process.keep_bounded()
    output = process.output
    return Ending(
        exit_code=how.code,
        signal=how.signal,
        finished_wall_us=now_wall_us,
        # What the trampoline has to say of a command that never came to write anything: a folder it may not enter.
        output_tail=_tail(output) or (status.said if how.signal is None else ""),
        output_bytes=output.total_bytes,
        output_truncated=output.truncated,
    )


def _tail(output: OutputFile) -> str:
    """How it ended is known; a bad sector under its output is no reason to tell nobody."""
    try:
        return output.tail()
    except OSError as error:
        return f"(meshcron cannot read the end of this output: {error.strerror})"
