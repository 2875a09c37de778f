"""Test the tests: each rule of the protocol is taken out, and something here must break (PROTOCOL 10).

A rule is taken out in its source text, so that it is gone and nothing else is; where the text is no longer found, the
mutation says so instead of passing. docs/SIMULATION.md has the table.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from functools import partial

import pytest
from msgspec import Struct

from meshcron.core import (
    catalog,
    catalog_cluster,
    catalog_members,
    catalog_ticks,
    dispatch,
    leading,
    membership,
    replication,
    runner,
)
from meshcron.core.admission import Admission
from meshcron.core.agent import Agent
from meshcron.core.calls import Calls
from meshcron.core.catalog_outcomes import Outcomes
from meshcron.core.clocks import ClusterClock
from meshcron.core.digest import Digest
from meshcron.core.election import Election
from meshcron.core.encounters import Encounters
from meshcron.core.following import Following
from meshcron.core.gate import Gate
from meshcron.core.intents import Intents
from meshcron.core.known_members import KnownMembers
from meshcron.core.leadership import Leadership
from meshcron.core.ledger import Ledger
from meshcron.core.proposals import Proposals
from meshcron.core.stewardship import Stewardship
from meshcron.core.voter import Voter
from tests.simulation import test_cluster_seeds as seeds
from tests.simulation import test_comparing as comparing
from tests.simulation import test_elections as elections
from tests.simulation import test_scripts as scripts
from tests.simulation import test_senders as senders
from tests.simulation import test_upgrades as upgrades


def unnamed(story: Callable[[int], None], seconds: int) -> None:
    """A story whose orders do not name the start of the agent that they are for: another rule would refuse them."""
    with scripts.nobody_names_the_start():
        story(seconds)


class Mutation(Struct, frozen=True):
    """A rule, how it is taken out, the story that breaks, and what the story says then."""

    rule: str
    where: type
    method: str
    old: str
    new: str
    story: Callable[[], None]
    breaks: str


def mutate(patch: pytest.MonkeyPatch, where: type, method: str, old: str, new: str) -> None:
    """Replace one piece of a method's text."""
    function = getattr(where, method)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{where.__name__}.{method} no longer reads {old!r}: write this mutation anew"
    made: dict[str, object] = {}
    text = "from __future__ import annotations\n" + source.replace(old, new)
    exec(compile(text, f"<{method} without its rule>", "exec"), function.__globals__, made)
    patch.setattr(where, method, made[method])


def script(name: str) -> Callable[[], None]:
    """A file of data/ as a story."""
    return partial(elections.tell, name)


MEAN = "(lambda walls_us, voters: sum(walls_us) // len(walls_us) if 2 * len(walls_us) > voters else None)("
"""What the median of the voters' clocks is not."""


def why_broken(story: Callable[[], None]) -> str:
    """What the assertion says with which a story fails: its own words, none of what pytest adds about values."""
    with pytest.raises(AssertionError) as failure:
        story()
    said = str(failure.value).partition("\n")[0]
    assert not said.startswith("assert "), f"an assertion that gives no reason: {said}"
    return said


