"""The ledger of one voter, seen from outside: a vote is durable before anybody leads, an entry before it counts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meshcron import commands, entries
from meshcron.chain import CHAIN_START, chain
from meshcron.core.effects import Alarm, Send
from meshcron.core.following import Following
from meshcron.core.log import KEPT_ENTRIES
from meshcron.core.replication import AWAY_BEATS, IN_FLIGHT_MAX, Replication
from meshcron.core.second_copy import PATIENCE_US
from meshcron.core.timing import LAN
from meshcron.core.turn import Turn
from meshcron.core.voter import Voter
from meshcron.errors import NoLeader
from meshcron.messages import Append, Appended, Forgotten, TakeOver
from meshcron.model import SECOND_US, Instant, Job
from meshcron.rows import BallotRow, LogRow, MemberRow, MetaRow
from meshcron.vocabulary import VOCABULARY
from tests.fits import assert_fits
from tests.unit.core.disk import CLUSTER, NODE, START_WALL_US, Disk
from tests.unit.core.lab import Lab

JOB = Job(name="job", schedule="@manually", command="true")


def slow(disk: Disk | None = None) -> Lab:
    """An agent whose disk writes only when told to."""
    lab = Lab(disk=disk)
    lab.disk_answers = False
    return lab


def log_entries(lab: Lab) -> list[entries.Entry]:
    return [entries.decode(lab.disk.log[index].body) for index in sorted(lab.disk.log)]


def test_a_leader_applies_what_its_log_says_and_not_what_it_was_handed() -> None:
    """Its rows are those of all that read the entry: of two equal values one may be left out as a default."""
    lab = Lab().start()
    handed = replace(JOB, concurrency=str(b"allow", "ascii"))  # equal to the default, not the very object
    assert lab.ask(commands.PutJob(handed)).view.job == JOB
    (row,) = lab.disk.load().jobs
    (read,) = [one.job for one in log_entries(lab) if isinstance(one, entries.JobPut)]
    assert row.definition == msgspec.json.encode(read).decode()


# ---- the vote


def test_nobody_leads_before_the_own_vote_is_durable() -> None:
    """A vote that a crash forgets could be given twice (PROTOCOL 10, 2): no entry, no leadership, no write."""
    lab = slow().start()
    lab.advance(5)
    rows = lab.unsynced_rows
    assert {row.voted_for for row in rows if isinstance(row, BallotRow)} == {NODE}
    assert not [row for row in rows if isinstance(row, LogRow)]
    assert not lab.agent.leading
    assert isinstance(lab.ask(commands.PutJob(JOB)), NoLeader)


def test_a_disk_that_takes_a_second_still_gets_a_leader() -> None:
    """An agent alone waits for its own vote instead of opening one term after another."""
    lab = slow().start()
    for _ in range(10):
        lab.advance(1.2)
        lab.sync(1)
    assert lab.agent.leading


def test_only_the_vote_of_this_term_counts() -> None:
    """On a disk that lags behind, earlier votes get durable first: nothing is written in a term whose vote is not."""
    lab = slow().start()
    lab.advance(3)
    for _ in range(10):
        lab.sync(1)
        durable = lab.disk.tables["ballot"][1].term
        assert all(row.term <= durable for row in lab.unsynced_rows if isinstance(row, LogRow))


def test_nobody_schedules_before_the_own_first_entry_is_durable() -> None:
    """The vote is durable, the Noop of the term is not."""
    lab = slow().start()
    lab.sync(1)
    assert [row for row in lab.unsynced_rows if isinstance(row, LogRow)]
    assert not lab.agent.leading
    assert isinstance(lab.ask(commands.PutJob(JOB)), NoLeader)
    lab.sync()
    lab.sync()
    lab.advance(1)
    lab.sync()
    assert lab.agent.leading


def test_every_session_leads_in_a_term_of_its_own() -> None:
    """Also one that crashed between its vote and its first entry."""
    lab = Lab().start()
    terms = [lab.disk.tables["ballot"][1].term]
    for _ in range(3):
        lab.disk_answers = False
        lab.crash()
        lab.advance(5)
        lab.write_untold()
        terms.append(lab.disk.tables["ballot"][1].term)
        lab.disk_answers = True
        lab.crash()
        lab.advance(5)
        assert lab.agent.leading
        terms.append(lab.disk.tables["ballot"][1].term)
    assert terms == sorted(set(terms))
    logged = [lab.disk.log[index].term for index in sorted(lab.disk.log)]
    assert logged == sorted(logged)
    assert set(logged) <= set(terms)


def test_each_term_begins_with_its_own_entry() -> None:
    """A Noop; the cluster is formed once, in the first."""
    lab = Lab().start()
    lab.crash()
    lab.crash()
    kinds = [type(entry).__name__ for entry in log_entries(lab)]
    assert kinds.count("Noop") == 3
    assert kinds.count("Formed") == 1
    firsts: dict[int, entries.Entry] = {}
    for index in sorted(lab.disk.log):
        firsts.setdefault(lab.disk.log[index].term, entries.decode(lab.disk.log[index].body))
    assert {type(entry) for entry in firsts.values()} == {entries.Noop}


# ---- committing


def test_an_entry_counts_when_it_is_durable() -> None:
    """Until then there is no answer, and no read shows it (P5)."""
    lab = Lab().start()
    lab.disk_answers = False
    assert lab.ask(commands.PutJob(JOB)) is None
    assert lab.agent.state.job_view("job") is None
    lab.sync(1)
    assert lab.agent.state.job_view("job") is not None
    assert lab.answers.get(lab.last_call) is None  # the rows it made are on their way
    lab.sync()
    assert isinstance(lab.answers[lab.last_call], commands.JobAnswer)


def test_entries_are_committed_in_order_as_far_as_they_are_durable() -> None:
    """Two writes on their way, the disk has the first."""
    lab = Lab().start()
    lab.disk_answers = False
    lab.ask(commands.PutJob(JOB))
    lab.ask(commands.PutJob(Job(name="other", schedule="@manually")))
    lab.sync(1)
    assert [view.job.name for view in lab.agent.state.job_views()] == ["job"]
    lab.sync(1)
    assert [view.job.name for view in lab.agent.state.job_views()] == ["job", "other"]


def test_what_was_not_durable_at_the_crash_is_gone() -> None:
    """Nobody was told that it was there."""
    lab = Lab().start()
    lab.disk_answers = False
    assert lab.ask(commands.PutJob(JOB)) is None
    lab.disk_answers = True
    lab.crash()
    assert lab.agent.state.job_view("job") is None


def test_what_was_durable_at_the_crash_is_there() -> None:
    """Though it was not committed yet: it is in the log, and the next term commits it."""
    lab = Lab().start()
    lab.disk_answers = False
    assert lab.ask(commands.PutJob(JOB)) is None
    lab.write_untold()
    lab.disk_answers = True
    lab.crash()
    assert lab.agent.state.job_view("job") is not None


def test_entries_of_an_earlier_term_wait_for_one_of_the_own() -> None:
    """Raft 5.4.2: on the disk of one voter they are safe, in a cluster they would not be."""
    lab = Lab().start()
    lab.disk_answers = False
    lab.ask(commands.PutJob(JOB))
    lab.write_untold()
    lab.crash()
    lab.advance(5)
    lab.sync(1)
    assert lab.agent.state.job_view("job") is None
    lab.sync()
    lab.sync()
    assert lab.agent.state.job_view("job") is not None


def test_other_rows_that_get_durable_commit_nothing() -> None:
    """As above; between vote and first entry a process was adopted, and that is written first."""
    lab = Lab().start()
    lab.put(schedule="@manually")
    lab.run()
    lab.disk_answers = False
    lab.ask(commands.PutJob(Job(name="another", schedule="@manually")))
    lab.write_untold()
    lab.crash()
    lab.sync(1)  # the vote
    lab.sync(1)  # the process
    assert not lab.agent.leading
    assert lab.agent.state.job_view("another") is None
    lab.sync()
    assert lab.agent.state.job_view("another") is not None


def test_the_log_is_one_chain() -> None:
    """Every entry's CRC covers all before it; indexes have no gap, over terms and sessions."""
    lab = Lab().start()
    for n in range(5):
        lab.put(f"job{n}")
        lab.advance(1.3)
        lab.crash()
    lab.advance(1)
    crc, last = CHAIN_START, 0
    for index in sorted(lab.disk.log):
        row = lab.disk.log[index]
        assert row.index == last + 1
        crc, last = chain(crc, row.index, row.term, row.body), row.index
        assert row.crc == crc
    assert lab.agent.state.applied == (last, lab.disk.log[last].term, crc)


