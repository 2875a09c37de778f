"""Who belongs to whom in a table of processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from meshcron.runtime import process_table
from meshcron.runtime.process_table import (
    ProcessStat,
    Quarry,
    Table,
    hears_by_default,
    is_trampoline,
    parse_stat,
    process_stat,
)

AGENT = os.getpid()
TRAMPOLINE = 5_000_000  # above any pid the kernel gives: /proc knows nothing of these
QUARRY = Quarry(TRAMPOLINE, 100, (0, 0), b"")


def stat(pid: int, parent: int, session: int, start: int = 100, state: str = "S") -> ProcessStat:
    return ProcessStat(TRAMPOLINE + pid, state, TRAMPOLINE + parent, TRAMPOLINE + session, start)


def family(*stats: ProcessStat, known: tuple[ProcessStat, ...] = ()) -> set[int]:
    return {stat.pid - TRAMPOLINE for stat in Table(stats).family(QUARRY, known)}


def test_a_line_is_read_whatever_the_name_in_it() -> None:
    """Names hold brackets and spaces; the fields are counted from the last bracket."""
    line = b"42 (a) R (b c) S 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 1"
    assert parse_stat(line) == ProcessStat(42, "S", 7, 40, 12345)


def test_this_process_is_in_the_table() -> None:
    """What the kernel says of us is what we know of ourselves."""
    own = process_stat(AGENT)
    assert own
    assert (own.pid, own.parent, own.session) == (AGENT, os.getppid(), os.getsid(0))
    assert process_stat(TRAMPOLINE) is None


def test_a_session_and_all_its_descendants_are_family() -> None:
    """Also those that left the session, as long as the line of parents holds."""
    members = [stat(0, -1, 0), stat(1, 0, 0), stat(2, 1, 2), stat(3, 2, 2), stat(4, 3, 4)]
    strangers = [stat(7, -1, 7), stat(8, 7, 7)]
    assert family(*members, *strangers) == {0, 1, 2, 3, 4}


def test_what_was_known_stays_family() -> None:
    """Its parent is gone and nothing leads to it: it was seen before, and its children with it."""
    orphan, child = stat(2, -1, 2), stat(3, 2, 2)
    assert family(orphan, child) == set()
    assert family(orphan, child, known=(orphan,)) == {2, 3}


def test_a_number_used_again_is_no_family() -> None:
    """The same pid with another start is another process; so is one older than the trampoline, and a zombie is none."""
    known = stat(2, -1, 2)
    assert family(stat(2, -1, 2, start=200), known=(known,)) == set()
    assert family(stat(0, -1, 0, start=99)) == set()
    assert family(stat(0, -1, 0, state="Z")) == set()


def test_the_agent_is_never_family() -> None:
    """Whatever the table says, the agent and its session are not to be killed."""
    own = process_stat(AGENT)
    assert own
    assert not Table([own, stat(0, -1, 0)]).family(Quarry(TRAMPOLINE, 0, (0, 0), b""), [own]) & {own}


@pytest.mark.parametrize("words", [[b""], []], ids=["no words", "gone"])
def test_a_trampoline_in_its_exec_is_known_by_its_status_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[bytes]
) -> None:
    """The kernel shows no arguments until an exec is through; then they must name the folder as well."""
    folder = tmp_path / "open" / "a"
    folder.mkdir(parents=True)
    (folder.parent / "b").mkdir()
    (folder.parent / "b" / "status").touch()
    with (
        (folder / "status").open("ab") as status,
        subprocess.Popen(["sleep", "60"], stderr=status, start_new_session=True) as process,
    ):
        try:
            while not any(process_table._words(process.pid)):
                pass  # still in its exec
            assert not is_trampoline(process.pid, str(folder))
            monkeypatch.setattr(process_table, "_words", lambda _: words)
            assert is_trampoline(process.pid, str(folder))
            assert not is_trampoline(process.pid, str(folder.parent / "b"))
            assert Table.taken().trampolines(f"{folder.parent}/") == {str(folder): process.pid}
        finally:
            process.kill()


@pytest.mark.parametrize(("pid", "answer"), [(TRAMPOLINE, False), (AGENT, False)], ids=["nobody", "this process"])
def test_who_dies_of_a_signal(pid: int, answer: bool) -> None:
    """Nobody there does not; Python, which catches INT, does not either."""
    assert hears_by_default(pid, 2) is answer


def test_who_does_not_care_about_a_signal() -> None:
    """A test runner has no handler for USR2 and would die of it."""
    assert hears_by_default(AGENT, 12)