MUTATIONS = (
    Mutation(
        "no worker votes by its own word",
        Stewardship,
        "_says",
        "said.eligible and (member.eligible or member.voter)",
        "said.eligible",
        scripts.test_a_worker_that_says_it_may_vote_stays_a_worker,
        "a worker may vote because it says so",
    ),
    Mutation(
        "a voter gives up its seat first",
        Stewardship,
        "_watch_facts",
        "said = replace(said, eligible=said.eligible or member.eligible)",
        "pass",
        scripts.test_a_voter_that_wants_no_vote_gives_up_its_seat_first,
        "the right to vote before the seat",
    ),
    Mutation(
        "who wants no vote is counted on until it has none",
        KnownMembers,
        "may_hold_log",
        "self._settings.eligible or (ours is not None and ours.eligible)",
        "self._settings.eligible",
        scripts.test_a_majority_that_wants_no_vote_stays_until_it_is_not_needed,
        "18: no leader",
    ),
    Mutation(
        "a worker's key commands nobody",
        KnownMembers,
        "may_command",
        "member is not None and member.eligible",
        "member is not None",
        senders.outsiders_story,
        "a Run of a worker",
    ),
    Mutation(
        "an agent speaks for its own executions",
        dispatch.Dispatch,
        "run_ack",
        "execution is None or execution.node_id != sender or",
        "execution is None or",
        senders.outsiders_story,
        "a RunAck of a worker",
    ),
    Mutation(
        "a majority elects",
        Voter,
        "is_majority",
        "return 2 * len(self.voters & some) > len(self.voters)",
        "return bool(self.voters & some)",
        script("vote_survives_a_crash"),
        "1: b and c lead in term 1",
    ),
    Mutation(
        "a majority commits",
        replication.Replication,
        "count_copies",
        "index = matches[(len(matches) - 1) // 2]",
        "index = matches[-1]",
        script("minority"),
        "4: 1 is committed, and only on",
    ),
    Mutation(
        "who has lost its leader stands",
        Election,
        "woke",
        "self._ask(turn)",
        "pass",
        seeds.test_a_leader_is_found_again_after_each_burst,
        "18: no leader",
    ),
    Mutation(
        "a vote checks the log",
        Election,
        "vote",
        "granted = complete and",
        "granted =",
        script("stale_vote_is_refused"),
        "c: candidate expected, leader found",
    ),
    Mutation(
        "one vote a term is durable",
        Voter,
        "enter_term",
        "turn.write(BallotRow(term, vote))",
        "pass",
        script("vote_survives_a_crash"),
        "2: a votes for b and c in term 1",
    ),
    Mutation(
        "a vote leaves when it is durable",
        Election,
        "vote",
        "turn.after_writes(Send(sender, reply))",
        "turn.at_once(Send(sender, reply))",
        scripts.test_the_leader_dies_while_a_process_runs,
        "before the vote is durable",
    ),
    Mutation(
        "an entry of the own term commits",
        replication.Replication,
        "count_copies",
        "index > voter.commit_index and voter.log.term_at(index) == voter.term",
        "index > voter.commit_index",
        script("figure_8"),
        "4: entry 2 is committed with term 2 and with 3",
    ),
    Mutation(
        "who votes changes behind an entry of the own term",
        Ledger,
        "roster_may_change",
        " and voter.commit_index >= voter.first_index",
        "",
        script("the_bug_of_2015"),
        "4: entry 2 is committed with term 2 and with 1",
    ),
    Mutation(
        "who votes changes behind the last change",
        Ledger,
        "roster_may_change",
        " and voter.roster_is_committed()",
        "",
        script("two_changes_at_once"),
        "4: entry 2 is committed with term 1 and with 2",
    ),
    Mutation(
        "who votes changes behind the last change, in a whole cluster",
        Stewardship,
        "_watch_roster",
        "self._reshaping or not self._ledger.roster_may_change() or",
        "",
        scripts.test_who_votes_changes_once_the_last_change_is_committed,
        "13: who votes changes before the last change is committed",
    ),
    Mutation(
        "one voter at a time",
        Stewardship,
        "_watch_roster",
        "if voters is not None:",
        "if voters is not None and (voters := voters | set(health)):",
        scripts.test_one_voter_becomes_three_and_then_five_while_it_works,
        "13: more than one voter changed at once",
    ),
    Mutation(
        "the own copy counts at Persisted",
        replication.Replication,
        "_durable_at",
        "return self._voter.durable_index",
        "return self._voter.log.last_index",
        script("own_disk"),
        "4: 2 is committed, and only on",
    ),
    Mutation(
        "a follower acknowledges what is durable",
        Following,
        "_answer",
        "turn.after_writes(Send(",
        "turn.at_once(Send(",
        scripts.test_the_leader_dies_while_a_process_runs,
        "acknowledges \\d+, holds \\d+",
    ),
    Mutation(
        "a follower acknowledges again what is durable",
        Following,
        "_answer",
        "min(match, voter.durable_index) if ok else match",
        "match",
        scripts.test_slow_disks_of_followers_take_no_lease,
        "acknowledges \\d+, holds \\d+",
    ),
    Mutation(
        "a follower commits what matches",
        Following,
        "append",
        "min(message.commit_index, match)",
        "message.commit_index",
        script("commit_of_what_matches"),
        "4: entry 3 is committed with term 3 and with 2",
    ),
    Mutation(
        "a follower compares terms",
        Following,
        "_conflict",
        "if term == message.prev_term:",
        "if True:",
        script("figure_8"),
        "4: 2 is committed, and only on",
    ),
    Mutation(
        "an order follows its commit",
        Voter,
        "has_committed",
        "return self.applied_index < self.commit_index",
        'return self.applied_index < (self.log.last_index if self.role == "leader" else self.commit_index)',
        scripts.test_the_leader_dies_before_the_intent_is_on_a_majority,
        "4: entry .* is committed, 0 disks hold it",
    ),
    Mutation(
        "apply checks again: the job exists",
        catalog_ticks.Ticks,
        "intents",
        "state = self._state.jobs.get(item.uid)",
        "state = self._state.job_state(item.uid)",
        scripts.test_a_job_that_is_deleted_before_it_is_run_is_not_run,
        "a deleted job runs",
    ),
    Mutation(
        "apply checks again: the revision",
        catalog_ticks.Ticks,
        "_holds",
        "item.revision != state.revision or",
        "",
        scripts.test_a_job_that_is_edited_before_it_is_run_runs_as_edited,
        "it runs as it was before the edit",
    ),
    Mutation(
        "apply checks again: the cursor",
        catalog_ticks.Ticks,
        "_tick_holds",
        "and tick_wall_us > state.cursor_wall_us",
        "",
        scripts.test_a_tick_that_is_decided_twice_runs_once,
        "10: the cursor of job tick fell",
    ),
    Mutation(
        "apply checks again: the overlap",
        catalog_ticks.Ticks,
        "_holds",
        "return not (state.open_ids if item.attempt > 1 else self._state.is_busy(state))",
        "return True",
        scripts.test_two_people_run_a_job_in_the_same_instant,
        "overlap under forbid",
    ),
    Mutation(
        "apply checks again: the pause",
        catalog_ticks.Ticks,
        "_holds",
        ' or (self._state.paused and item.trigger != "manual")',
        "",
        partial(scripts.test_a_tick_of_a_time_that_is_over_is_decided_anew, "paused"),
        "a cursor goes ahead by a decision that is void",
    ),
    Mutation(
        "apply checks again: the epoch",
        catalog_ticks.Ticks,
        "_tick_holds",
        "state.epoch == epoch and ",
        "",
        partial(scripts.test_a_tick_of_a_time_that_is_over_is_decided_anew, "stepped"),
        "a cursor goes ahead by a decision that is void",
    ),
    Mutation(
        "apply checks again: the cluster is unused",
        catalog_cluster.Cluster,
        "dissolve",
        "if not self._state.is_virgin():",
        "if False:",
        scripts.test_a_cluster_that_is_used_in_the_instant_of_its_end_goes_on,
        "a cluster with a job dissolves",
    ),
    Mutation(
        "apply checks again: the member has no vote",
        catalog_members.Members,
        "remove",
        "if member.voter:",
        "if False:",
        scripts.test_who_becomes_a_voter_meanwhile_is_not_removed,
        "a voter is removed in one step",
    ),
    Mutation(
        "who cannot be asked is lost, not over",
        dispatch.Dispatch,
        "lost",
        'kind="lost"',
        'kind="failed"',
        scripts.test_only_a_run_that_is_lost_may_be_overlapped_by_one_that_forbids_it,
        "16: .* overlaps .*, which is failed",
    ),
    Mutation(
        "a repeated call gets the first answer",
        catalog.Catalog,
        "_answered",
        "self._fold.rows += keep_answer(self._fold.state, once, self._fold.index, outcome)",
        "pass",
        scripts.test_a_call_whose_answer_is_lost_with_the_leader_is_done_once,
        "a repeated call ran twice",
    ),
    Mutation(
        "an answer to a call follows its rows",
        Calls,
        "_say",
        "turn.after_writes(Answer(call.call_id, outcome))",
        "turn.at_once(Answer(call.call_id, outcome))",
        partial(scripts.test_who_has_answered_reads_its_write_after_a_crash, "job"),
        "14: host. reads .*, and has answered for",
    ),
    Mutation(
        "who says that all is paused has paused it",
        catalog_cluster.Cluster,
        "pause",
        "if entry.paused and not self._state.paused:",
        "if False:",
        partial(scripts.test_who_has_answered_reads_its_write_after_a_crash, "pause"),
        "14: host. says that paused=True is written",
    ),
    Mutation(
        "who says that a member goes has marked it",
        Proposals,
        "_remove_member",
        "replace(member, leaving=True)",
        "member",
        partial(scripts.test_who_has_answered_reads_its_write_after_a_crash, "member"),
        "14: host. says that .* are on their way out",
    ),
    Mutation(
        "a pause is written down",
        catalog_cluster.Cluster,
        "pause",
        "self._write_pauses()",
        "pass",
        scripts.test_the_disks_of_all_hold_all_that_their_agents_know,
        r"5: the rows on the disk of host. are other \['paused', 'pauses'\]",
    ),
    Mutation(
        "a token is written down",
        catalog_cluster.Cluster,
        "token_put",
        "self._fold.rows.append(TokenRow(entry.token))",
        "pass",
        scripts.test_the_disks_of_all_hold_all_that_their_agents_know,
        r"5: the rows on the disk of host. are other \['token_map'\]",
    ),
    Mutation(
        "a start is durable",
        runner.Runner,
        "__init__",
        "self._seen = {row.execution_id: Seen.from_row(row) for row in loaded.seen}",
        "self._seen = {}",
        scripts.test_an_agent_and_its_leader_crash_while_a_process_runs,
        "6: .* started twice",
    ),
    Mutation(
        "`starting` is durable before the spawn",
        runner.Runner,
        "_start",
        "turn.write(seen.row())",
        "pass",
        scripts.test_an_agent_that_crashes_after_each_step_of_a_run_starts_it_once,
        "8: a start that was not written down as one",
    ),
    Mutation(
        "a process starts after its row",
        runner.Runner,
        "_start",
        "turn.after_writes(StartProcess(",
        "turn.at_once(StartProcess(",
        scripts.test_an_agent_that_crashes_after_each_step_of_a_run_starts_it_once,
        "8: a start that was not written down as one",
    ),
    Mutation(
        "an answer follows its row",
        runner.Runner,
        "run",
        "turn.after_writes(Send(sender, RunAck(self._fence, acks)))",
        "turn.at_once(Send(sender, RunAck(self._fence, acks)))",
        scripts.test_an_agent_that_crashes_after_each_step_of_a_run_starts_it_once,
        "accepts before it is written down",
    ),
    Mutation(
        "the mark T",
        runner.Runner,
        "_accept",
        "order.start_by_cluster_us <= self._mark_cluster_us",
        "False",
        partial(unnamed, scripts.a_copy_hangs, 150),
        "6: .* started twice",
    ),
    Mutation(
        "the fence",
        runner.Runner,
        "run",
        "message.fence < self._fence",
        "False",
        scripts.test_an_order_of_an_old_leader_is_stale,
        "9: an order of .* is obeyed",
    ),
    Mutation(
        "the fence of a kill",
        runner.Runner,
        "stop",
        "message.fence < self._fence",
        "False",
        scripts.test_a_kill_of_an_old_leader_is_stale,
        "9: an order of .* is obeyed",
    ),
    Mutation(
        "the index is no part of the fence",
        runner.Runner,
        "_accept",
        "seen = self._seen.get(order.execution_id)",
        """
    index, highest = int(order.run_id.rpartition("-m")[2]), self.__dict__.setdefault("highest", 0)
    if index < highest:
        return Ack(execution_id=order.execution_id, state="stale")
    self.highest = index
    seen = self._seen.get(order.execution_id)""",
        scripts.test_an_order_that_another_one_overtakes_is_obeyed,
        "an order of the living leader is refused",
    ),
    Mutation(
        "`seen` outlives its result",
        runner.Runner,
        "result_ack",
        "heapq.heappush(self._forgettable, (seen.start_by_cluster_us, execution_id))",
        'del self._seen[execution_id]; turn.write(Drop("seen", (execution_id,)))',
        scripts.test_an_order_repeated_after_its_result_starts_nothing,
        "6: .* started twice",
    ),
    Mutation(
        "`seen` goes with the last copy of its order",
        runner.Runner,
        "result_ack",
        "heapq.heappush(self._forgettable, (seen.start_by_cluster_us, execution_id))",
        "pass",
        scripts.test_what_is_over_is_forgotten,
        "17: host. remembers for ever what is over",
    ),
    Mutation(
        "`seen` goes in time",
        runner.Runner,
        "result_ack",
        "(seen.start_by_cluster_us, execution_id)",
        "(seen.start_by_cluster_us + 60_000_000, execution_id)",
        scripts.test_what_is_over_is_forgotten,
        "17: host. remembers .* for too long",
    ),
    Mutation(
        "an agent starts no more than it has slots",
        runner.Runner,
        "_fire",
        "self._busy < self._slots and started",
        "started",
        scripts.test_an_agent_starts_no_more_than_it_has_slots,
        "17: 3 processes of host0 in 2 slots",
    ),
    Mutation(
        "start_by holds again after a restart",
        runner.Runner,
        "_wait",
        "if seen.session == self._session:",
        "if True:",
        scripts.test_what_waits_for_a_slot_waits_no_longer_than_start_by_after_a_restart,
        "it starts after start_by",
    ),
    Mutation(
        "cluster time is past the marks of all votes",
        ClusterClock,
        "lead",
        ", *(mark - now.boot_us for mark in marks_us))",
        ")",
        scripts.test_after_a_cold_start_cluster_time_is_past_all_that_a_majority_has_seen,
        "cluster time has fallen below a mark",
    ),
    Mutation(
        "a run's parameters are not published",
        dispatch.Dispatch,
        "opened",
        "len(theirs) < PUBLISH_MIN or theirs[0].env",
        "len(theirs) < PUBLISH_MIN",
        scripts.test_the_parameters_of_a_run_are_told_to_its_agents_only,
        "a run's parameters are published",
    ),
    Mutation(
        "orders are cut by their bytes",
        dispatch.Dispatch,
        "_send_orders",
        "MESSAGE_ITEMS_BYTES, ORDERS",
        "1 << 40, ORDERS",
        scripts.test_what_piles_up_while_an_agent_hears_nothing_arrives_all_the_same,
        "17: a Run that no peer takes",
    ),
    Mutation(
        "Specs count as bytes",
        dispatch.Dispatch,
        "_send_orders",
        "self._bytes_with_spec if with_specs else order_bytes",
        "order_bytes",
        scripts.test_what_piles_up_while_an_agent_hears_nothing_arrives_all_the_same,
        "17: a Run that no peer takes",
    ),
    Mutation(
        "outcomes are cut by their bytes",
        runner.Runner,
        "_send_outbox",
        "json_bytes, MESSAGE_ITEMS_BYTES",
        "json_bytes, 1 << 40",
        scripts.test_what_piles_up_while_an_agent_hears_nothing_arrives_all_the_same,
        "17: a Result that no peer takes",
    ),
    Mutation(
        "a job's command is not published",
        dispatch.Dispatch,
        "_publish_orders",
        "tuple(some))",
        "tuple(some), tuple(self._specs[one.uid, one.revision][1] for one in some))",
        scripts.test_the_parameters_of_a_run_are_told_to_its_agents_only,
        "a job's command is published",
    ),
    Mutation(
        "nobody forms before all are seen that are expected",
        Admission,
        "should_form",
        "len(forming) + 1 < self._expect",
        "False",
        scripts.test_of_three_that_expect_each_other_nobody_forms_a_cluster_alone,
        "two of three that are expected form a cluster",
    ),
    Mutation(
        "no more is on its way than a window",
        replication.Replication,
        "send",
        "and len(one.in_flight) < IN_FLIGHT_MAX",
        "",
        scripts.test_slow_disks_of_followers_take_no_lease,
        "17: 17 appends are on their way",
    ),
    Mutation(
        "a Stop is written down",
        runner.Runner,
        "_stop_one",
        'if seen is None or seen.state == "accepted":',
        'if seen is not None and seen.state == "accepted":',
        scripts.test_a_stop_that_overtakes_its_order_is_obeyed,
        "P2: .* was stopped and starts",
    ),
    Mutation(
        "a higher generation ends the old one",
        Encounters,
        "outlived",
        "if generation <= self._runner.fence.generation:",
        "if True:",
        scripts.test_a_survivor_goes_on_alone_and_the_dead_come_back_as_newcomers,
        "the old generation lives on",
    ),
    Mutation(
        "a member's word makes no other cluster",
        Gate,
        "heard",
        "self.found(Found(profile.endpoint.host, profile.endpoint.gate_port, profile.node_id), turn)",
        "self._encounters.met(hello.cluster, turn, virgin=hello.virgin)",
        partial(senders.test_a_member_s_word_makes_no_other_cluster, "", silent=False),
        "an unused cluster dissolves",
    ),
    Mutation(
        "who was refused moves nothing",
        Gate,
        "heard",
        "self._why_not(hello, member)",
        "False",
        partial(senders.test_a_member_s_word_makes_no_other_cluster, "9" * 32, silent=False),
        "an unused cluster dissolves",
    ),
    Mutation(
        "a recovery is recorded once",
        Leadership,
        "is_recovering",
        "max(recorded) < self._settings.generation",
        "self._settings.generation > 0",
        scripts.test_an_agent_recovered_once_leads_again_like_any_other,
        "it has thrown the others out once more",
    ),
    Mutation(
        "a generation outranks every term",
        runner.Runner,
        "enter",
        "Fence(generation, 0)",
        "self._fence",
        scripts.test_a_worker_follows_a_recovery,
        "orders of the old generation still count",
    ),
    Mutation(
        "what follows a late snapshot stays",
        Agent,
        "_snapshot_arrived",
        "self.ledger.holds(event.index, event.term)",
        "False",
        scripts.test_a_snapshot_that_comes_late_takes_nothing_back,
        "acknowledged entries are thrown away",
    ),
    Mutation(
        "a snapshot is acknowledged",
        Following,
        "append",
        "match=voter.commit_index",
        "match=0",
        scripts.test_a_follower_far_behind_gets_a_snapshot,
        "the follower gets nothing after its snapshot",
    ),
    Mutation(
        "a snapshot that died with its receiver is sent again",
        replication.Replication,
        "appended",
        "0 <= message.last_index < voter.log.base_index",
        "False",
        scripts.test_a_follower_that_dies_before_its_snapshot_is_durable_gets_another_one,
        "the follower gets nothing",
    ),
    Mutation(
        "the lease",
        replication.Replication,
        "why_step_down",
        "now_us > self._lease_until_us()",
        "False",
        scripts.test_a_leader_cut_off_says_so_at_once,
        "a write waits at a leader without a lease",
    ),
    Mutation(
        "the lease is checked first",
        replication.Replication,
        "why_step_down",
        "now_us > self._lease_until_us()",
        "False",
        scripts.test_a_leader_that_was_stopped_finds_its_lease_void_before_it_acts,
        "it speaks as leader of its old term",
    ),
    Mutation(
        "a leader with a mute disk steps down",
        Voter,
        "syncing_since_us",
        "return self._unsynced[0][2] if self._unsynced else None",
        "return None",
        script("mute_disk"),
        "a: follower expected, leader found",
    ),
    Mutation(
        "the lease counts from the sending",
        replication.Replication,
        "appended",
        "max(one.acked_sent_us, message.sent_boot_us)",
        "turn.now.boot_us",
        scripts.test_a_leader_whose_answers_come_late_stops_before_another_one_leads,
        "lead in the same instant",
    ),
    Mutation(
        "the leader's verdict needs another watcher",
        membership.Membership,
        "_has_failed",
        "not watchers or any(node_id in self._heard[one].beat.suspects for one in watchers)",
        "True",
        scripts.test_a_member_that_only_the_leader_does_not_hear_has_not_failed,
        "the leader alone says that a member has failed",
    ),
    Mutation(
        "a cold start waits for those that still start",
        leading.Leading,
        "_name_candidates",
        "self._cold = early and len(found) < len(staying)",
        "self._cold = False",
        partial(scripts.test_after_a_cold_start_ticks_wait_for_those_that_still_start, comes_back=True),
        "ticks of an agent that may still start are decided",
    ),
    Mutation(
        "pre-vote",
        Election,
        "_ask",
        'voter.become("asking")',
        "return self._stand(turn)",
        script("cut_off_and_back"),
        "c: term=1 expected, \\d+ found",
    ),
    Mutation(
        "pre-vote, in a whole cluster",
        Election,
        "_ask",
        'voter.become("asking")',
        "return self._stand(turn)",
        partial(scripts.test_a_cut_between_two_of_three_changes_no_term, middle_leads=False),
        "terms rise",
    ),
    Mutation(
        "who hears its leader is sticky",
        Election,
        "vote",
        "message.term > voter.term and not message.hand_over and not self._lost_leader(turn)",
        "False",
        script("deaf_to_higher_terms"),
        "b: term=1 expected, 2 found",
    ),
    Mutation(
        "a bully is waited for once",
        Election,
        "pre_vote_reply",
        "message.standing and not self._deaf",
        "message.standing",
        script("mute_bully"),
        "a: leader expected, follower found",
    ),
    Mutation(
        "a fence is of one cluster",
        runner.Runner,
        "enter",
        "if self._cluster:",
        "if False:",
        scripts.test_a_worker_obeys_the_cluster_that_took_the_place_of_its_own,
        "no order is obeyed",
    ),
    Mutation(
        "a hand-over holds down",
        catalog_members.Members,
        "hand_over",
        "self._state.hand_over = entry.cluster_us, hold_us",
        "self._state.hand_over = entry.cluster_us, (hold_us := 0)",
        scripts.test_an_agent_that_flaps_is_not_handed_the_lead_each_time,
        "15: heirs are told twice within a hold-down",
    ),
    Mutation(
        "who has lost what it acknowledged is told",
        replication.Replication,
        "_has_lost",
        "return 0 <= message.last_index < one.match_index",
        "return False and 0 <= message.last_index < one.match_index",
        scripts.test_a_follower_whose_disk_went_back_votes_no_more,
        "4: entry .* was committed twice, differently",
    ),
    Mutation(
        "an order names the start it is for",
        runner.Runner,
        "_accept",
        'if seen is not None or order.start_id not in ("", self.start_id):',
        "if False:",
        scripts.test_a_copy_that_hears_the_orders_obeys_none,
        "the copy takes orders that are not for it",
    ),
    Mutation(
        "what an earlier start accepted is asked for again",
        runner.Runner,
        "resume",
        "self._unconfirmed.add(seen.execution_id)",
        "heapq.heappush(self._due, (seen.order.due_cluster_us, seen.execution_id))",
        scripts.test_a_copy_made_while_orders_are_armed_starts_none_of_them,
        "6: .* started twice",
    ),
    Mutation(
        "who is alone with its rows begins anew",
        Digest,
        "judge",
        "2 * count > len(voters)",
        "False",
        partial(comparing.test_a_voter_that_computes_other_rows_is_set_aside, leads=True),
        "nobody has noticed",
    ),
    Mutation(
        "no voter is let in that remembers nothing",
        Gate,
        "_why_not",
        "member.voter and not hello.cluster",
        "False",
        scripts.test_a_voter_that_has_its_identity_alone_is_let_in_by_nobody,
        "committed twice, differently",
    ),
    Mutation(
        "an old answer proves no loss",
        replication.Replication,
        "_has_lost",
        " and message.sent_boot_us > one.matched_boot_us",
        "",
        scripts.test_late_answers_accuse_nobody,
        "a disk is accused",
    ),
    Mutation(
        "repetitions begin anew for who is back",
        dispatch.Dispatch,
        "heard_again",
        "if pending.node_id == node_id",
        "if False",
        scripts.test_an_agent_that_is_back_gets_its_orders_at_once,
        "within a beat and a repetition",
    ),
    Mutation(
        "what may still start is not lost",
        dispatch.Dispatch,
        "lost",
        " or cluster_us <= execution.start_by_cluster_us",
        "",
        scripts.test_what_may_still_start_is_not_lost,
        "it may still start, and is taken for lost",
    ),
    Mutation(
        "what may still run is not lost",
        dispatch.Dispatch,
        "lost",
        "if timeout_us and cluster_us <=",
        "if False and cluster_us <=",
        scripts.test_what_may_still_run_until_its_timeout_is_not_lost,
        "it may still run, and is taken for lost",
    ),
    Mutation(
        "a grace and a silence after the timeout",
        dispatch.Dispatch,
        "lost",
        " + GRACE_US + self._lost_us",
        "",
        scripts.test_what_may_still_run_until_its_timeout_is_not_lost,
        "it may still run, and is taken for lost",
    ),
    Mutation(
        "reruns are no retries",
        Outcomes,
        "_owe_again",
        "final.attempt <= job.retries",
        "final.attempt <= max(job.retries, RERUNS_MAX)",
        scripts.test_only_a_failure_within_the_retries_is_tried_again,
        "12: 1 times attempt 3 of .*, 0 before it allow one",
    ),
    Mutation(
        "what never started is not tried again",
        Outcomes,
        "_owe_again",
        "{Status.FAILED, Status.TIMEOUT}",
        "{Status.FAILED, Status.TIMEOUT, Status.SKIPPED}",
        scripts.test_only_a_failure_within_the_retries_is_tried_again,
        "12: 1 times attempt 2 of .*, 0 before it allow one",
    ),
    Mutation(
        "a new leader says so at once",
        Agent,
        "_advance",
        "self.leadership.leading and not led",
        "False",
        scripts.test_a_new_leader_says_so_at_once,
        "the worker has not heard who leads",
    ),
    Mutation(
        "what is decided together is spread",
        Intents,
        "_load",
        "self._decided[one.number]",
        "0",
        scripts.test_ticks_that_are_due_together_are_spread_over_idle_agents,
        "one agent has most to do",
    ),
    Mutation(
        "the median of the clocks",
        leading.Leading,
        "_watch_clocks",
        "agreed_wall_us(",
        MEAN,
        scripts.test_one_voter_s_clock_an_hour_ahead_moves_nothing,
        "the time of all follows one wrong clock",
    ),
    Mutation(
        "two clocks that disagree have no median",
        leading.Leading,
        "_watch_clocks",
        "agreed_wall_us(",
        MEAN,
        scripts.test_two_clocks_that_disagree_are_not_averaged,
        "all ticks follow one wrong clock",
    ),
    Mutation(
        "silence is forgiven after an own pause",
        membership.Membership,
        "forgive_own_pause",
        "if pause_us > 0:",
        "if False:",
        scripts.test_an_agent_that_stood_still_accuses_nobody,
        "it accuses others of its own silence",
    ),
    Mutation(
        "an old word lets nobody in",
        Stewardship,
        "admit",
        "0 <= message.roster_index < self._removed_index",
        "False",
        scripts.test_a_knock_that_hung_lets_nobody_back_in,
        "who was removed is let in again",
    ),
    Mutation(
        "who remembers that it was a member is refused",
        Gate,
        "_claimed",
        "hello.remembers if hello.remembers == self._known.cluster else hello.cluster",
        "hello.cluster",
        scripts.test_a_worker_that_was_removed_while_it_was_down_stays_away,
        "who was removed is let in again",
    ),
    Mutation(
        "what is too late does not run",
        runner.Runner,
        "_wait",
        "heapq.heappush(self._given_up, (until, execution_id))",
        "pass",
        scripts.test_an_agent_that_stood_still_starts_what_is_in_time_and_says_what_is_not,
        "what is too late starts all the same",
    ),
    Mutation(
        "a protocol waits for the last to announce it",
        Stewardship,
        "_watch_protocol",
        "spoken.append(beat.profile.protocol)",
        "pass",
        upgrades.test_nothing_new_is_written_until_the_last_is_upgraded,
        "the cluster speaks protocol 2, this agent only 1",
    ),
    Mutation(
        "a voter that is away is waited for",
        Stewardship,
        "_watch_protocol",
        "elif node_id in holders:",
        "elif False:",
        upgrades.test_a_voter_that_is_away_is_waited_for,
        "the cluster moves on without a voter",
    ),
    Mutation(
        "nothing of a later protocol is written before",
        Ledger,
        "_body",
        "if needed > spoken:",
        "if False:",
        upgrades.test_nothing_new_is_written_until_the_last_is_upgraded,
        "the log holds an entry that this agent cannot read",
    ),
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.rule.replace(" ", "_"))
def test_a_rule_taken_out_is_missed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The story that holds with the rule breaks without it, and for that reason."""
    mutate(monkeypatch, mutation.where, mutation.method, mutation.old, mutation.new)
    assert re.search(mutation.breaks, why_broken(mutation.story)), mutation.rule
