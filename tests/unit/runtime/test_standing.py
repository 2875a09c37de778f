"""What an agent says of itself: its place, its members, whether it takes writes, what it thinks of a schedule."""

from __future__ import annotations

import platform

import pytest

from meshcron import __version__, commands
from meshcron.core import events
from meshcron.core.agent import Agent
from meshcron.errors import InvalidSchedule
from meshcron.messages import Admit, Endpoint, Fence, Heartbeat, Profile, Stop
from meshcron.model import SECOND_US, Job
from meshcron.rows import MarkRow
from meshcron.runtime.standing import ALIVE, FAILED, LEAVING, Facts, Standing, machine_facts
from tests.unit.core.disk import CLUSTER, NODE, START_WALL_US, second
from tests.unit.core.lab import Lab

FACTS = Facts(
    node_id=NODE,
    name="one",
    fingerprint="ab12",
    slots=2,
    machine={"meshcron.os": "linux"},
    started_wall_us=START_WALL_US,
    warnings=("the API is open",),
)


def standing(lab: Lab) -> Standing:
    return Standing(lab.agent, FACTS, lab.now)


def mute() -> Lab:
    """An agent that has no leader yet: its disk does not answer."""
    lab = Lab()
    lab.disk_answers = False
    return lab.start()


def test_the_view_of_a_leading_agent() -> None:
    """Who it is, whom it belongs to, how much it holds."""
    lab = Lab().start()
    lab.put(schedule="@manually")
    lab.run()
    view = standing(lab).agent_view()
    assert (view.name, view.version, view.tags, view.fingerprint) == ("one", __version__, {"role": "web"}, "ab12")
    assert (view.cluster, view.leader, view.paused, view.warnings) == (CLUSTER, "one", False, ("the API is open",))
    assert (view.jobs, view.open_executions, view.started_wall_us) == (1, 1, START_WALL_US)
    assert view.commit_index == view.applied_index == lab.agent.state.applied[0]
    assert view.term >= 1


def test_the_view_follows_the_state() -> None:
    """Asked again, it tells what is now."""
    lab = Lab().start()
    here = standing(lab)
    lab.ask(commands.SetPaused(True))
    lab.put(schedule="@manually")
    assert (here.agent_view().paused, here.agent_view().jobs) == (True, 1)


def test_an_agent_without_the_log_tells_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have held it once: what is left of that is old. The term is the leader's own word."""
    lab = Lab().start()
    lab.put(schedule="@manually")
    lab.run()
    beat = heartbeat(lab, Fence(1, 7))
    lab.hear(Admit(beat.profile))
    monkeypatch.setattr(Agent, "holds_log", False)
    monkeypatch.setattr(Agent, "leader", beat.profile.node_id)
    lab.give(events.MessageReceived(beat.profile.node_id, beat))
    view = standing(lab).agent_view()
    assert (view.jobs, view.open_executions, view.applied_index, view.term) == (0, 0, 0, 7)


def test_without_a_leader_it_says_so() -> None:
    """In words that an operator can use; it is still asked what it is."""
    here = standing(mute())
    assert here.why_not_ready()
    view = here.agent_view()
    assert (view.leader, view.cluster) == ("", "")
    assert here.member_views() == []
    assert standing(Lab().start()).why_not_ready() is None


def test_who_remembers_its_cluster_says_that_it_looks_for_that() -> None:
    """It holds no log, and forms none for ten minutes: an operator who knows better need not wait."""
    assert standing(mute()).why_not_ready() == "this agent is looking for a cluster"
    lab = Lab()
    lab.disk_answers = False
    lab.disk.write([MarkRow(7, 0, 3, CLUSTER)])
    why = standing(lab.start()).why_not_ready() or ""
    assert why.startswith("this agent is looking for the cluster that it was a member of; if that is gone for good")


def test_members_tell_where_they_are_and_what_they_do() -> None:
    """The one agent: alive, leading, with what it runs."""
    lab = Lab().start()
    lab.put(schedule="@manually")
    lab.run()
    (member,) = standing(lab).member_views()
    assert (member.node_id, member.name) == (NODE, "one")
    assert (member.status, member.voter, member.leader, member.running) == (ALIVE, True, True, 1)
    assert (member.tags, member.facts, member.version) == ({"role": "web"}, {"meshcron.os": "linux"}, __version__)


def heartbeat(lab: Lab, fence: Fence) -> Heartbeat:
    """Of another agent, whose clock is ahead."""
    other = Profile(
        node_id="b" * 32,
        name="another",
        public_key="",
        endpoint=Endpoint("192.0.2.2", 8946, 8947, 8948),
        tags={"role": "db"},
        facts={"meshcron.os": "freebsd"},
        session=1,
        version="9.9",
    )
    return Heartbeat(
        profile=other,
        fence=fence,
        leader=NODE,
        cluster_us=0,
        wall_us=lab.now().wall_us + 1500,
        running=3,
        applied_index=0,
        roster_index=0,
    )


