"""Every error meshcron raises on purpose: its name says whose fault it is, its docstring whether state changed.

`api/app.py` maps them to a status once; `cli/` maps them to an exit code once.
"""

from __future__ import annotations


class MeshcronError(Exception):
    """Base of all errors raised on purpose. Never raised itself."""


class InvalidRequest(MeshcronError):
    """The caller's input is wrong. Nothing was stored.

    `field` names the input (dotted path, e.g. `limits.memory`), `why` is a sentence about what is wrong, `hint` the
    remedy. `code` is the stable word clients may compare.
    """

    code = "invalid_request"

    def __init__(self, field: str, why: str, hint: str = "") -> None:
        super().__init__(f"{field}: {why}" + (f" ({hint})" if hint else ""))
        self.field = field
        self.why = why
        self.hint = hint


class InvalidSchedule(InvalidRequest):
    """The text of a schedule is wrong. Nothing was stored. `column` counts characters from 1; 0 = the whole text."""

    code = "invalid_schedule"

    def __init__(self, why: str, hint: str = "", column: int = 0, field: str = "schedule") -> None:
        super().__init__(field, why, hint)
        self.column = column


class TooLarge(InvalidRequest):
    """The input is larger than its stated limit. Nothing was stored."""

    code = "too_large"


class Unsupported(InvalidRequest):
    """The body is of a media type that this route does not read. Nothing was stored."""

    code = "unsupported_media_type"


class NotFound(MeshcronError):
    """The thing named does not exist. Nothing was stored."""

    code = "not_found"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} named {name!r}")
        self.kind = kind
        self.name = name


class UnknownJob(NotFound):
    """No job of that name. Nothing was stored."""

    code = "unknown_job"

    def __init__(self, name: str) -> None:
        super().__init__("job", name)


class UnknownExecution(NotFound):
    """No execution or run of that id. Nothing was stored."""

    code = "unknown_execution"

    def __init__(self, name: str) -> None:
        super().__init__("execution", name)


class Conflict(MeshcronError):
    """The request is well formed but the state of the cluster forbids it. Nothing was stored."""

    code = "conflict"

    def __init__(self, field: str, why: str, hint: str = "") -> None:
        super().__init__(why + (f" ({hint})" if hint else ""))
        self.field = field
        self.why = why
        self.hint = hint


class PreconditionFailed(MeshcronError):
    """`If-Match` named another revision than the stored one. Nothing was stored."""

    code = "precondition_failed"


class Unauthenticated(MeshcronError):
    """No token, or a token nobody knows. Nothing was stored."""

    code = "unauthenticated"


class Forbidden(MeshcronError):
    """The token is known, its role does not reach; or Host/Origin is not ours. Nothing was stored."""

    code = "forbidden"


class TooManyAttempts(MeshcronError):
    """Too many wrong tokens from one address. Nothing was stored."""

    code = "too_many_attempts"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many wrong tokens from this address")
        self.retry_after_seconds = retry_after_seconds


class NotLeader(MeshcronError):
    """This agent does not lead. Nothing was stored; ask the leader."""

    code = "not_leader"


class NoLeader(MeshcronError):
    """Nobody leads at the moment. Nothing was stored; try again shortly."""

    code = "no_leader"


class RefusedByMembers(NoLeader):
    """The members do not let this agent in, or know it no more: there is no leader for it until somebody does what the
    text says. Nothing was stored."""

    code = "refused_by_members"


class OutcomeUnknown(MeshcronError):
    """A write was proposed and not seen committed in time. It may or may not take effect; repeating it with the same
    `Idempotency-Key` is safe."""

    code = "outcome_unknown"


class StartRefused(MeshcronError):
    """The agent cannot start, and the operator has to act. Nothing was overwritten. The text names the remedy."""

    code = "start_refused"


class NewerProtocol(StartRefused):
    """The cluster has moved on to a protocol that this agent does not speak. Nothing was stored; upgrade the agent."""

    code = "newer_protocol"


class DamagedStore(StartRefused):
    """The database or its log is damaged. Nothing was overwritten; `meshcron recover --salvage` goes on."""

    code = "damaged_store"
