"""What is looked at when a seed is quiet again, by the numbers of PROTOCOL 10; the rest is checked as things happen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from itertools import pairwise

from meshcron import entries
from meshcron.core import intents
from meshcron.core.catalog import Catalog
from meshcron.core.runner import FORGET_EVERY_US
from meshcron.core.state import State
from meshcron.core.voter import Committed
from meshcron.model import Status
from tests.simulation.cluster import Cluster, Host, unlike
from tests.simulation.world import Disk, unaccounted_ticks


def check_all(world: Cluster, leader: Host, settled_us: int, steady: Iterable[str], *, accounted: bool) -> None:
    """Everything that can be seen at the end. `settled_us`: wall time up to which all is decided; `steady`: the jobs
    whose schedule nobody changed; `accounted`: whether each tick of those must have its record."""
    assert leader.is_up
    jobs = {uid: state for uid, state in leader.agent.state.jobs.items() if state.job.name in steady}
    for uid, state in jobs.items():
        wrong = unaccounted_ticks(leader.disk, uid, settled_us) if accounted else []
        assert not wrong, f"P2: job {state.job.name} has ticks without exactly one record: {wrong[:5]}"
        check_targets(world, leader, uid)
    check_once_a_tick(leader)
    check_recorded(leader.disk, world.pruned)
    check_ends(world, leader)
    check_acknowledged(world, leader)
    check_same_everywhere(world, leader)
    check_logs(world.hosts)
    check_fold(leader)
    check_rosters(leader)
    check_bounds(world)


def check_targets(world: Cluster, leader: Host, uid: int) -> None:
    """7: whoever was chosen has the tags; `role: web:1` chooses one agent a run; nobody is chosen twice."""
    state = leader.agent.state.jobs[uid]
    chosen: dict[str, list[str]] = defaultdict(list)
    for one in leader.disk.executions.values():
        if one.uid == uid and one.attempt == 1 and one.node_id and one.revision == state.revision:
            chosen[one.run_id].append(one.node_id)
    for run_id, nodes in chosen.items():
        assert len(nodes) == len(set(nodes)), f"7: {run_id} was given to one agent twice"
        role, _, most = (state.job.tags or {}).get("role", "").partition(":")
        assert not role or {world.tags[node_id]["role"] for node_id in nodes} == {role}, f"7: {run_id} is not for them"
        assert not most or len(nodes) <= int(most), f"7: {run_id} was given to {len(nodes)} agents"


def check_once_a_tick(leader: Host) -> None:
    """10: of any job, edited or not, a tick of one clock epoch is one run, and one skip or range at most."""
    found: Counter[tuple[int, str, int, str]] = Counter()
    runs: dict[tuple[int, str, int], set[str]] = defaultdict(set)
    for one in leader.disk.executions.values():
        if one.trigger not in ("schedule", "catch_up"):
            continue
        epoch = one.run_id.split("-")[1]
        runs[one.uid, epoch, one.scheduled_wall_us].add(one.run_id)
        if one.attempt == 1:
            found[one.uid, epoch, one.scheduled_wall_us, one.node_id] += 1
    assert all(len(some) == 1 for some in runs.values()), "10: a tick has two runs"
    twice = [key for key, count in found.items() if count > 1]
    assert not twice, f"10: ticks with two records for one agent: {twice[:5]}"


def check_recorded(disk: Disk, pruned: Collection[int] = ()) -> None:
    """10: a job counts each of its records, so none has taken the place of another. Of what was `pruned` by age it
    counts more than there is."""
    loaded = State.load(disk.load())
    kept = Counter(one.uid for one in disk.executions.values() if one.status.final)
    for uid in loaded.jobs.keys() - set(pruned):
        state = loaded.jobs[uid]
        assert state.recorded == kept[uid], f"10: job {state.job.name} counts {state.recorded} records of {kept[uid]}"


def check_ends(world: Cluster, leader: Host) -> None:
    """11: nothing is open for ever. 6: what succeeded was started once."""
    settled_us = leader.agent.clock.cluster_us(leader.now()) - (world.now_us - world.healed_us)
    for execution in leader.disk.executions.values():
        old = execution.due_cluster_us < settled_us and not execution.status.final
        host = world.by_node(execution.node_id)
        lives = host is not None and execution.id in host.processes
        assert not old or lives, f"11: {execution} is open for ever"
        if execution.status is Status.SUCCESS:
            assert world.starts[execution.id] == 1, f"6: {execution} succeeded, {world.starts[execution.id]} starts"


def check_acknowledged(world: Cluster, leader: Host) -> None:
    """14: what somebody was told is written is there; a job, unless somebody may have deleted it."""
    if not isinstance(world.answers.get(world.pausing, KeyError()), Exception):
        world.check_people(leader, world.pausing, world.leavers)
    for (name, uid), revision in world.acknowledged.items():
        if name not in world.deletable:
            state = leader.agent.state.jobs.get(uid)
            assert state is not None, f"14: job {name} was written and is gone"
            assert state.revision >= revision, f"14: revision {revision} of {name} was written and is gone"


def check_same_everywhere(world: Cluster, leader: Host) -> None:
    """5: all that hold the log hold the same state, and their disks hold that state."""
    reference = leader.agent.state
    for host in world.hosts:
        if not host.is_up or not host.agent.holds_log or host.agent.cluster != leader.agent.cluster:
            continue
        if reference.member_of(host.node_id) is None or host.node_id not in leader.agent.known.log_holders():
            continue  # it held the log once
        ours = host.agent.state
        assert ours.applied == reference.applied, f"{host.name} lags\n{world.describe()}"
        other = unlike(ours, reference)
        assert not other, f"5: {other} of {host.name} differ"
        other = unlike(State.load(host.disk.load()), reference)
        assert not other, f"5: the rows on the disk of {host.name} are other {other}"
        assert host.disk.executions == leader.disk.executions, f"5: the records of {host.name} differ"


def check_logs(hosts: list[Host]) -> None:
    """3: what two disks hold at an index in one term is the same entry, and all before it is the same."""
    known: dict[tuple[str, int, int], int] = {}
    for host in hosts:
        if not host.is_up:
            continue
        for index, row in host.disk.log.items():
            crc = known.setdefault((host.agent.cluster, index, row.term), row.crc)
            assert crc == row.crc, f"3: entry {index} of term {row.term} differs on {host.name}"


def check_fold(leader: Host) -> None:
    """5: the state is what the entries come to, where the log is there from its beginning."""
    state, disk = leader.agent.state, leader.disk
    if 1 not in disk.log or not state.applied[0]:
        return
    empty = type(disk)().load()
    catalog = Catalog(fresh := State.load(empty))
    for index in range(1, state.applied[0] + 1):
        row = disk.log[index]
        catalog.apply(Committed(index, row.term, row.crc, entries.decode(row.body)))
    other = unlike(fresh, state)
    assert not other, f"5: the log comes to other {other}"


def check_rosters(leader: Host) -> list[frozenset[str]]:
    """13: every roster in the log differs from the one before by one voter, so that their majorities overlap. Returns
    them."""
    found: list[frozenset[str]] = []
    for index in sorted(leader.disk.log):
        entry = entries.decode(leader.disk.log[index].body)
        if isinstance(entry, entries.Formed):
            found.append(frozenset({entry.member.node_id}))
        elif isinstance(entry, entries.Roster):
            found.append(frozenset(entry.voters))
    for before, after in pairwise(found):
        assert len(before ^ after) == 1, "13: more than one voter changed at once"
    return found


def check_bounds(world: Cluster) -> None:
    """17: once it is quiet, nothing waits in a queue."""
    for host in world.hosts:
        if not host.is_up or not host.agent.cluster:
            continue
        assert len(host.held) < 100, f"17: {len(host.held)} effects wait for the disk of {host.name}"
        assert len(host.backlog) < 100, f"17: {len(host.backlog)} events wait at {host.name}"
        leader = world.leader()
        assert leader is not None
        if leader.agent.state.member_of(host.node_id) is not None:
            waiting = len(host.agent.runner._outbox)
            assert waiting == 0, f"17: {waiting} results wait at {host.name}"
            check_forgotten(host)
        check_dispatched(host)


def check_forgotten(host: Host) -> None:
    """17: an agent remembers what is over for as long as a copy of its order could be accepted, and looks once a
    second; by then its heap of due times has let go of it, too. What came later than that, as an order that hung for
    minutes or the acknowledgement of a long run, goes with the next look: then the last one was just now."""
    runner, cluster_us = host.agent.runner, host.agent.clock.cluster_us(host.now())
    remembered = sorted(id_ for _, id_ in runner._forgettable)
    assert remembered == sorted(runner._seen), f"17: {host.name} remembers for ever what is over"
    latest_us = cluster_us + intents.START_WINDOW_US + host.agent._settings.horizon_us
    past_us, looked_us = cluster_us - 2 * FORGET_EVERY_US, host.now().boot_us - runner._forgot_boot_us
    for at_us, id_ in (*runner._due, *runner._forgettable):
        assert at_us <= latest_us, f"17: {host.name} remembers {id_} for too long"
    assert all(at_us > past_us for at_us, _ in runner._due), f"17: {host.name} remembers what was due"
    if looked_us >= 2 * FORGET_EVERY_US:
        assert all(at_us > past_us for at_us, _ in runner._forgettable), f"17: {host.name} does not forget"


def check_dispatched(host: Host) -> None:
    """17: nothing is open, so a leader waits for nothing, and has nothing to send."""
    if (ours := host.agent.leadership.ours) is not None:
        waiting = [len(one) for one in (ours._dispatch._pending, ours._dispatch._resend, ours._dispatch._unsent)]
        assert not any(waiting), f"17: the leader {host.name} still waits for {waiting} answers"