def test_another_member_is_shown_as_it_was_last_heard() -> None:
    """Committed but never heard: failed. Then with its own tags, load and address, and how far its clock is ahead."""
    lab = Lab().start()
    other = heartbeat(lab, Fence()).profile
    lab.hear(Admit(other))
    (silent, own) = standing(lab).member_views()
    assert (silent.name, silent.status, silent.tags, silent.running) == ("another", FAILED, {}, 0)
    assert (own.name, own.status, own.leader) == ("one", ALIVE, True)
    lab.give(events.MessageReceived(other.node_id, heartbeat(lab, Fence())))
    heard = standing(lab).member_views()[0]
    assert (heard.status, heard.tags, heard.facts) == (ALIVE, other.tags, other.facts)
    assert (heard.running, heard.address, heard.port, heard.version) == (3, "192.0.2.2", 8947, "9.9")
    assert (heard.clock_skew_ms, heard.leader, heard.voter) == (1, False, False)
    lab.put(schedule="@manually", tags={"role": "db"})
    lab.run()
    lab.ask(commands.RemoveMember("another"))
    assert standing(lab).member_views()[0].status == LEAVING


def test_another_address_is_told_as_it_is() -> None:
    """This machine's address has changed."""
    lab = Lab().start()
    lab.give(events.EndpointChanged(Endpoint("192.0.2.1", 8946, 8947, 8948)))
    (member,) = standing(lab).member_views()
    assert (member.address, member.port) == ("192.0.2.1", 8947)


def test_tags_that_were_changed_are_told_as_they_are() -> None:
    """And count for every run decided from then on (HUP reloads them)."""
    lab = Lab().start()
    lab.put(schedule="@manually", tags={"role": "db"})
    lab.give(events.TagsChanged({"role": "db"}))
    assert standing(lab).agent_view().tags == standing(lab).member_views()[0].tags == {"role": "db"}
    lab.run()
    assert len(lab.running) == 1


def test_machine_facts_are_those_that_can_be_selected() -> None:
    """API.md, Jobs, `tags`."""
    assert machine_facts("box") == {
        "meshcron.host": "box",
        "meshcron.os": platform.system().lower(),
        "meshcron.arch": platform.machine(),
    }


# ---- why something waits


def waiting(lab: Lab) -> str:
    """What is said of the youngest execution."""
    return standing(lab).why_waiting(lab.executions()[-1])


def test_who_waits_for_a_slot_is_told_so() -> None:
    """Once its time has come and a moment has passed; a running one waits for nothing."""
    lab = Lab(slots=2).start()
    lab.put(schedule="@manually")
    for _ in range(3):
        lab.run()
    assert waiting(lab) == ""
    lab.advance(2)
    assert waiting(lab) == "all 2 slots of one are in use"
    assert standing(lab).why_waiting(lab.executions()[0]) == ""
    lab.end(lab.executions()[0].id)
    lab.advance(2)
    assert waiting(lab) == ""


def test_who_is_being_stopped_or_is_not_due_waits_for_no_slot() -> None:
    """The slots are in use all the same."""
    lab = Lab(slots=2).start()
    lab.put(schedule="@manually")
    lab.put("later", schedule="@at 2027-01-15T08:00:05Z")
    for _ in range(2):
        lab.run()
    lab.advance_to(3)
    assert standing(lab).why_waiting(lab.only("later")) == ""
    lab.loses = lambda message: isinstance(message, Stop)
    lab.advance_to(8)
    assert standing(lab).why_waiting(lab.only("later")) != ""
    lab.ask(commands.StopRun(lab.only("later").run_id))
    assert standing(lab).why_waiting(lab.only("later")) == ""


# ---- schedules


def put(schedule: str, **fields: object) -> commands.PutJob:
    return commands.PutJob(Job(name="job", schedule=schedule, **fields))  # type: ignore[arg-type] # as the story says


@pytest.mark.parametrize("schedule", ["@daily", "0 3 * * *", "@manually", "@reboot", "@at 2027-01-15T08:00:01Z"])
def test_a_schedule_that_fires_passes(schedule: str) -> None:
    """Or that something else than time fires."""
    standing(Lab().start()).check_job(put(schedule))


@pytest.mark.parametrize("schedule", ["0 0 30 2 *", "61 * * * *", "", "@at 2027-01-15T06:00:00Z"])
def test_a_schedule_that_never_fires_is_refused(schedule: str) -> None:
    """At save, not at night."""
    with pytest.raises(InvalidSchedule):
        standing(Lab().start()).check_job(put(schedule))


def test_an_instant_a_little_behind_us_passes() -> None:
    """By less than the job's start_deadline (API.md, @at)."""
    here = standing(Lab().start())
    here.check_job(put("@at 2027-01-15T07:59:00Z"))
    with pytest.raises(InvalidSchedule):
        here.check_job(put("@at 2027-01-15T07:59:00Z", start_deadline_us=30 * SECOND_US))


def test_a_job_whose_time_has_passed_can_still_be_edited() -> None:
    """As long as its schedule stays the same."""
    lab = Lab().start()
    lab.put(schedule="@at 2027-01-15T08:00:05Z")
    lab.advance_to(2 * 3600)
    here = standing(lab)
    here.check_job(put("@at 2027-01-15T08:00:05Z", command="new"))
    with pytest.raises(InvalidSchedule):
        here.check_job(put("@at 2027-01-15T08:00:06Z"))


def test_a_schedule_is_explained() -> None:
    """In words, with its next ticks in its own zone."""
    found = standing(Lab().start()).explain("30 9 * * *", "Europe/Berlin", "job", 2)
    assert (found.schedule, found.timezone) == ("30 9 * * *", "Europe/Berlin")
    assert "09:30" in found.words
    assert found.next_wall_us == (second(1800), second(1800 + 86_400))
    with pytest.raises(InvalidSchedule):
        standing(Lab().start()).explain("nonsense", "", "job", 2)
