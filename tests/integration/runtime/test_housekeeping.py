"""Housekeeping among real outputs: what has no record goes, what an earlier session left is put away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshcron.model import Execution, Status
from meshcron.runtime.housekeeping import Housekeeping

Play = Callable[..., None]
Stage = Any


def record(execution_id: str, status: Status = Status.SUCCESS) -> Execution:
    return Execution(
        id=execution_id, uid=1, run_id="r", index=1, revision=1, attempt=1, trigger="schedule", scheduled_wall_us=0,
        due_cluster_us=0, start_by_cluster_us=0, status=status,
    )  # fmt: skip


def keeper(stage: Stage, records: dict[str, Execution], total_bytes_max: int = 10**9) -> Housekeeping:
    return Housekeeping(
        stage.processes,
        records.get,
        holds_log=lambda: True,
        recovered_wall_us=lambda: 0,
        orphan_age_us=0,
        total_bytes_max=total_bytes_max,
        wall_clock_us=lambda: 2 * 10**15,
    )


def sweep(keep: Housekeeping) -> None:
    for _ in keep.sweep():
        pass


def test_outputs_go_with_their_records(play: Play) -> None:
    """Of two that wrote something one is pruned; what runs, and what waits to be committed, is left alone."""

    async def story(stage: Stage) -> None:
        for name in ("kept", "pruned", "uncommitted"):
            await stage.run("echo hello", name)
        stage.processes.forget("kept")
        stage.processes.forget("pruned")
        await stage.started("echo hello; exec sleep 30", "runs")
        await stage.until(lambda: stage.processes.read_output("runs", 0, 9)[0])
        sweep(keeper(stage, {"kept": record("kept"), "runs": record("runs", Status.RUNNING)}))
        await stage.until(lambda: stage.processes.output_path("pruned") is None)
        for name in ("kept", "uncommitted", "runs"):
            assert stage.processes.read_output(name, 0, 9)[0] == b"hello\n"

    play(story)


def test_what_an_earlier_session_left_is_put_away(play: Play, tmp_path: Path) -> None:
    """It was killed between an outcome and its end: the output is kept, the folder serves again, or goes."""
    left = {"a": "hello\n", "b": "", "pruned": "hello\n"}
    for name, output in left.items():
        folder = tmp_path / "executions" / "open" / name
        folder.mkdir(parents=True)
        (folder / "output").write_text(output)
        (folder / "status").write_text(f"0 {name}\n")

    async def story(stage: Stage) -> None:
        sweep(keeper(stage, {name: record(name) for name in ("a", "b")}))
        await stage.until(lambda: not (tmp_path / "executions" / "open" / "pruned").exists())
        assert stage.processes.read_output("a", 0, 9)[0] == b"hello\n"
        assert (tmp_path / "executions" / "kept" / "a").exists()
        assert {remains.execution_id for remains in stage.processes.remains()} == {"a"}
        assert await stage.output("echo next", "next") == "next\n"
        folders = {path.name for path in (tmp_path / "executions" / "open").iterdir()}
        assert folders in ({"next", "a"}, {"next", "b"})

    play(story)


def test_over_the_cap_old_outputs_go(play: Play) -> None:
    """The disk gets its room back; the record, which is not ours, would still have the end of it."""

    async def story(stage: Stage) -> None:
        names = [f"e{number}" for number in range(5)]
        for name in names:
            await stage.run("head -c 100000 /dev/zero", name)
            stage.processes.forget(name)
        assert stage.processes.kept_bytes == 500_000
        sweep(keeper(stage, {name: record(name) for name in names}, total_bytes_max=300_000))
        await stage.until(lambda: sum(stage.processes.output_path(name) is not None for name in names) == 2)

    play(story)
