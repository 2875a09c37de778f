"""What the trampoline writes down, and how it is read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.runtime.trampoline import Exit, Status, exit_of, job_script, parse_status, read_status

DIED_OF_KILL = 9
EXITED_3 = 3 << 8


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", Status(None, "")),
        (b"0 a\n", Status(0, "")),
        (b"Killed\n137 a\n", Status(137, "Killed")),
        (b"7 before\n3 a\n", Status(3, "")),
        (b"7 before\nTerminated\n143 a\n", Status(143, "Terminated")),
        (b"Killed\n137 before\n3 a\n", Status(3, "")),
        (b"7 before\n", Status(None, "")),
        (b"7 before\nsetpriv: no\n", Status(None, "setpriv: no")),
        (b"3 a", Status(None, "3 a")),
        (b"3 ab\n", Status(None, "")),
        (b"\xff\xfe\n3 a\n", Status(3, "\ufffd\ufffd")),
    ],
)
def test_only_a_whole_line_with_ones_own_id_is_an_end(data: bytes, status: Status) -> None:
    """A folder is used again: what an earlier execution wrote is passed over, a line half written is none."""
    assert parse_status(data, "a") == status


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    """A status file may hold anything: reading it never fails, and finds no end that is not there."""
    assert parse_status(data, "no-such-id").code is None


def test_a_long_file_is_read_from_its_end(tmp_path: Path) -> None:
    """Only the end of a much used file matters; none at all says nothing."""
    path = tmp_path / "status"
    assert read_status(path, "a") == Status(None, "")
    path.write_text("".join(f"0 e{number}\n" for number in range(10_000)) + "Killed\n137 a\n")
    assert read_status(path, "a") == Status(137, "Killed")


@pytest.mark.parametrize(
    ("waited", "status", "reports", "how"),
    [
        (0, Status(0, ""), True, Exit(0, None)),
        (EXITED_3, Status(3, ""), True, Exit(3, None)),
        (None, Status(3, ""), True, Exit(3, None)),
        (None, Status(137, "Killed"), True, Exit(None, 9)),
        (None, Status(137, ""), True, Exit(137, None)),
        (None, Status(137, ""), False, Exit(None, 9)),
        (None, Status(130, ""), True, Exit(None, 2)),
        (None, Status(141, ""), True, Exit(None, 13)),
        (None, Status(200, ""), False, Exit(200, None)),
        (None, Status(255, "odd"), False, Exit(255, None)),
        (None, Status(126, "cd: no such folder"), True, Exit(126, None)),
        (DIED_OF_KILL, Status(None, ""), True, Exit(None, 9)),
        (DIED_OF_KILL, Status(0, ""), True, Exit(None, 9)),
        (127 << 8, Status(None, "setpriv: no"), True, Exit(127, None)),
        (None, Status(None, ""), True, None),
        (None, Status(None, "half a li"), True, None),
    ],
)
def test_an_exit_is_told_from_a_death(waited: int | None, status: Status, reports: bool, how: Exit | None) -> None:
    """By the trampoline's own end where we saw it, else by its file; without either nobody knows."""
    assert exit_of(waited, status, reports) == how


@given(
    st.dictionaries(
        st.from_regex(r"V[A-Z_0-9]{0,9}", fullmatch=True), st.text(st.characters(codec="utf-8")), max_size=4
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
)
def test_any_value_and_word_survive_the_script(env: dict[str, str], word: str) -> None:
    """The script hands on what it was made of, whatever the shell thinks of the characters."""
    env = {name: value.replace("\0", "") for name, value in env.items()}
    script = job_script(env, ["/"], ["/usr/bin/env", "-0", f"LAST={word}"])
    done = subprocess.run(["/bin/sh"], input=script, stdout=subprocess.PIPE, env={}, check=True)
    pairs = {pair for pair in done.stdout.split(b"\0") if pair.startswith((b"V", b"LAST="))}
    assert pairs == {f"{name}={value}".encode() for name, value in (env | {"LAST": word}).items()}
