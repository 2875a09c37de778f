"""Lines of the agent's log, and what becomes of those that cannot be written."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pty
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from meshcron.runtime import logs
from meshcron.runtime.logs import NOTICE, LogFile, configure_logs, without_waiting

SCRIPT = """
import structlog
from meshcron.runtime.logs import configure_logs
configure_logs({level!r}, {form!r})
log = structlog.get_logger("meshcron")
log.info("quiet")
log.warning("l\\u00e4ut \\udcff", code=7)
print("went on")
"""


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    before = logging.lastResort
    yield
    structlog.reset_defaults()
    logging.lastResort = before


def run(level: str, form: str, stderr: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(level=level, form=form)], stdout=subprocess.PIPE, stderr=stderr, check=True
    )


def test_json_is_one_object_a_line() -> None:
    """With level and time; whatever letters it holds."""
    done = run("info", "json", subprocess.PIPE)
    quiet, loud = (json.loads(line) for line in done.stderr.splitlines())
    assert (quiet["event"], quiet["level"]) == ("quiet", "info")
    assert (loud["level"], loud["code"]) == ("warning", 7)
    assert loud["timestamp"].endswith("Z")


def test_text_leaves_out_what_is_less_serious() -> None:
    """A line for people."""
    lines = run("warning", "text", subprocess.PIPE).stderr.decode().splitlines()
    assert len(lines) == 1
    assert "l\u00e4ut" in lines[0]
    assert "code" in lines[0]


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    """The disk under it is full: the line is lost, the agent goes on."""
    with Path("/dev/full").open("wb") as full:
        assert run("info", "text", full.fileno()).stdout == b"went on\n"


def test_a_reader_that_went_ends_nothing() -> None:
    """A pipe or terminal that was closed, and a descriptor that is none."""
    reader, writer = os.pipe()
    os.close(reader)
    assert LogFile(writer).write("line\n") == 5
    os.close(writer)
    assert LogFile(writer).write("line\n") == 5


def read_all(fd: int) -> bytes:
    """What has been written; a terminal hands it over in pieces, one soon after the other."""
    pieces = []
    while select.select([fd], [], [], 0.2)[0]:
        pieces.append(os.read(fd, 1 << 20))
    return b"".join(pieces)


@pytest.mark.parametrize("open_pair", [os.pipe, pty.openpty, socket.socketpair], ids=["pipe", "terminal", "socket"])
def test_a_reader_that_stalls_holds_nobody_up(open_pair: Callable[[], tuple[Any, Any]]) -> None:
    """Lines that find no room are lost, and it is said how many once there is room again."""
    ends = open_pair()
    reader, writer = (os.dup(end if isinstance(end, int) else end.fileno()) for end in ends)
    file = LogFile(without_waiting(writer), lambda lost: f"{lost} lost\n")
    line = "x" * 150 + "\n"
    for _ in range(5_000):
        file.write(line)
    seen = read_all(reader)
    file.write("and on\n")
    seen += read_all(reader)
    file.write("and on\n")
    assert read_all(reader).split() == [b"and", b"on"]
    lines = seen.decode().split()
    kept = lines.count(line.strip())
    told = [int(before) for before, word in itertools.pairwise(lines) if word == "lost"]
    assert kept > 50
    # A line counts as lost also where only its end is. A terminal may find room once more by itself.
    assert sum(told) in (5_000 - kept, 5_000 - kept + len(told))
    assert seen.replace(b"\r", b"").endswith(b" lost\nand on\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_lost_lines_are_told_in_the_form_of_the_log(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a warning with a time, like any other line."""
    reader, writer = os.pipe()
    monkeypatch.setattr(logs, "STDERR_FD", writer)
    configure_logs("info", form)
    log = structlog.get_logger()
    for number in range(1000):
        log.info("x" * 150, number=number)
    kept = read_all(reader).count(b"\n")
    log.info("and on")
    told, last = read_all(reader).decode().splitlines()[-2:]
    assert "and on" in last
    assert "warning" in told
    assert NOTICE in told
    if form == "json":
        assert json.loads(told)["lines_lost"] == 1000 - kept


def test_what_libraries_log_waits_for_nobody_either() -> None:
    """It takes the same way."""
    configure_logs("info", "text")
    handler = logging.lastResort
    assert isinstance(handler, logging.StreamHandler)
    assert isinstance(handler.stream, LogFile)
    assert handler.level == logging.WARNING


def test_configured_here() -> None:
    """The level is a filter from now on."""
    configure_logs("error", "text")
    assert not structlog.get_logger().is_enabled_for(30)