# ---- cutting


def formed_disk(applied: int) -> Disk:
    """A disk with so many applied entries, all kept."""
    disk, crc = Disk(), CHAIN_START
    body = entries.encode(entries.Noop(START_WALL_US, START_WALL_US, 0))
    for index in range(1, applied + 1):
        crc = chain(crc, index, 1, body)
        disk.log[index] = LogRow(index, 1, crc, body)
    clock = f"{START_WALL_US} {START_WALL_US} 0 0"
    meta = {"applied": f"{applied} 1 {crc}", "cluster": CLUSTER, "clock": clock}
    disk.write([BallotRow(1, NODE), MemberRow(Lab().start().agent.state.members[1])])
    disk.write([MetaRow(key, value) for key, value in meta.items()])
    return disk


@pytest.mark.parametrize(("entries_kept", "cut"), [(2 * KEPT_ENTRIES - 50, False), (2 * KEPT_ENTRIES, True)])
def test_the_log_is_cut_behind_what_is_applied(entries_kept: int, cut: bool) -> None:
    """In bulk: past twice what is kept, down to that (PROTOCOL 5)."""
    lab = Lab(disk=formed_disk(entries_kept)).start()
    for n in range(3):
        lab.put(f"job{n}", schedule="@manually")
    applied = lab.agent.state.applied[0]
    assert applied > entries_kept
    if not cut:
        assert min(lab.disk.log) == 1
        return
    assert KEPT_ENTRIES <= len(lab.disk.log) <= KEPT_ENTRIES + 10
    assert max(lab.disk.log) == applied
    lab.crash()
    assert [view.job.name for view in lab.agent.state.job_views()] == ["job0", "job1", "job2"]


