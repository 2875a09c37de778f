"""The bounds of an output, and what of it is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.model import OUTPUT_TAIL_BYTES
from meshcron.runtime.output import OUTPUT_BYTES_MIN, OutputFile, Punch, punch_hole, read_output, tail_text

CAP = OUTPUT_BYTES_MIN


def refuse(_fd: int, _start: int, _length: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "no holes here")


@given(st.binary(max_size=3 * OUTPUT_TAIL_BYTES), st.booleans())
def test_a_tail_is_short_and_true(data: bytes, cut: bool) -> None:
    """At most 4 KiB as UTF-8, always text, and where it decodes, the end of what was written."""
    text = tail_text(data[-OUTPUT_TAIL_BYTES:], cut=cut)
    assert len(text.encode()) <= OUTPUT_TAIL_BYTES
    assert data.decode(errors="replace").endswith(text)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_a_tail_begins_with_a_character(piece: str) -> None:
    """Cut inside a character, the rest of it goes too: no replacement that was not there, at most 3 bytes less."""
    text = piece * OUTPUT_TAIL_BYTES
    data = text.encode()
    tail = tail_text(data[-OUTPUT_TAIL_BYTES:], cut=len(data) > OUTPUT_TAIL_BYTES)
    assert text.endswith(tail)
    assert len(tail.encode()) > OUTPUT_TAIL_BYTES - 4


def test_binary_output_keeps_a_shorter_end() -> None:
    """U+FFFD takes three bytes for one; stray continuation bytes are no cut character."""
    assert tail_text(b"\xff" * OUTPUT_TAIL_BYTES, cut=True) == "\ufffd" * (OUTPUT_TAIL_BYTES // 3)
    assert tail_text(b"\x80\x80\x80\x80", cut=False) == "\ufffd" * 4


@pytest.mark.parametrize("punch", [punch_hole, refuse], ids=["punched", "cut"])
@given(pieces=st.lists(st.integers(1, 3 * CAP), max_size=8), most=st.integers(CAP // 8, CAP))
def test_what_is_kept_is_true_wherever_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, punch: Punch, pieces: list[int], most: int
) -> None:
    """However it grows, with holes or without: small on disk, the head and the end of the stream as they were written,
    every byte accounted for, and the same found again by a later session."""
    path = tmp_path_factory.mktemp("output") / "output"
    file = OutputFile.open(str(path), CAP, punch)
    stream = bytes(i * 31 % 251 for i in range(sum(pieces)))
    written = 0
    with path.open("ab", buffering=0) as writer:
        for piece in pieces:
            writer.write(stream[written : written + piece])
            written += piece
            file.keep_bounded()
            assert path.stat().st_blocks * 512 <= CAP + 4096
    assert file.total_bytes == len(stream)
    assert file.tail() == tail_text(stream[-OUTPUT_TAIL_BYTES:], cut=len(stream) > OUTPUT_TAIL_BYTES)

    again = OutputFile.open(str(path), CAP, punch)
    assert (again.total_bytes, again.truncated) == (file.total_bytes, file.truncated)
    again.close()
    file.close()

    offset, ended = 0, False
    while not ended:
        before = offset
        data, offset, ended = read_output(path, before, most, CAP)
        if data.startswith(b"\n[meshcron: ") and data.endswith(b" bytes not kept]\n"):
            assert before >= CAP // 4
            assert offset <= len(stream) - CAP // 2
        else:
            assert data == stream[before:offset]
    assert offset == len(stream)


def test_reading_is_patient(tmp_path: Path) -> None:
    """No file, an empty one, an offset beyond the end, a silly amount: an empty part, and where to go on from."""
    path = tmp_path / "output"
    assert read_output(path, 5, 10, CAP) == (b"", 5, True)
    path.touch()
    assert read_output(path, 0, 10, CAP) == (b"", 0, True)
    path.write_bytes(b"abc")
    assert read_output(path, 7, 10, CAP) == (b"", 7, True)
    assert read_output(path, -7, 0, CAP) == (b"a", 1, False)


def test_a_file_that_was_cut_by_its_writer_is_looked_at_anew(tmp_path: Path) -> None:
    """`> /dev/stderr` after a hole was punched: the hole is gone with the rest."""
    path = tmp_path / "output"
    file = OutputFile.open(str(path), CAP)
    path.write_bytes(b"x" * 3 * CAP)
    assert file.keep_bounded()
    assert file.truncated
    path.write_bytes(b"anew")
    assert not file.keep_bounded()
    assert (file.total_bytes, file.truncated, file.tail()) == (4, False, "anew")
    file.close()


def test_an_error_that_is_no_answer_is_told(tmp_path: Path) -> None:
    """A disk error while punching is not taken for a file system without holes."""

    def fail(_fd: int, _start: int, _length: int) -> None:
        raise OSError(errno.EIO, "broken")

    path = tmp_path / "output"
    file = OutputFile.open(str(path), CAP, fail)
    path.write_bytes(b"x" * 3 * CAP)
    with pytest.raises(OSError, match="broken"):
        file.keep_bounded()
    file.close()


def test_writers_are_seen(tmp_path: Path) -> None:
    """Also one that only inherited the descriptor; readers do not count."""
    path = tmp_path / "output"
    file = OutputFile.open(str(path), CAP)
    seen: Callable[[], bool | None] = file.has_writers
    assert seen() is False
    writer = os.open(path, os.O_WRONLY | os.O_APPEND)
    heir = os.dup(writer)
    os.close(writer)
    assert seen() is True
    os.close(heir)
    assert seen() is False
    file.close()
