"""The tables behind the diagrams of docs/PROTOCOL.md, against what agents do in directed stories.

Nothing happens that they do not list, and what they list happens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from meshcron import commands, messages
from meshcron.core import effects
from meshcron.core.catalog_members import STANDING_CHANGES
from meshcron.core.seen import SEEN_CHANGES
from meshcron.core.voter import ROLE_CHANGES
from meshcron.model import SECOND_US, STATUS_CHANGES, Status
from tests.simulation import test_elections as elections
from tests.simulation import test_scripts as scripts
from tests.simulation.cluster import Cluster, Host
from tests.simulation.watching import Change, watched

NEVER: dict[str, dict[Change, str]] = {
    "status": {("running", "skipped"): "only an agent whose disk went back denies what it has started"},
    "standing": {
        ("leaving voter", None): "a recovery in the second in which a voter gives up its seat",
        ("leaving", "voter"): "the same, of the one that goes",
        ("leaving voter", "voter"): "the same",
    },
}
"""What no story shows, and why it is listed all the same."""


def statuses(world: Cluster, uid: int) -> set[Status]:
    """Of all records of a job."""
    return {one.status for one in scripts.runs_of(world, uid)}


def jobs_of_every_ending(world: Cluster, where: Host) -> dict[str, int]:
    """Jobs whose commands last for as long as the story wants, and one that is stopped by its timeout."""
    world.lasts_us = 3600 * SECOND_US
    tags = {"at": str(where.number)}
    uids = {name: scripts.put(world, name, "@manually", tags=tags) for name in ("ends", "fails", "is killed")}
    return uids | {"times out": scripts.put(world, "times out", "@manually", tags=tags, timeout_us=SECOND_US)}


def ended(world: Cluster, where: Host, uids: dict[str, int]) -> None:
    """Each runs, and ends in its own way."""
    runs = {name: scripts.run_now(world, name) for name in uids}
    world.run_for(0.05)
    ids = {process.run: id_ for id_, process in where.processes.items()}
    where.end(ids[runs["ends"]], 0, None)
    where.end(ids[runs["fails"]], 1, None)
    scripts.ask(world, commands.StopRun(runs["is killed"]))
    world.run_for(2)
    assert not where.processes


def every_ending_story() -> None:
    """A process ends in each way: its start was heard of, or only its end, or it counts as lost by then."""
    world = scripts.grown(71)
    where = scripts.follower(world)
    uids = jobs_of_every_ending(world, where)
    wanted = {"ends": "success", "fails": "failed", "is killed": "killed", "times out": "timeout"}
    ended(world, where, uids)
    assert {name: statuses(world, uid) for name, uid in uids.items()} == {k: {v} for k, v in wanted.items()}

    world.hold = lambda source, to, message: source is where and isinstance(message, messages.StartedReport)
    ended(world, where, uids)
    assert {name: statuses(world, uid) for name, uid in uids.items()} == {k: {v} for k, v in wanted.items()}

    world.hold = lambda source, to, message: source is where and isinstance(message, messages.Result)
    ended(world, where, uids)
    world.split([where])
    world.run_for(130)
    assert all(Status.LOST in statuses(world, uid) for uid in uids.values())
    world.hold = None
    world.heal()
    world.run_for(5)
    assert {name: statuses(world, uid) for name, uid in uids.items()} == {k: {v} for k, v in wanted.items()}
    scripts.at_end(world)


def nothing_starts_story(away_s: float) -> None:
    """An order that comes too late; an agent that was away when it was due, and is back before or after that is lost;
    a tick that a pause stops."""
    world = scripts.grown(72)
    where = scripts.follower(world)
    with scripts.changed("meshcron.core.intents.START_WINDOW_US", 2 * SECOND_US):
        uid = scripts.put(world, "tick", "* * * * * *", tags={"at": str(where.number)}, concurrency="allow")
        world.run_for(5)
        world.hold = lambda source, to, message: to is where and isinstance(message, messages.Run)
        world.run_for(6)
        world.hold = None
        world.release()
        world.run_for(5)
        where.crash()
        world.run_for(away_s)
        where.start()
        world.run_for(8)
        scripts.ask(world, commands.SetPaused(paused=True))
        world.run_for(5)
        scripts.ask(world, commands.SetPaused(paused=False))
    reasons = {one.reason for one in scripts.runs_of(world, uid)}
    assert {"late", "stopped"} <= reasons, reasons
    scripts.at_end(world)


def a_crash_between_start_and_pid_story() -> None:
    """The process was over before its agent came back: it never was seen running."""
    world = scripts.grown(73)
    where = scripts.follower(world)
    uid = scripts.put(world, "short", "@manually", tags={"at": str(where.number)})
    world.lasts_us = 1000

    def crash(host: Host, effect: effects.Effect) -> bool:
        if host is where and isinstance(effect, effects.StartProcess):
            world.tap = None
            host.do(effect)
            host.crash()
            return True
        return False

    world.tap = crash
    scripts.run_now(world, "short")
    world.run_for(1)
    where.start()
    world.run_for(3)
    assert statuses(world, uid) == {Status.SUCCESS}
    scripts.at_end(world)


def who_has_no_vote_goes_story() -> None:
    """A learner leaves; another one is not there when its cluster is recovered."""
    world = scripts.grown(74, 4)
    leader = scripts.led(world)
    voters = leader.agent.ledger.voters
    learner = next(host for host in world.hosts if host.node_id not in voters)
    scripts.ask(world, commands.RemoveMember(learner.name))
    world.run_for(5)
    assert leader.agent.state.member_of(learner.node_id) is None
    world.add().start()
    world.run_for(5)
    assert len(leader.agent.state.members) == 4
    for host in world.hosts:
        if host.is_up:
            host.crash()
    scripts.recover(leader)
    world.run_for(5)
    assert leader.agent.leading
    assert len(leader.agent.state.members) == 1


STORIES: tuple[Callable[[], None], ...] = (
    lambda: elections.tell("without_the_own_disk"),
    lambda: elections.tell("stale_vote_is_refused"),
    scripts.test_a_leader_cut_off_says_so_at_once,
    scripts.test_a_stop_that_overtakes_its_order_is_obeyed,
    scripts.test_a_late_result_turns_lost_into_the_truth,
    scripts.test_a_member_that_leaves_gives_up_its_seat_first,
    scripts.test_a_machine_with_a_new_disk_takes_its_old_name_and_then_its_seat,
    scripts.test_a_worker_with_a_new_disk_is_one_member,
    scripts.test_a_voter_that_wants_no_vote_gives_up_its_seat_first,
    scripts.test_a_process_that_ran_across_a_recovery_is_recorded_as_lost_and_then_as_it_was,
    scripts.test_a_worker_follows_a_recovery,
    every_ending_story,
    lambda: nothing_starts_story(3),
    lambda: nothing_starts_story(20),
    a_crash_between_start_and_pid_story,
    who_has_no_vote_goes_story,
)


def test_what_happens_is_what_the_tables_say() -> None:
    """Each change that a story makes is listed, and each that is listed happens in one of them, or says why not."""
    with watched() as found:
        for story in STORIES:
            story()
    tables: dict[str, Collection[Change]] = {
        "role": ROLE_CHANGES,
        "seen": SEEN_CHANGES,
        "status": STATUS_CHANGES,
        "standing": STANDING_CHANGES,
    }
    for name, table in tables.items():
        listed = set(table)
        unlisted, unseen = found.seen[name] - listed, listed - found.seen[name]
        assert not unlisted, f"{name}: not in its table: {unlisted}"
        assert unseen == set(NEVER.get(name, {})), f"{name}: listed, and never seen"
