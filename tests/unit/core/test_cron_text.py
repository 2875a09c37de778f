"""The text of a cron expression: what is accepted, how it is written back, and where each fault is found."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcron.core.cron_fields import FIELDS
from meshcron.core.cron_text import read_fields
from meshcron.errors import InvalidSchedule

PLAIN = [
    ("* * * * *", "0 * * * * *"),
    ("30 5 1 1 0", "0 30 5 1 1 0"),
    ("15 30 5 1 1 0", "15 30 5 1 1 0"),
    ("\t5  4 \t* * *", "0 5 4 * * *"),
    ("? ? ? ? ? ?", "* * * * * *"),
    ("*/1 0-59/1 * */1 * */1", "* 0-59 * * * *"),
    ("5,*,7 * * * *", "0 * * * * *"),
    ("5,5,05,005 * * * *", "0 5 * * * *"),
    ("7-7 * * * *", "0 7 * * * *"),
    ("5-5/10 50/15 */24 1-9/8 * *", "5 50 0 1-9/8 * *"),
    ("5/15 * * * *", "0 5-59/15 * * * *"),
    ("*/60 */24 */31 */12 */7", "0 0 0 1 1 0"),
    ("0 0 * jan,Feb-APR,DEC mon", "0 0 0 * 1,2-4,12 1"),
    ("0 0 * * 7", "0 0 0 * * 0"),
    ("0 0 * * 5-7", "0 0 0 * * 5-7"),
    ("0 0 * * FRI-SUN", "0 0 0 * * 5-7"),
    ("0 0 * * SUN-TUE", "0 0 0 * * 0-2"),
    ("0 0 * * SUN-SUN", "0 0 0 * * 0"),
    ("0 0 * * 0-7", "0 0 0 * * 0-6"),
    ("0 0 * * 1-7/2", "0 0 0 * * 1-7/2"),
    ("0 0 * * MON/2", "0 0 0 * * 1-6/2"),
    ("0 0 * * 7/2,7-SUN", "0 0 0 * * 0"),
    ("0 0 * * fri#2,SUN#5,7#1", "0 0 0 * * 5#2,0#5,0#1"),
    ("0 0 * * 5L,L5,FRIL,lsun", "0 0 0 * * L5,L0"),
    ("0 0 L,15,l * *", "0 0 0 L,15 * *"),
    ("0 0 28-L * *", "0 0 0 28-31 * *"),
]

REFUSED = [
    ("60 * * * *", 1, "minute 60 is above 59", "0-59"),
    ("0 60 * * * *", 3, "minute 60 is above 59", "0-59"),
    ("* 24 * * *", 3, "hour 24 is above 23", "0-23"),
    ("* * 0 * *", 5, "day of month 0 is below 1", "1-31"),
    ("* * 32 * *", 5, "day of month 32 is above 31", "1-31"),
    ("* * * 13 *", 7, "month 13 is above 12", "1-12 or JAN-DEC"),
    ("* * * 1,0 *", 9, "month 0 is below 1", "1-12 or JAN-DEC"),
    ("* * * * 8", 9, "day of week 8 is above 7", "0-7 or SUN-SAT"),
    ("* * * * monday", 9, "'monday' is no day of week", "0-7 or SUN-SAT"),
    ("* * * MON *", 7, "'MON' is no month", "1-12 or JAN-DEC"),
    ("1-2,70 * * * *", 5, "minute 70 is above 59", "0-59"),
    ("10-5 * * * *", 1, "the range 10-5 runs backward", "write 10-59,0-5"),
    ("1,22-2 22-2 * * *", 3, "the range 22-2 runs backward", "write 22-59,0-2"),
    ("* * * * 6-0", 9, "the range 6-0 runs backward", "write 6-7,0"),
    ("* * * * FRI-MON", 9, "the range FRI-MON runs backward", "write 5-7,0-1"),
    ("1- * * * *", 3, "'' is no minute", "0-59"),
    ("-1 * * * *", 1, "'' is no minute", "0-59"),
    ("1-2-3 * * * *", 5, "a second - in one range", "0-59"),
    ("*/0 * * * *", 3, "a step of 0 never moves on", "1-60"),
    ("*/61 * * * *", 3, "the step 61 is above 60, the whole field minute", "1-60"),
    ("* */25 * * *", 5, "the step 25 is above 24, the whole field hour", "1-24"),
    ("*/ * * * *", 3, "the step '' of the field minute is no number", "1-60"),
    ("*/x * * * *", 3, "the step 'x' of the field minute is no number", "1-60"),
    ("*/5/5 * * * *", 5, "a second step in one item", "one / an item, such as */5"),
    ("/5 * * * *", 1, "an empty item in the field minute", "0-59"),
    (", * * * *", 1, "an empty item in the field minute", "0-59"),
    ("1,,2 * * * *", 3, "an empty item in the field minute", "0-59"),
    ("1,2, * * * *", 5, "an empty item in the field minute", "0-59"),
    ("** * * * *", 1, "'**' is no minute", "0-59"),
    ("*5 * * * *", 1, "'*5' is no minute", "0-59"),
    ("1.5 * * * *", 1, "'1.5' is no minute", "0-59"),
    ("+1 * * * *", 1, "'+1' is no minute", "0-59"),
    ("1_0 * * * *", 1, "'1_0' is no minute", "0-59"),
    ("\u0661 * * * *", 1, "'\u0661' is no minute", "0-59"),
    ("9" * 240 + " * * * *", 1, "minute " + "9" * 40 + "... is above 59", "0-59"),
    ("R * * * *", 1, "R is random: agents would disagree", "H spreads jobs by their names"),
    ("* R(0-5) * * *", 3, "R is random: agents would disagree", "H spreads jobs by their names"),
    ("* * 15W * *", 5, "W, the nearest weekday, is not known here", "1-31, or L for the last day of the month"),
    ("* * LW * *", 5, "W, the nearest weekday, is not known here", "1-31, or L for the last day of the month"),
    ("* * L-3 * *", 5, "'L' is no day of month", "1-31"),
    ("* * L/2 * *", 7, "L takes no step", ""),
    ("* L * * *", 3, "'L' is no hour", "0-23"),
    ("* * * * L", 9, "L alone is no day of week", "L5 is the last Friday of the month"),
    ("* * * * L8", 10, "day of week 8 is above 7", "0-7 or SUN-SAT"),
    ("* * * * L5/2", 12, "L5 takes no step", ""),
    ("* * * * MON#6", 13, "'MON#6': after # comes which one of the month", "1-5, such as FRI#2"),
    ("* * * * MON#", 13, "'MON#': after # comes which one of the month", "1-5, such as FRI#2"),
    ("* * * * #2", 9, "'' is no day of week", "0-7 or SUN-SAT"),
    ("* * * * MON-FRI#2", 9, "'MON-FRI' is no day of week", "0-7 or SUN-SAT"),
    ("* * 1#2 * *", 5, "'1#2' is no day of month", "1-31"),
    ("H * * * *", 1, "H spreads jobs by their names, and there is no name here", "give the job's name"),
]

COUNT_HINT = "minute hour day-of-month month day-of-week; a sixth field, the seconds, goes first"
MISCOUNTED = [
    ("", 1, "5 or 6 fields are needed, not 0"),
    ("* * * *", 8, "5 or 6 fields are needed, not 4"),
    ("0 0 1 1 * * 2030", 13, "a seventh field, the year, is not known here"),
    ("* * * * * * * *", 13, "5 or 6 fields are needed, not 8"),
]


@pytest.mark.parametrize(("text", "plain"), PLAIN)
def test_the_plain_spelling(text: str, plain: str) -> None:
    """What people write is written back in one spelling, and that spelling reads as the same."""
    fields = read_fields(text)
    assert fields.text == plain
    assert read_fields(plain) == fields


@pytest.mark.parametrize(("text", "column", "why", "hint"), REFUSED)
def test_a_fault_is_named_and_found(text: str, column: int, why: str, hint: str) -> None:
    """Each refusal says what is wrong, what would do, and at which character."""
    with pytest.raises(InvalidSchedule) as refused:
        read_fields(text)
    assert (refused.value.column, refused.value.why, refused.value.hint) == (column, why, hint)
    assert refused.value.field == "schedule"


@pytest.mark.parametrize(("text", "column", "why"), MISCOUNTED)
def test_the_number_of_fields(text: str, column: int, why: str) -> None:
    """Four fields point behind the last, seven at the year, more at the first that is too many."""
    with pytest.raises(InvalidSchedule) as refused:
        read_fields(text)
    assert (refused.value.column, refused.value.why, refused.value.hint) == (column, why, COUNT_HINT)


def test_columns_count_from_where_the_fields_begin() -> None:
    """Behind a prefix of 20 characters, a fault in the first character of the fields is in column 21."""
    with pytest.raises(InvalidSchedule) as refused:
        read_fields("60 * * * *", 21)
    assert refused.value.column == 21


def test_h_is_stable() -> None:
    """The numbers of a name are part of the product: were they to change, every spread job would move."""
    assert read_fields("H H H H H H", name="backup").text == "42 2 15 4 1 0"
    assert read_fields("~ ~ ~ ~ ~ ~", name="backup").text == read_fields("h H ~ H h H", name="backup").text
    assert read_fields("H H * * *", name="na\u00efve \ud800").fixed_time


def test_h_spreads() -> None:
    """A thousand names fill every minute, at most thrice the mean in one; no day is above 28."""
    plain = [read_fields("H H H * *", name=f"job-{number}").text.split() for number in range(1000)]
    minutes = Counter(int(fields[1]) for fields in plain)
    assert set(minutes) == set(range(60))
    assert max(minutes.values()) < 3 * 1000 / 60
    assert {int(fields[3]) for fields in plain} == set(range(1, 29))
    assert {int(fields[2]) for fields in plain} == set(range(24))


@given(name=st.text(min_size=1, max_size=20), low=st.integers(0, 58), width=st.integers(0, 59), step=st.integers(1, 60))
@settings(max_examples=100, database=None)
def test_h_keeps_to_its_range(name: str, low: int, width: int, step: int) -> None:
    """`H(a-b)` is one number of a-b; with a step it begins within the first step and reaches to the end."""
    high = min(low + width, 59)
    (part,) = read_fields(f"H({low}-{high}) * * * *", name=name).minute
    assert low <= part.values[0] <= high
    assert len(part.values) == 1
    (part,) = read_fields(f"H({low}-{high})/{step} * * * *", name=name).minute
    assert low <= part.values[0] < low + step
    assert part.values == tuple(range(part.values[0], high + 1, step))


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("H(5) * * * *", 1, "'H(5)' is no minute"),
        ("H() * * * *", 1, "'H()' is no minute"),
        ("H(0-60) * * * *", 5, "minute 60 is above 59"),
        ("H(9-3) * * * *", 3, "the range 9-3 runs backward"),
        ("H-5 * * * *", 1, "'H-5' is no minute"),
        ("H/0 * * * *", 3, "a step of 0 never moves on"),
        ("~5 * * * *", 1, "'~5' is no minute"),
        ("0~30 * * * *", 1, "'0~30' is no minute"),
    ],
)
def test_a_wrong_h(text: str, column: int, why: str) -> None:
    """The faults inside the brackets of `H` have their columns, too."""
    with pytest.raises(InvalidSchedule) as refused:
        read_fields(text, name="job")
    assert (refused.value.column, refused.value.why) == (column, why)


def items(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    base = st.one_of(st.just("*"), st.just("H"), number.map(str), ranges)
    step = st.one_of(st.just(""), st.integers(1, high - low + 1).map(lambda count: f"/{count}"))
    return st.lists(st.tuples(base, step).map("".join), min_size=1, max_size=3).map(",".join)


@given(texts=st.tuples(*(items(field.low, field.high) for field in FIELDS)), name=st.text(min_size=1, max_size=5))
@settings(max_examples=200, database=None)
def test_the_plain_spelling_is_complete(texts: tuple[str, ...], name: str) -> None:
    """Whatever is accepted, its plain spelling alone, without the name, says all of it."""
    fields = read_fields(" ".join(texts), name=name)
    assert read_fields(fields.text) == fields
    assert read_fields(fields.text).patterns() == fields.patterns()
