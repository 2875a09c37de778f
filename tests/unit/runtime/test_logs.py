"""Lines of the agent's log, and what becomes of those that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from meshcron.runtime.logs import LogFile, configure_logs

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
    yield
    structlog.reset_defaults()


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


def test_configured_here() -> None:
    """The level is a filter from now on."""
    configure_logs("error", "text")
    assert not structlog.get_logger().is_enabled_for(30)