# ---- as a whole


def test_members_and_cluster_stay_over_restarts() -> None:
    """It is formed once."""
    lab = Lab().start()
    for _ in range(3):
        lab.crash()
    assert lab.agent.state.cluster == CLUSTER
    assert [one.node_id for one in lab.agent.state.members.values()] == [NODE]


@given(st.lists(st.sampled_from(("put", "edit", "delete", "sync", "half", "crash", "untold")), max_size=30))
@settings(max_examples=60)
def test_an_answered_write_is_never_lost(story: list[str]) -> None:
    """Whenever it crashes: what was answered is there afterwards, and what was deleted stays so (P5)."""
    lab = Lab().start()
    lab.disk_answers = False
    for n, what in enumerate(story):
        match what:
            case "put":
                lab.ask(commands.PutJob(Job(name="brief", schedule="@manually", command=str(n))))
            case "edit":
                lab.ask(commands.PutJob(Job(name="lasting", schedule="@manually", command=str(n))))
            case "delete":
                lab.ask(commands.DeleteJob("brief"))
            case "sync":
                lab.sync()
            case "half":
                lab.sync(1)
            case _:
                if what == "untold":
                    lab.write_untold()
                lab.crash()
                lab.disk_answers = True
                lab.sync()
                lab.disk_answers = False
                kept_its_promises(lab)


