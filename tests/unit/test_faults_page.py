"""docs/FAULTS.md is true: each test it names is there, each that has a fault's number stands there, and each fault that
must have one has one with its number."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (\d+) \|(.*)\|$", (TESTS.parent / "docs" / "FAULTS.md").read_text(), re.MULTILINE)
NAMED = {int(number): re.findall(r"`([\w/]+\.py)::(\w+)`", cells) for number, cells in ROWS}

REQUIRED = frozenset({*range(1, 22), 24, 25, 28, *range(35, 41), 48})
"""What a first release promises; the page says of the others why they come later."""


def numbers(name: str) -> set[int]:
    """The faults that a test's name tells."""
    found = re.match(r"test_(\d+)_to_(\d+)_", name)
    if found:
        return set(range(int(found[1]), int(found[2]) + 1))
    found = re.match(r"test_((?:\d+_)+)", name)
    return {int(one) for one in found[1].strip("_").split("_")} if found else set()


def test_each_fault_stands_there_once() -> None:
    """In order."""
    told = [int(number) for number, _ in ROWS]
    assert told == [*range(1, 51)]


def test_each_test_that_it_names_is_there() -> None:
    """By file and name."""
    missing = [
        f"{file}::{name}"
        for tests in NAMED.values()
        for file, name in tests
        if not (TESTS / file).is_file() or f"def {name}(" not in (TESTS / file).read_text()
    ]
    assert missing == []


def test_what_is_required_has_a_test_that_names_its_number() -> None:
    """And no test that it names tells of another fault."""
    assert {one for one in REQUIRED if not any(one in numbers(name) for _, name in NAMED[one])} == set()
    assert [
        name for one, tests in NAMED.items() for _, name in tests if numbers(name) and one not in numbers(name)
    ] == []


def test_each_test_that_names_its_number_stands_there() -> None:
    """In the row of the fault; one that tells of several, in the row of one of them."""
    told = [
        (str(file.relative_to(TESTS)), name)
        for file in TESTS.rglob("test_*.py")
        if file != Path(__file__)
        for name in re.findall(r"^ *(?:async )?def (test_\d\w*)\(", file.read_text(), re.MULTILINE)
    ]
    assert len(told) > len(REQUIRED)
    unnamed = [test for test in told if not any(test in NAMED.get(one, []) for one in numbers(test[1]))]
    assert unnamed == []


def test_names_tell_numbers() -> None:
    """As they are written."""
    assert numbers("test_9_10_mute") == {9, 10}
    assert numbers("test_1_to_3_killed") == {1, 2, 3}
    assert numbers("test_mute") == set()
