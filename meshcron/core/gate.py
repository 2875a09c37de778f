"""What an agent says at its gate, where it knocks, and how it takes the answers of others' gates (PROTOCOL 1, 2).

Whoever holds the key may knock. A Hello asks; Welcome, Wait or Refused answers; nothing that was not asked for is
believed.
"""

from __future__ import annotations

from collections.abc import Callable

from meshcron import messages
from meshcron.core.admission import Admission, refusal_text
from meshcron.core.copies import Copies, refusal
from meshcron.core.effects import Alarm, Halt, Knock, Send
from meshcron.core.encounters import Encounters
from meshcron.core.events import Found, KnockAnswered
from meshcron.core.known_members import KnownMembers
from meshcron.core.leadership import Leadership
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership
from meshcron.core.runner import Runner
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.messages import Endpoint, Fence, GateMessage, Hello, MemberInfo, Profile, Refused, Wait, Welcome
from meshcron.model import SECOND_US, Instant

REFUSED_EVERY_US = 600 * SECOND_US
"""How often an operator is told that a member refuses this agent."""

UNLED_US = 6 * SECOND_US
"""An agent that has heard no leader for so long asks those it hears at their gates who the members are: it may not know
the one that leads. Longer than an election takes, also with the times of `slow`."""

LETTERS_MAX = 128
"""Of each text that a member is committed with: a name has 128 bytes at most, an id, a key or a hash 64. No Hello of
ours has a longer one; one as long as a message would not fit into an entry (PROTOCOL 5, Sizes)."""

GATES_MAX = 5
"""Gates that a worker names to a newcomer: as many as there are voters."""