def kept_its_promises(lab: Lab) -> None:
    """Every answer given so far, held against what is there now."""
    assert lab.agent.leading
    for call, answer in lab.answers.items():
        if not isinstance(answer, commands.JobAnswer):
            continue
        if isinstance(lab.asked[call], commands.DeleteJob):
            assert lab.agent.state.job_name(answer.view.uid) is None
        elif answer.view.job.name == "lasting":
            assert lab.view("lasting").revision >= answer.view.revision


# ---- how much may be on its way


def leading_voter() -> tuple[Replication, Turn]:
    """A leader of term 1 with five entries, and a follower that has acknowledged three of them at second 1."""
    rows: list[LogRow] = []
    crc = CHAIN_START
    for index in range(1, 6):
        body = entries.encode(entries.Noop(index, 0, 0))
        crc = chain(crc, index, 1, body)
        rows.append(LogRow(index, 1, crc, body))
    voter = Voter("a", LAN, VOCABULARY, BallotRow(1, "a"), rows, (0, 0, CHAIN_START))
    voter.rosters = [(0, frozenset("abc"))]
    leader, turn = Replication(voter), Turn(Instant(SECOND_US, 0))
    voter.become("candidate")
    leader.lead(turn)
    leader.follow({"b", "c"}, turn)
    leader.appended("b", answered(ok=True, match=3, sent_us=900_000), turn)
    return leader, Turn(Instant(2 * SECOND_US, 0))


def answered(*, ok: bool, match: int, sent_us: int, last: int = 3) -> Appended:
    return Appended(term=1, ok=ok, match_index=match, sent_boot_us=sent_us, last_index=last)


def grow(leader: Replication) -> None:
    """The leader's log gets one entry longer."""
    log = leader._voter.log
    body, index = entries.encode(entries.Noop(9, 0, 0)), log.last_index + 1
    assert log.take(LogRow(index, 1, chain(log.last_crc, index, 1, body), body))


def sent(leader: Replication, at_us: int) -> list[Append]:
    """What the leader has for b now."""
    turn = Turn(Instant(at_us, 0))
    leader.send(turn, 0)
    _, wanted = turn.close(0)
    found = [one.message for one in wanted if isinstance(one, Send) and one.to == "b"]
    return [message for message in found if isinstance(message, Append)]


def test_answers_to_heartbeats_open_no_window() -> None:
    """A follower whose disk takes long answers them at once, and says what it had before: no more goes to it than is
    allowed to wait. What gets durable makes room for as much."""
    leader, turn = leading_voter()
    appends: list[Append] = []
    now_us = SECOND_US
    for _ in range(3 * IN_FLIGHT_MAX):
        now_us += 10_000
        grow(leader)
        appends += (new := sent(leader, now_us))
        for beat in new:
            if not beat.heads:
                leader.appended("b", answered(ok=True, match=3, sent_us=beat.sent_boot_us, last=5), turn)
    assert len([one for one in appends if not one.heads]) >= 3
    loaded = [one for one in appends if one.heads]
    assert len(loaded) == IN_FLIGHT_MAX
    leader.appended("b", answered(ok=True, match=loaded[1].heads[-1].index, sent_us=now_us, last=99), turn)
    (rest,) = sent(leader, now_us)
    assert [rest.heads[0].index, rest.heads[-1].index] == [loaded[-1].heads[-1].index + 1, leader._voter.log.last_index]
    grow(leader)
    assert [len(one.heads) for one in sent(leader, now_us)] == [1]
    grow(leader)
    assert not sent(leader, now_us)


