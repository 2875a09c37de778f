"""What goes wrong on the command line: one line on stderr with the next step, and an exit code. Mapped here, once."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import click

from meshcron import errors

JOB_FAILED = 1
USAGE = 2
NOT_FOUND = 3
NO_AGENT = 4
NOT_ALLOWED = 5
TIMED_OUT = 124
"""As coreutils' timeout(1) says it."""
SIGNAL_BASE = 128
"""A process ended by signal n is code 128 + n, as every shell says it."""
INTERRUPTED = SIGNAL_BASE + 2

EXIT_BY_STATUS = {
    400: USAGE,
    401: NOT_ALLOWED,
    403: NOT_ALLOWED,
    404: NOT_FOUND,
    405: NO_AGENT,
    409: USAGE,
    411: USAGE,
    412: USAGE,
    413: USAGE,
    414: USAGE,
    415: USAGE,
    429: NOT_ALLOWED,
    431: USAGE,
    503: NO_AGENT,
}
"""The API's refusals (API.md, Errors). Any other status is a failure of the agent: JOB_FAILED's 1, as for all else."""


class Failure(Exception):
    """The command ends here: its text (one line, with the next step) on stderr, `exit_code` for the shell."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(one_line(message))
        self.exit_code = exit_code


class Refusal(Failure):
    """The agent said no. `status`, `code` and `reason` (without a next step) are the API's own, for callers that go on
    by another way."""

    def __init__(self, reason: str, next_step: str, status: int, code: str) -> None:
        super().__init__(with_next_step(reason, next_step), EXIT_BY_STATUS.get(status, JOB_FAILED))
        self.reason = one_line(reason)
        self.status = status
        self.code = code


def refusal(status: int, error: Mapping[str, object], next_step: str = "") -> Refusal:
    """The API's error object as a Refusal; its own hint, or `next_step` where it has none, follows the message."""
    reason = str(error.get("message") or f"the agent answered {status}")
    field = str(error.get("field") or "")
    if field and not reason.startswith(f"{field}:"):  # most of the API's messages begin with it, a schedule's do not
        reason = f"{field}: {reason}"
    if error.get("column"):
        reason = f"{reason} (column {error['column']})"
    return Refusal(reason, str(error.get("hint") or next_step), status, str(error.get("code") or ""))


def from_error(error: errors.MeshcronError) -> Failure:
    """An error raised in this process (a schedule explained offline, a start refused) as a Failure."""
    if isinstance(error, errors.NotFound):
        return Failure(str(error), NOT_FOUND)
    if isinstance(error, errors.InvalidRequest | errors.Conflict):
        column = getattr(error, "column", 0)
        said = f"{error.field}: {error.why}" + (f" (column {column})" if column else "")
        return Failure(with_next_step(said, error.hint), USAGE)
    return Failure(str(error), JOB_FAILED)


def usage_line(error: click.UsageError) -> str:
    """A wrong command line in one line: what is wrong, the nearest right word, where to read on."""
    path = error.ctx.command_path if error.ctx else "meshcron"
    if isinstance(error, click.exceptions.NoSuchOption):
        said = f'no option "{error.option_name}"' + did_you_mean(error.possibilities)
        if _takes_a_command(error.ctx):
            said += "; put -- before the command to run"
    elif isinstance(error, click.exceptions.NoSuchCommand):
        said = f'no command "{error.command_name}"' + did_you_mean(error.possibilities)
    else:
        said = _sentence(error.format_message())
    return one_line(f'{said}; see "{path} --help"')


def with_next_step(reason: str, next_step: str) -> str:
    """What is wrong; what to do."""
    return f"{reason}; {next_step}" if next_step else reason


def _takes_a_command(context: click.Context | None) -> bool:
    """True for `add`, whose last words are another program's command line, options included."""
    return context is not None and any(param.name == "command" for param in context.command.params)


def nearest(word: str, words: list[str]) -> str:
    """The word most alike, "" when none is."""
    found = get_close_matches(word, words, n=1)
    return found[0] if found else ""


def did_you_mean(candidates: list[str] | None) -> str:
    """`, did you mean "x"?` or nothing."""
    return f', did you mean "{candidates[0]}"?' if candidates else ""


def one_line(text: str) -> str:
    """Text from anywhere as one line of printable characters: an error never spans two and never moves a cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def _sentence(message: str) -> str:
    """Click's sentence as a clause of ours: no full stop, no capital, double quotes."""
    clause = message.strip().removesuffix(".").replace("'", '"')
    return clause[:1].lower() + clause[1:]
