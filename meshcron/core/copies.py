"""Two agents of one node id: a data directory that was copied, or put back to an earlier day (PROTOCOL 1).

Start numbers only rise, and each belongs to one start. A message may have hung in a queue, so a lower number proves
nothing until its sender says something new; two starts with one number prove it at once.
"""

from __future__ import annotations

from typing import Literal

from meshcron.core.effects import Alarm
from meshcron.core.membership import SUSPECT_BEATS, Membership
from meshcron.core.timing import Timing
from meshcron.core.turn import Turn
from meshcron.messages import Profile, Refused
from meshcron.model import SECOND_US

PROOF_US = 3 * SECOND_US
PROOF_BEATS = 2 * SUSPECT_BEATS
"""An earlier start that is still heard so long (the longer of the two) after a later one knocked has not ended: a
restart is silent by then, after SUSPECT_BEATS."""

ECHO_US = 10 * SECOND_US
"""So long an answer to our nonce is fresh."""

REMEMBERED = 100
"""Starts under suspicion; more than that is no accident, and the oldest is forgotten."""

Judged = Literal["", "unproven", "waits", "copy"]


class Copies:
    """What this agent knows of the starts of others, and of its own."""

    def __init__(self, node_id: str, session: int, start_id: str, membership: Membership, timing: Timing) -> None:
        self._node_id = node_id
        self._session = session
        self._start_id = start_id
        self._membership = membership
        self._proof_us = max(PROOF_US, PROOF_BEATS * timing.beat_us)
        self._since: dict[str, int] = {}
        """When a start first knocked while an earlier one of its agent was heard."""
        self._told: set[str] = set()

    def nonce(self, now_boot_us: int) -> str:
        """What only somebody can say who hears us now."""
        return f"{self._start_id}-{now_boot_us}"

    def judge(self, profile: Profile, echo: str, now_boot_us: int) -> Judged:
        """Whether this start of an agent may be dealt with: "" = yes; `copy` = another one lives, and was there first;
        `unproven` = this may be an old message; `waits` = the other one may have ended just now."""
        if not profile.start_id:
            return ""
        if profile.node_id == self._node_id:
            return self._judge_own(profile)
        beat = self._membership.beat_of(profile.node_id)
        if beat is None or beat.profile.start_id in ("", profile.start_id):
            return ""
        if profile.session == beat.profile.session:
            return "copy"
        if profile.session < beat.profile.session:
            return "copy" if self._is_fresh(echo, now_boot_us) else "unproven"
        if not self._membership.is_heard(profile.node_id, now_boot_us):
            return ""
        return "copy" if now_boot_us - self._since.get(profile.start_id, now_boot_us) >= self._proof_us else "waits"

    def _judge_own(self, profile: Profile) -> Judged:
        """Of two that carry our node id the one that started later ends; where we are that, our own knock tells us."""
        if profile.start_id == self._start_id:
            return ""
        return "copy" if (profile.session, profile.start_id) > (self._session, self._start_id) else "waits"

    def is_ours(self, profile: Profile) -> bool:
        """Whether the gate that answered belongs to an earlier start of this very agent: so it lives, and we are the
        copy."""
        return profile.node_id == self._node_id and self._judge_own(profile) == "waits"

    def _is_fresh(self, echo: str, now_boot_us: int) -> bool:
        start_id, _, at_us = echo.rpartition("-")
        return start_id == self._start_id and at_us.isdecimal() and now_boot_us - int(at_us) <= ECHO_US

    def met(self, profile: Profile, echo: str, turn: Turn) -> None:
        """A start that may not be dealt with has knocked: remember since when, and tell the operator once."""
        if len(self._since) >= REMEMBERED:
            del self._since[next(iter(self._since))]
        self._since.setdefault(profile.start_id, turn.now.boot_us)
        if profile.start_id in self._told or self.judge(profile, echo, turn.now.boot_us) != "copy":
            return
        if len(self._told) < REMEMBERED:
            self._told.add(profile.start_id)
        turn.at_once(Alarm("copy", f"two agents run as {profile.name!r}: its data directory was copied or put back"))


def refusal(name: str) -> Refused:
    """What the one that came later hears."""
    why = (
        f"another agent runs, or ran, as {name!r} with a copy of this data directory, or this one was put back to an "
        "earlier day. `meshcron up --adopt-data-dir` goes on here under a new node id."
    )
    return Refused(why, is_copy=True)