@pytest.mark.parametrize("entry", [entries.Pause(True, 0), entries.Prune(1, 1)])
def test_small_entries_too_many_for_one_append_are_cut(entry: entries.Entry) -> None:
    """Each is a frame of its own, and a message may have 4,096 of them: a follower far behind gets them all."""
    leader, _ = leading_voter()
    body, log = entries.encode(entry), leader._voter.log
    for index in range(log.last_index + 1, log.last_index + 12_001):
        log.take(LogRow(index, 1, chain(log.last_crc, index, 1, body), body))
    loaded = [one for one in sent(leader, SECOND_US) if one.heads]
    for append in loaded:
        assert_fits(append)
    assert [head.index for one in loaded for head in one.heads][-1] == log.last_index


def test_an_heir_is_asked_once_it_has_the_whole_log() -> None:
    """It lacked an entry that this very turn proposed: it would stand with less than the others have, and be refused.
    Then the hold-down kept the better voter from leading for five minutes."""
    leader, _ = leading_voter()
    grow(leader)
    (append, *_) = [one for one in sent(leader, SECOND_US) if one.heads]
    turn = Turn(Instant(SECOND_US, 0))
    leader.hand_over("b", turn)
    assert turn.close(0)[1] == []
    last = leader._voter.log.last_index
    leader.appended("b", answered(ok=True, match=last, sent_us=append.sent_boot_us, last=last), turn)
    assert turn.close(0)[1] == [Send("b", TakeOver(leader._voter.term))]
    late = Turn(Instant(3 * SECOND_US, 0))
    leader.appended("b", answered(ok=True, match=last, sent_us=append.sent_boot_us, last=last), late)
    assert late.close(0)[1] == []


def test_nothing_waits_for_a_follower_that_is_away() -> None:
    """Its place in the log keeps up, so that no snapshot is made for it before it is back and says what it lacks."""
    leader, _ = leading_voter()
    now_us = SECOND_US
    for _ in range(3 * IN_FLIGHT_MAX):
        now_us += LAN.append_us
        grow(leader)
        sent(leader, now_us)
    found = leader.progress("b")
    assert found is not None
    assert found.next_index == leader._voter.log.last_index + 1


def test_a_lost_append_is_sent_again() -> None:
    """What follows it is refused, at the latest the next heartbeat."""
    leader, turn = leading_voter()
    grow(leader)
    first = [one for one in sent(leader, SECOND_US) if one.heads]
    refused = answered(ok=False, match=first[0].prev_index, sent_us=SECOND_US, last=first[0].prev_index)
    leader.appended("b", refused, turn)
    again = [one for one in sent(leader, SECOND_US + 1) if one.heads]
    assert [one.heads for one in again] == [one.heads for one in first]


# ---- a follower that has lost what it acknowledged


@pytest.mark.parametrize("ok", [True, False])
def test_a_log_that_ends_before_what_it_acknowledged(ok: bool) -> None:
    """Asked after we knew better: it counts no more, and hears why, until it is another one."""
    leader, turn = leading_voter()
    leader.appended("b", answered(ok=ok, match=2, sent_us=1_500_000, last=2), turn)
    leader.appended("b", answered(ok=True, match=5, sent_us=1_600_000, last=5), turn)
    found = leader.progress("b")
    assert found is not None
    assert (found.match_index, found.forgotten_index, found.acked_sent_us) == (0, 3, SECOND_US)
    leader.send(turn, 0)
    _, wanted = turn.close(0)
    assert [one.message for one in wanted if isinstance(one, Send) and one.to == "b"] == [
        Forgotten(term=1, match_index=3)
    ]
    assert [one.code for one in wanted if isinstance(one, Alarm)] == ["amnesia"]


@pytest.mark.parametrize(
    "answer",
    [
        answered(ok=False, match=2, sent_us=1_000_000, last=2),
        answered(ok=False, match=1, sent_us=1_500_000, last=8),
        answered(ok=True, match=2, sent_us=1_500_000, last=3),
        answered(ok=False, match=2, sent_us=1_500_000, last=-1),
    ],
    ids=["sent before we knew", "other entries follow", "an old append again", "not told"],
)
def test_what_proves_no_loss(answer: Appended) -> None:
    """Late answers, entries of an old leader behind the common ones, repeated appends, an agent of an older version."""
    leader, turn = leading_voter()
    leader.appended("b", answer, turn)
    found = leader.progress("b")
    assert found is not None
    assert (found.match_index, found.forgotten_index) == (3, 0)


