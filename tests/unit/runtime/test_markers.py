"""What is left in a data directory for its next start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from meshcron import entries
from meshcron.errors import StartRefused
from meshcron.files import LOCAL_FILE
from meshcron.messages import next_generation
from meshcron.rows import MarkRow, MetaRow
from meshcron.runtime import markers
from meshcron.runtime.markers import RECOVERED_FILE, Recovery, begin_recovery, drawn_identity
from meshcron.store.directory import COPY_FILE, NODE_FILE
from tests.unit.core.disk import CLUSTER, NODE
from tests.unit.core.lab import Lab


def voted_as(folder: Path, node_id: str) -> None:
    """Whose directory it is."""
    (folder / NODE_FILE).write_text(json.dumps({"identity": {"node_id": node_id}}))


def test_an_adopted_folder_is_recovered(tmp_path: Path) -> None:
    """What it holds may be behind: the mark stands before the new identity does. A first start recovers nothing."""
    first = drawn_identity(tmp_path)
    assert markers.recovery(tmp_path) is None
    voted_as(tmp_path, "former")
    (tmp_path / LOCAL_FILE).write_text("token of the old node id")
    assert drawn_identity(tmp_path).node_id != first.node_id
    assert markers.recovery(tmp_path) == Recovery("adopted", ("former",))
    assert (tmp_path / RECOVERED_FILE).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / LOCAL_FILE).exists()


def test_an_adoption_that_died_half_way_is_done_again(tmp_path: Path) -> None:
    """After the new identity was written, too: the only voter of a cluster is still the one that it was."""
    lab = Lab().start()
    lab.advance(2)
    voted_as(tmp_path, NODE)
    for node_id in ("second", "third"):
        drawn_identity(tmp_path)
        assert not markers.votes_elsewhere(tmp_path, lab.disk.load())
        voted_as(tmp_path, node_id)
    assert markers.recovery(tmp_path) == Recovery("adopted", (NODE, "second"))
    begin_recovery(tmp_path, Recovery("adopted", ("somebody else",)))
    assert markers.votes_elsewhere(tmp_path, lab.disk.load())


@pytest.mark.parametrize("writes", range(9))
def test_a_recovery_opens_one_generation_wherever_it_is_killed(tmp_path: Path, writes: int) -> None:
    """After each single write of the disk, from the mark that is raised first to the record of what is lost, and
    before the marker is dropped: the next start goes on with the generation of the first one."""
    lab = Lab().start()
    lab.put(schedule="@every 1h")
    lab.advance(2)
    begin_recovery(tmp_path, Recovery("alone"))
    lab.disk_answers = False
    lab.start(generation=markers.opened_generation(tmp_path, lab.disk.load(), NODE))
    for _ in range(writes):
        lab.sync(1)
    lab.disk_answers = True
    lab.start(generation=markers.opened_generation(tmp_path, lab.disk.load(), NODE))
    lab.advance(2)
    markers.drop(tmp_path)
    assert lab.agent.leading
    assert lab.agent.generation == lab.agent.state.generation == next_generation(0, NODE)
    recovered = [one for row in lab.disk.log.values() if isinstance(one := entries.decode(row.body), entries.Recovered)]
    assert [one.generation for one in recovered] == [next_generation(0, NODE)]
    assert markers.opened_generation(tmp_path, lab.disk.load(), NODE) == 0


def test_where_nothing_was_formed_nothing_is_recovered(tmp_path: Path) -> None:
    """And a copy that was told so is none any more once the marker is dropped; dropping twice is no harm."""
    begin_recovery(tmp_path, Recovery("salvaged"))
    assert markers.opened_generation(tmp_path, Lab().disk.load(), NODE) == 0
    (tmp_path / COPY_FILE).touch()
    for _ in range(2):
        markers.drop(tmp_path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("why", "is_forgotten"), [("adopted", True), ("salvaged", True), ("alone", False), (None, False)]
)
def test_what_another_node_id_obeyed_is_no_memory_of_this_one(
    tmp_path: Path, why: Literal["adopted", "salvaged", "alone"] | None, is_forgotten: bool
) -> None:
    """By the cluster it would be refused as one that was removed; by the fence it would obey no other cluster whose
    terms are lower. Who holds a log goes on as what that says."""
    lab = Lab()
    mark = MarkRow(7, 2, 3, CLUSTER)
    lab.disk.write([mark])
    if why is not None:
        begin_recovery(tmp_path, Recovery(why))
    assert markers.as_itself(tmp_path, lab.disk.load()).mark == (MarkRow(0, 0, 0) if is_forgotten else mark)
    lab.disk.write([MetaRow("cluster", CLUSTER)])
    assert markers.as_itself(tmp_path, lab.disk.load()).mark == mark


def test_a_garbled_marker_is_no_licence(tmp_path: Path) -> None:
    """Whatever it said, something may be lost."""
    (tmp_path / RECOVERED_FILE).write_text("alone\n")
    with pytest.raises(StartRefused, match="salvage"):
        markers.opened_generation(tmp_path, Lab().disk.load(), NODE)