class Gate:
    """The gate of one agent."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        ledger: Ledger,
        membership: Membership,
        runner: Runner,
        known: KnownMembers,
        leadership: Leadership,
        encounters: Encounters,
        *,
        profile: Callable[[], Profile],
    ) -> None:
        """`profile`: what this agent says of itself."""
        self._settings = settings
        self._state = state
        self._ledger = ledger
        self._membership = membership
        self._runner = runner
        self._known = known
        self._leadership = leadership
        self._encounters = encounters
        self._profile = profile
        self._admission = Admission(
            settings.node_id,
            form_at_once=settings.form_at_once,
            expect=settings.expect,
            eligible=settings.eligible,
            remembers=self.remembered,
        )
        self._copies = Copies(settings.node_id, settings.session, settings.start_id, membership, settings.timing)
        self.is_copy = False
        """Another start of this data directory lives, and was there first: this agent ends."""
        self.refused = ""
        """Why a member refuses this agent, "" while none does, or while a leader is heard: one that lags behind refuses
        a member of whom it has not heard yet."""
        self._refused_boot_us = 0
        self._led_boot_us = 0
        """When a leader was last heard that says it is one."""
        self._echo = ""
        """What a gate wants to hear again."""

    def remembered(self) -> str:
        """The cluster that this agent looks for: it obeyed that before, and holds nothing of its log; "" = none. Not
        its own, whose first entry is on its way to the disk: those that look around wait for that."""
        return "" if self._known.cluster or self._known.is_forming() else self._runner.cluster

    # each turn

    def start(self, turn: Turn) -> None:
        """The first call; form a cluster at once where nobody else can be meant."""
        self._admission.start(turn.now.boot_us)
        self._led_boot_us = turn.now.boot_us
        self._consider_forming(turn)

    def woke(self, turn: Turn) -> None:
        """Time has passed."""
        if self._hears_leader(turn.now):
            self._led_boot_us = turn.now.boot_us
            self.refused = ""
        self._consider_forming(turn)
        self._knock(turn)

    def _hears_leader(self, now: Instant) -> bool:
        leader = self._leadership.leader
        beat = self._membership.beat_of(leader)
        says_so = beat is not None and beat.leader == leader and self._known.is_heard(leader, now)
        return says_so or self._leadership.ours is not None

    def next_wakeup(self, now: Instant) -> int | None:
        """On the suspend-counting clock: the next knock, or the moment to form."""
        return self._admission.next_wakeup(now, member=bool(self._known.cluster))

    def _consider_forming(self, turn: Turn) -> None:
        if not self._known.cluster and not self._ledger.voters and self._admission.should_form(turn.now.boot_us):
            self._ledger.form(turn)

    def formed(self, turn: Turn) -> None:
        """We are a cluster: those that look for one hear of it."""
        self._admission.formed(turn.now.boot_us)

    # knocking

    def _hello_of_ours(self) -> Hello:
        return Hello(
            self._profile(),
            self._known.cluster,
            self._runner.fence.generation,
            virgin=self._state.is_virgin(),
            token=self._settings.local_token,
            echo=self._echo,
            remembers=self.remembered(),
        )

    def _knock(self, turn: Turn) -> None:
        unled = turn.now.boot_us - self._led_boot_us >= UNLED_US

        def has_told(node_id: str) -> bool:
            """Whether there is nothing to ask at its gate."""
            asked = unled and self._known.is_heard(node_id, turn.now)
            return self._known.is_in_touch(node_id, turn.now) and not asked

        self._admission.knock(self._hello_of_ours(), has_told, turn)

    def found(self, event: Found, turn: Turn) -> None:
        """Somebody's gate may be there."""
        self._admission.found(event.host, event.port, event.node_id, turn.now.boot_us, joined=event.joined)
        self._knock(turn)

    def moved(self, turn: Turn) -> None:
        """Others dial us where we no longer are. Those that we still reach learn it at their gates at once; the rest
        hear of it by mDNS, or when they knock at ours."""
        hello = self._hello_of_ours()
        for one in self._known.roster():
            if one.endpoint is not None and one.node_id != self._settings.node_id:
                turn.at_once(Knock(one.endpoint.host, one.endpoint.gate_port, hello))

    # at our gate

    def answer(self, hello: Hello, now: Instant) -> GateMessage:
        """Our gate's answer to a Hello; `heard` carries what follows from it."""
        profile, ours = self._profile(), self._known.cluster
        if not ours:
            return self._admission.answer_as_newcomer(profile)
        theirs = self._claimed(hello)
        if theirs == ours and hello.generation > self._runner.fence.generation:
            return Wait(profile, ours, "it lives in a higher generation", virgin=False)
        member = self._known.member(hello.profile.node_id)
        if why := self._why_not(hello, member):
            return Refused(why)
        judged = self._copies.judge(hello.profile, hello.echo, now.boot_us)
        if judged == "copy":
            return refusal(hello.profile.name)
        if judged:
            nonce = self._copies.nonce(now.boot_us) if judged == "unproven" else ""
            return Wait(profile, ours, "another start of this agent was heard", nonce=nonce)
        if member is not None and theirs in ("", ours):
            return self._welcome(profile)
        if theirs == ours:
            return self._no_member_any_more(hello)
        if theirs:
            why = "this is another cluster of the same key"
            return Wait(profile, ours, why, self._state.is_virgin(), led=bool(self._leadership.leader))
        holder = next((one for one in self._known.roster() if one.name == hello.profile.name), None)
        if holder is not None and self._known.is_heard(holder.node_id, now):
            return Refused(f"a member named {holder.name!r} is alive; choose another name with --name")
        if not self._settings.eligible:
            return Wait(profile, ours, "others admit it", self._state.is_virgin(), self._admitting_gates())
        return Wait(profile, ours, "it is being admitted", self._state.is_virgin())

    def _claimed(self, hello: Hello) -> str:
        """To which cluster it belongs by its own word. Who holds no log knows that after a start only by what it has
        obeyed; of any other cluster than ours that says nothing, for that may be gone."""
        return hello.remembers if hello.remembers == self._known.cluster else hello.cluster

    def _why_not(self, hello: Hello, member: MemberInfo | None) -> str:
        """Why this agent can be no member as it is; "" = it can."""
        said = hello.profile
        texts = (said.node_id, said.name, said.public_key, hello.token.sha256 if hello.token else "")
        if max(map(len, texts)) > LETTERS_MAX:
            return f"what it says of itself is longer than {LETTERS_MAX} letters; choose a shorter name with --name"
        if member is not None and member.public_key != said.public_key:
            return "this node id is known with another key; start with an empty data directory"
        if any(one.public_key == said.public_key != "" for one in self._known.roster() if one is not member):
            return "another member has this agent's key; start with an empty data directory"
        if member is not None and member.voter and not hello.cluster:
            return "it has voted here and remembers nothing of it; start with an empty data directory"
        protocol = self._leadership.protocol
        if hello.cluster in ("", self._known.cluster) and said.protocol < protocol:
            why = f"the cluster speaks protocol {protocol}, this agent only {said.protocol}"
            return f"{why}; upgrade meshcron on its machine"
        return ""

    def _welcome(self, profile: Profile) -> Welcome:
        return Welcome(
            profile=profile,
            cluster=self._known.cluster,
            generation=self._runner.fence.generation,
            roster_index=self._known.roster_index,
            members=self._known.roster(),
            leader=self._leadership.leader,
            last_index=self._ledger.last_index,
            last_term=self._ledger.last_term,
        )

    def _admitting_gates(self) -> tuple[Endpoint, ...]:
        """Of those whose word about newcomers counts, voters first."""
        able = [one for one in self._known.roster() if one.eligible]
        able.sort(key=lambda one: (not one.voter, one.number))
        return tuple(one.endpoint for one in able if one.endpoint is not None)[:GATES_MAX]

    def _no_member_any_more(self, hello: Hello) -> Refused:
        generation = self._runner.fence.generation
        if hello.generation < generation:
            why = "its cluster was recovered without it: start with an empty data directory"
            return Refused(why, cluster=self._known.cluster, generation=generation)
        return Refused("it was removed from this cluster; start with an empty data directory")

    def heard(self, hello: Hello, turn: Turn) -> None:
        """Somebody knocked, and was answered."""
        profile, cluster = hello.profile, self._known.cluster
        if not cluster:
            if hello.cluster:
                self._admission.called(profile, turn.now.boot_us)
            else:
                self._admission.heard_newcomer(profile, hello.remembers, turn.now.boot_us)
            return
        if self._copies.judge(profile, hello.echo, turn.now.boot_us):
            self._copies.met(profile, hello.echo, turn)
            return
        member = self._known.member(profile.node_id)
        theirs = self._claimed(hello)
        recovered = theirs == cluster and hello.generation > self._runner.fence.generation
        if not recovered and self._why_not(hello, member):
            return  # it was refused
        if recovered or (member is not None and theirs not in ("", cluster)):
            # Only an answer to a question of ours is believed, and a gate has the cluster key: ask there.
            self.found(Found(profile.endpoint.host, profile.endpoint.gate_port, profile.node_id), turn)
        elif member is not None:
            self._known.learn_endpoint(profile.node_id, profile.endpoint)
        elif not theirs:
            self._pass_on(messages.Admit(profile, hello.token, self._known.roster_index), turn)
        elif theirs != cluster:
            self._encounters.met(theirs, turn, virgin=hello.virgin)

    def _pass_on(self, request: messages.Admit, turn: Turn) -> None:
        """A newcomer, to whom admits it."""
        leader = self._leadership.leader
        if self._leadership.ours is not None:
            self._leadership.ours.admit(request, turn)
        elif leader and self._settings.eligible:
            turn.at_once(Send(leader, request))

    # at others' gates

    def answered(self, event: KnockAnswered, turn: Turn) -> None:
        """A gate at which we knocked has answered."""
        message = event.message
        if isinstance(message, Welcome | Wait) and self._copies.is_ours(message.profile):
            message = refusal(self._settings.name)
        match message:
            case Welcome() as welcome:
                if self._copies.judge(welcome.profile, "", turn.now.boot_us):
                    return  # where it listens is no place to dial; it hears so when it knocks
                self._admission.answered(event.host, event.port, welcome.profile, turn)
                self._welcomed(welcome, turn)
            case Wait() as wait:
                if wait.nonce and wait.nonce != self._echo:
                    self._echo = wait.nonce
                    turn.at_once(Knock(event.host, event.port, self._hello_of_ours()))
                    return
                self._admission.answered(event.host, event.port, wait.profile, turn)
                self._told_to_wait(wait, turn)
            case Refused() as no:
                self._refused(no, turn)
            case _:
                return

    def _welcomed(self, welcome: Welcome, turn: Turn) -> None:
        cluster = self._known.cluster
        if self._known.is_forming() or (cluster and welcome.cluster != cluster):
            return
        if cluster:
            if self._encounters.outlived(welcome.generation, turn):
                return
        else:
            self._runner.enter(welcome.cluster, welcome.generation, turn)
        if welcome.generation < self._runner.fence.generation:
            return
        self.refused = ""
        self._known.learn_endpoint(welcome.profile.node_id, welcome.profile.endpoint)
        news = messages.RosterNews(
            fence=Fence(), cluster=welcome.cluster, roster_index=welcome.roster_index, members=welcome.members
        )
        self._known.take_news(news)

    def _told_to_wait(self, wait: Wait, turn: Turn) -> None:
        for gate in wait.gates[:GATES_MAX]:
            self._admission.learn(gate.host, gate.gate_port, "", turn.now.boot_us)
        if self._known.cluster:
            self._encounters.told_to_wait(wait, turn)
        elif wait.cluster:
            self._admission.heard_of_cluster(turn.now.boot_us)
        else:
            self._admission.heard_newcomer(wait.profile, wait.remembers, turn.now.boot_us)

    def _refused(self, no: Refused, turn: Turn) -> None:
        cluster = self._known.cluster or self._runner.cluster
        if no.is_copy:
            self.is_copy = True
            turn.at_once(Halt(no.why))
        elif cluster and no.cluster == cluster and no.generation > self._runner.fence.generation:
            self._encounters.outlived(no.generation, turn, expelled=True)
        else:
            self._admission.heard_of_cluster(turn.now.boot_us)
            self.refused = "" if self._hears_leader(turn.now) else refusal_text(no)
            if turn.now.boot_us >= self._refused_boot_us:
                self._refused_boot_us = turn.now.boot_us + REFUSED_EVERY_US
                turn.at_once(Alarm("refused", refusal_text(no)))
