"""What goes wrong in a seed: machines, disks, links, clocks, people and rosters, one thing at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import msgspec

from meshcron import commands
from meshcron.model import SECOND_US, Concurrency, Job
from tests.simulation.cluster import Cluster, Host, Weather, own_dice

POLICIES: tuple[Concurrency, ...] = ("allow", "forbid", "queue", "replace")
"""Jobs of these names keep their schedule: each of their ticks is accounted for."""

ROLES = ("web", "web", "db", "mail")
"""What machines are for: of most jobs some agents run nothing."""

WANTED = (None, {"role": "web"}, {"role": "web:1"}, {"role": "web:2"}, {"role": "db"})
"""Whom jobs may ask for. The first voter is for web: whoever asks for db may find nobody, and that has its record."""

SCRATCH = ("one", "two")
"""Jobs of these names are edited, switched off and deleted."""

PAUSES_US = (300_000, 2 * SECOND_US, 8 * SECOND_US)
STEPS_US = (1_500_000, 20 * SECOND_US, 45 * SECOND_US, 3_600 * SECOND_US)
ASKED_US = 10 * SECOND_US
"""So long after `members rm` it may still take effect unseen."""

GONE_S = 0.6
"""Who was heard within 500 ms may be given a seat."""

REFUSED_S = 10.0
"""So long a copy may run before it is refused."""

UNSEEN_US = SECOND_US
"""A death that is so fresh may be known to nobody yet."""

DRIFT_PPM = 200
"""What PROTOCOL 7 expects of a clock at the worst, in the seconds of the product."""


class Faults:
    """The troubles of one seed. Nothing here takes away for good what a majority needs."""

    def __init__(
        self, world: Cluster, *, hosts_max: int, schedules: tuple[str, ...], straggle_us: int, scale: int
    ) -> None:
        self.world = world
        self.hosts_max = hosts_max
        self.schedules = schedules
        self.straggle_us = straggle_us
        self.scale = scale
        """So many times faster than in the product things go here: a clock drifts away as much faster."""
        self._sky = own_dice(world.seed, "weather")
        self._asked: dict[str, int] = {}
        """When who was asked to go."""
        self._lost_us = 0
        """When a machine's memory was last taken away."""
        self.flapping = world.random.choice(world.hosts) if world.random.random() < 0.3 else None
        if self.flapping is not None:
            self.flapping.priority = 200  # from its next start on
        self._kinds: dict[Callable[[Host], None], int] = {
            self.crash: 8,
            self.start: 12,
            self.pause: 4,
            self.one_way_cut: 4,
            self.split: 4,
            self.split_around: 3,
            self.heal_links: 5,
            self.weather: 6,
            self.slow_disk: 4,
            self.hanging_disk: 2,
            self.wipe: 1,
            self.damage: 1,
            self.clone: 3,
            self.step_one_clock: 2,
            self.drift: 2,
            self.run_now: 5,
            self.edit: 5,
            self.delete: 2,
            self.hold_all: 2,
            self.newcomer: 2,
            self.remove: 2,
        }

    def strike(self) -> None:
        """One thing goes wrong, or right again."""
        dice = self.world.random
        self.replace_leavers()
        if self.flapping is not None and dice.random() < 0.3:
            (self.crash if self.flapping.is_up else self.start)(self.flapping)
            return
        if dice.random() < 0.005:
            self.step_all_clocks()
            return
        (fault,) = dice.choices(list(self._kinds), list(self._kinds.values()))
        fault(dice.choice(self.world.hosts))

    # machines

    @staticmethod
    def crash(host: Host) -> None:
        if host.is_up:
            host.crash()

    @staticmethod
    def start(host: Host) -> None:
        if not host.is_up:
            host.start()

    def pause(self, host: Host) -> None:
        if host.is_up and not host.paused_until_us:
            host.pause(self.world.random.choice(PAUSES_US))

    # disks

    @staticmethod
    def slow_disk(host: Host) -> None:
        host.slow_disk = not host.slow_disk

    @staticmethod
    def hanging_disk(host: Host) -> None:
        host.hanging_disk = not host.hanging_disk

    def wipe(self, host: Host) -> None:
        """Its disk is replaced: it comes back as somebody else with the same name."""
        if self._may_lose(host):
            self._lose(host)
            host.start()

    def damage(self, host: Host) -> None:
        """An entry in its log is gone, or is another one. It does not start with that; salvaged, it goes on as somebody
        new, with what others have (`recover --salvage`)."""
        inner = sorted(host.disk.log)[1:-1]
        if not inner or not self._may_lose(host):
            return
        self.crash(host)
        was = host.disk
        host.disk = copy.deepcopy(was)
        index = self.world.random.choice(inner)
        row = host.disk.log.pop(index)
        if self.world.random.random() < 0.5:
            host.disk.log[index] = msgspec.structs.replace(row, body=row.body[:-1] + b" ")
        host.start()
        assert not host.is_up, f"{host.name} starts with a damaged log"
        host.disk = was  # what it had acknowledged: it counts as a disk that is lost
        self._lose(host)
        host.start()

    def clone(self, host: Host) -> None:
        """Instead of its own directory it has a copy of another machine's, and starts: that one lives and was there
        first, so the copy is refused. Adopted, it is somebody new, and the database of a cluster in which others vote
        is set aside (runtime/set_aside.py). As long as it lives nothing else goes wrong but late, repeated and slow
        messages, and it is none of an only voter: nothing is promised of a copy whose original nobody else hears
        (README)."""
        original = self.world.random.choice(self.world.hosts)
        if original is host or not self._all_hear(original, besides=host) or not self._may_lose(host):
            return
        if not self._all_hear(original, besides=host):
            self.start(host)
            return
        world, may_go_back = self.world, self.world.rolled_back
        world.cuts.clear()
        world.weather = msgspec.structs.replace(world.weather, loss=0.0)
        crash_chance, world.crash_chance = world.crash_chance, 0.0
        self._lose(host)
        name = host.name
        host.copy_of(original)
        host.start()
        assert world.run_until(lambda: not host.is_up, REFUSED_S), f"two run as {host.name}\n{world.describe()}"
        assert original.is_up, f"the original {original.name} ends instead of its copy"
        host.name = name
        host.wipe()
        world.rolled_back, world.crash_chance = may_go_back, crash_chance
        host.start()

    def _all_hear(self, host: Host, besides: Host) -> bool:
        """Whether all that run are in one cluster with this one and hear it, which cannot decide alone."""
        if not host.is_up or not host.agent.cluster or host.agent.stands_alone:
            return False
        live = [one for one in self.world.hosts if one.is_up and one not in (host, besides)]
        still = any(one.paused_until_us for one in self.world.hosts)
        return (
            not still
            and bool(live)
            and all(
                one.agent.cluster == host.agent.cluster and one.agent.is_heard(host.node_id, one.now()) for one in live
            )
        )

    def _lose(self, host: Host) -> None:
        self._lost_us = self.world.now_us
        self.crash(host)
        host.wipe()

    def _may_lose(self, host: Host) -> bool:
        """Whether the cluster can go on for ever without what this machine remembers. Its power fails first: a leader
        that gives it a seat in the instant in which it dies needs it from then on, and nobody could know."""
        if not self._is_spare(host):
            return False
        self.crash(host)
        self.world.run_for(GONE_S)
        if not self._is_spare(host):
            self.start(host)
            return False
        return True

    def _is_spare(self, host: Host) -> bool:
        leader = self.world.leader()
        if leader is None or not leader.is_up or not leader.agent.ledger.roster_may_change() or self.leaving():
            return False
        voters = leader.agent.ledger.voters
        gone = {node_id for node_id in voters if self.world.by_node(node_id) is None}
        return host.node_id not in voters or 2 * (len(gone) + 1) < len(voters)

    # links

    def one_way_cut(self, host: Host) -> None:
        self.world.cuts.add((host, self.world.random.choice(self.world.hosts)))

    def split(self, _host: Host) -> None:
        hosts = self._shuffled()
        self.world.split(hosts[: len(hosts) // 2], hosts[len(hosts) // 2 :])

    def split_around(self, host: Host) -> None:
        rest = [one for one in self._shuffled() if one is not host]
        self.world.split_around([host], rest[: len(rest) // 2], rest[len(rest) // 2 :])

    def _shuffled(self) -> list[Host]:
        return list(self.world.random.sample(self.world.hosts, len(self.world.hosts)))

    def heal_links(self, _host: Host) -> None:
        self.world.cuts.clear()

    def weather(self, _host: Host) -> None:
        """Each kind of bad weather comes by itself: seldom none, seldom all."""
        self.world.weather = Weather(
            loss=self._sky.choice((0.0, 0.0, 0.2)),
            duplicate=self._sky.choice((0.0, 0.0, 0.3)),
            delay_us=self._sky.choice((Weather().delay_us, Weather().delay_us, (5_000, 300_000))),
            straggle=self._sky.choice((0.0, 0.0, 0.02)),
            straggle_us=self.straggle_us,
        )

    # clocks

    def step_one_clock(self, host: Host) -> None:
        host.turn_clock(self.world.random.choice((1, -1)) * self.world.random.choice(STEPS_US))

    def step_all_clocks(self) -> None:
        """Somebody corrects the time server."""
        step_us = self.world.random.choice((1, -1)) * self.world.random.choice(STEPS_US)
        for host in self.world.hosts:
            host.turn_clock(step_us)

    def drift(self, host: Host) -> None:
        ppm = self.world.random.randrange(-DRIFT_PPM, DRIFT_PPM) * self.scale
        passed_us = host.now().wall_us
        host.wall_drift_ppm = ppm
        host.turn_clock(passed_us - host.now().wall_us)  # no step where the speed changes

    # people

    def run_now(self, _host: Host) -> None:
        """With parameters or without: those are secret."""
        env = self.world.random.choice((None, {"TOKEN": "s3cret"}))
        self.world.ask(commands.RunJob(self.world.random.choice(POLICIES), env))

    def edit(self, _host: Host) -> None:
        """A new schedule, another policy, switched off or on."""
        dice = self.world.random
        self.world.ask(
            commands.PutJob(
                Job(
                    name=dice.choice(SCRATCH),
                    schedule=dice.choice(self.schedules),
                    command="true",
                    concurrency=dice.choice(POLICIES),
                    disabled=dice.random() < 0.3,
                    catch_up=dice.choice(("skip", "latest")),
                    retries=dice.choice((0, 1)),
                    tags=dice.choice(WANTED),
                )
            )
        )

    def delete(self, _host: Host) -> None:
        self.world.deletable.add(SCRATCH[0])
        self.world.ask(commands.DeleteJob(SCRATCH[0]))

    def hold_all(self, _host: Host) -> None:
        self.world.ask(commands.SetPaused(paused=self.world.random.random() < 0.4))

    # rosters

    def newcomer(self, _host: Host) -> None:
        if len(self.world.hosts) < self.hosts_max:
            tags = {"role": self.world.random.choice(ROLES)}
            self.world.add(tags, eligible=self.world.random.random() < 0.6).start()

    def remove(self, host: Host) -> None:
        """`members rm`, one at a time; somebody who may vote stays. Of three that vote, one that dies for good and one
        that is asked to go in the same instant are a lost majority (`recover`)."""
        others = [one for one in self.world.hosts if one.eligible and one is not host and one.is_up]
        if self.world.now_us - self._lost_us < UNSEEN_US:
            return
        if not self.leaving() and len(others) > 1 and self.world.leader() is not None:
            self._asked[host.node_id] = self.world.now_us
            self.world.ask(commands.RemoveMember(host.node_id))

    def leaving(self) -> bool:
        """Whether somebody is on the way out, or may be."""
        leader = self.world.leader()
        members = leader.agent.state.members.values() if leader is not None and leader.is_up else ()
        return any(one.leaving for one in members) or any(
            self.world.now_us - asked_us < ASKED_US for asked_us in self._asked.values()
        )

    def replace_leavers(self) -> None:
        """Who is out of the cluster begins anew on an empty disk."""
        leader = self.world.leader()
        if leader is None or not leader.is_up:
            return
        for host in self.world.hosts:
            if host.node_id in self._asked and leader.agent.state.member_of(host.node_id) is None:
                self.crash(host)
                host.wipe()
                host.start()

    # quiet

    def end(self) -> None:
        """Everything is repaired. Clocks stay as they are: whoever has a wrong one is outvoted or followed."""
        self.world.heal()
        for host in self.world.hosts:
            host.wake_up()
            self.start(host)


def some_jobs(world: Cluster, schedules: tuple[str, ...], deadlines_s: tuple[int, ...]) -> None:
    """One job a policy, each with whatever else the dice say, and some that will be edited."""
    dice = world.random
    for policy in POLICIES:
        job = Job(
            name=policy,
            schedule=dice.choice(schedules),
            command="true",
            tags=dice.choice(WANTED),
            concurrency=policy,
            retries=dice.choice((0, 0, 2)),
            retry_delay_us=dice.choice((0, SECOND_US)),
            on_lost=dice.choice(("lost", "rerun")),
            catch_up=dice.choice(("skip", "latest", "all")),
            timeout_us=dice.choice((0, 0, 2 * SECOND_US)),
            start_deadline_us=dice.choice(deadlines_s) * SECOND_US,
            history=msgspec.structs.replace(Job(name="x", schedule="x").history, runs=100_000),
        )
        call = world.ask(commands.PutJob(job))
        assert world.run_until(partial(world.answers.__contains__, call), 5), "no answer to a write"
        assert isinstance(world.answers[call], commands.JobAnswer), world.answers[call]
