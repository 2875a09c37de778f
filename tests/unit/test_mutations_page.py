"""The table of docs/SIMULATION.md is true: each rule that is taken out stands there, with the story that breaks, and no
other."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.simulation import test_elections as elections
from tests.simulation.test_mutations import MUTATIONS

PAGE = Path(__file__).parents[2] / "docs" / "SIMULATION.md"
TABLE = PAGE.read_text(encoding="utf-8").partition("| rule | taken out | what broke | by |\n")[2].partition("\n\n")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE.splitlines()[1:]]
"""Their four cells."""


def name_of(story: Callable[..., None]) -> str:
    """What a story is called where it is told: a function, or a file of data/."""
    if not isinstance(story, partial):
        return story.__name__
    if story.func is elections.tell:
        return str(story.args[0])
    return name_of(next((one for one in story.args if callable(one)), story.func))


def test_each_rule_stands_there_with_its_story() -> None:
    """By the mutation's own name; the last cell has no other name in backticks."""
    told = {(rule, *re.findall(r"`(\w+)`", by)) for rule, _, _, by in ROWS}
    taken_out = {(one.rule, name_of(one.story)) for one in MUTATIONS}
    assert sorted(told - taken_out) == [], "no such mutation"
    assert sorted(taken_out - told) == [], "not in the table"


def test_each_rule_stands_there_once() -> None:
    """On the page and in the code."""
    rules = [rule for rule, *_ in ROWS]
    assert len(rules) == len(set(rules)) == len(MUTATIONS)


def test_a_story_is_named_as_it_is_told() -> None:
    """Whatever it is told with."""

    def aside(story: Callable[[int], None], seconds: int) -> None:
        story(seconds)

    def story(seconds: int) -> None:
        """Never told."""

    assert name_of(elections.tell) == "tell"
    assert name_of(partial(elections.tell, "figure_8")) == "figure_8"
    assert name_of(partial(story, seconds=1)) == "story"
    assert name_of(partial(aside, story, 1)) == "story"