@pytest.mark.parametrize(
    ("sender", "message", "is_so"),
    [
        ("b", Forgotten(term=1, match_index=6), True),
        ("b", Forgotten(term=1, match_index=5), False),
        ("b", Forgotten(term=2, match_index=6), False),
        ("c", Forgotten(term=1, match_index=6), False),
    ],
)
def test_only_the_leader_of_the_term_may_say_so(sender: str, message: Forgotten, is_so: bool) -> None:
    """And only where our log really ends before it."""
    leader, _ = leading_voter()
    voter = leader._voter
    voter.become("follower")
    voter.leader = "b"
    assert Following(voter).has_forgotten(sender, message) is is_so


# ---- two machines


def alone(*, learner_at: int) -> Replication:
    """The only voter, leading with five durable entries, and a learner with so many of them at second 1."""
    leader, turn = leading_voter()
    leader._voter.rosters = [(0, frozenset("a"))]
    leader._voter.commit_index = leader._voter.durable_index = 5
    leader.appended("b", answered(ok=True, match=learner_at, sent_us=990_000, last=learner_at), turn)
    return leader


def commit(leader: Replication, at_us: int) -> int:
    """One more entry is durable here: up to where the log is committed."""
    grow(leader)
    leader._voter.durable_index += 1
    leader.count_copies(at_us)
    return leader._voter.commit_index


def test_the_only_voter_waits_a_moment_for_its_learner() -> None:
    """The learner has it: both machines do. It has not: 50 ms later it is committed all the same."""
    leader = alone(learner_at=5)
    first_us = 2 * SECOND_US + 1_000
    assert commit(leader, first_us) == 5
    sent(leader, first_us)
    assert leader.next_wakeup(first_us) == first_us + PATIENCE_US
    turn = Turn(Instant(first_us + 4_000, 0))
    leader.appended("b", answered(ok=True, match=6, sent_us=first_us, last=6), turn)
    assert leader._voter.commit_index == 6
    assert commit(leader, first_us + 5_000) == 6
    leader.count_copies(first_us + 5_000 + PATIENCE_US)
    assert leader._voter.commit_index == 7


def test_nobody_waits_for_a_learner_that_is_away() -> None:
    """It has answered nothing for three idle appends."""
    leader = alone(learner_at=5)
    assert commit(leader, 2 * SECOND_US + AWAY_BEATS * LAN.append_us + 1) == 6


def test_nobody_waits_for_a_learner_that_has_never_acknowledged_anything() -> None:
    """Nor for one that is still catching up."""
    leader = alone(learner_at=5)
    leader.follow(set(), Turn(Instant(2 * SECOND_US, 0)))
    leader.follow({"b"}, Turn(Instant(2 * SECOND_US, 0)))
    assert commit(leader, 2 * SECOND_US) == 6
    assert commit(alone(learner_at=4), 2 * SECOND_US) == 6


def test_an_agent_alone_waits_for_nobody() -> None:
    """Nor is it woken."""
    leader = alone(learner_at=5)
    leader.follow(set(), Turn(Instant(2 * SECOND_US, 0)))
    assert commit(leader, 2 * SECOND_US) == 6
    assert leader.next_wakeup(2 * SECOND_US) is None


def test_where_others_vote_learners_are_not_waited_for() -> None:
    """A majority is enough; and what was waited for before another one voted is not any more."""
    leader = alone(learner_at=5)
    assert commit(leader, 2 * SECOND_US) == 5
    leader._voter.rosters.append((6, frozenset("ac")))
    leader.appended("c", answered(ok=True, match=6, sent_us=SECOND_US, last=6), Turn(Instant(2 * SECOND_US, 0)))
    assert leader._voter.commit_index == 6
