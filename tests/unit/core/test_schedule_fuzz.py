"""No text crashes, hangs or costs much, whatever it is."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcron.core.schedule import Calendar, Schedule, check_fires, explain, parse
from meshcron.errors import InvalidSchedule

NOW_US = 1_780_000_000_000_000
CPU_MS_MAX = 10
SEARCHES_MAX = 18  # one, one more over an overlap, and one for each of sixteen gaps in a row

ZONES = ["", "UTC", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "Europe", "x\0y"]
CRUMBS = [
    *("*", "*", "*", "?", "0", "2", "5", "7", "30", "59", "60", "61", "99999999999999999999", "-", "-", "/", "/", ","),
    *(",", "#", "L", "W", "H", "~", "R", "(", ")", "MON", "SUN", "FRI", "FEB", "2-7", "*/5", "1-59/7", "SUN#2", "L5"),
    *("1#5", "H(1-5)/2", " ", " ", " ", "\t", "@", "@every ", "@at ", "@daily", "TZ=", "CRON_TZ=", "Europe/Berlin "),
    *(
        "America/New_York ",
        "1h",
        "30m",
        ".5",
        "ns",
        "2030-01-31T18:00:00",
        "Z",
        "+01:00",
        "\n",
        "\0",
        "\u0665",
        "\ud800",
    ),
]
FIELD = st.one_of(
    st.sampled_from(["*", "*", "?", "0", "2", "*/10", "1-5", "SUN#2", "MON#5", "L", "L5", "29", "30", "31", "3", "H"]),
    st.lists(st.sampled_from(CRUMBS), min_size=1, max_size=6).map("".join),
)
CLOCK = st.sampled_from(["*", "0", "2", "*/10", "1-5", "H", "~/7", "0,2,5-9/2", "?", "*/24"])
SOUND = st.tuples(
    st.sampled_from(["", "", "TZ=America/New_York ", "CRON_TZ=America/Havana "]),
    st.sampled_from(["", "", "0 ", "*/20 ", "7,11 ", "* "]),
    st.tuples(
        CLOCK,
        CLOCK,
        st.sampled_from(["*", "*", "L", "29", "30", "31", "8-14", "*/2", "1,L", "H"]),
        st.sampled_from(["*", "*", "2", "2,4", "MAR", "NOV", "H"]),
        st.sampled_from(["*", "*", "SUN#2", "SUN#1", "MON#5", "MON#5,7", "L0", "MON-FRI", "FRI-SUN", "0-7/2"]),
    ).map(" ".join),
).map("".join)
TEXTS = st.one_of(
    SOUND,
    st.lists(FIELD, min_size=4, max_size=7).map(" ".join),
    st.lists(st.sampled_from(CRUMBS), max_size=40).map("".join),
    st.text(max_size=300),
)

WORST = [
    *("," * 256, "1," * 128, "*/" * 128, "-" * 256, "(" * 256, "#" * 256, "H(" * 128, "9" * 256, " " * 256, "\t" * 256),
    *("@" * 256, "@every " + "1h" * 124, "@every " + "9" * 249, "@every " + "." * 249, "@every 1" + "0" * 240 + "h"),
    *("@every 0." + "0" * 240 + "1h", "TZ=" * 85, "TZ=" + "A/" * 120 + " * * * * *", "TZ=europe/belrin * * * * *"),
    "@at " + "9" * 252,
    "@at 2030-01-31T18:00:00." + "0" * 230 + "1Z",
    ",".join(str(n) for n in range(60))[:150] + " * * * *",
    "0 0 * * " + ",".join(f"{day}#{nth}" for day in range(7) for nth in range(1, 6)),
    "0 0 1," + "L," * 50 + "2 * " + ",".join(f"L{day}" for day in range(7)),
    "0 0 * 2 MON#5",
    "59 59 23 31 12 *",
    "59 59 23 29 2 *",
    "0 0 30 2 *",
    "0 0 30 2 MON#5",
    "0 0 30,31 2 " + ",".join(["MON#5"] * 40),
    "TZ=America/New_York */10 2 * 3 SUN#2",
    "TZ=America/New_York 1-59/2,*/2 2 * 3 SUN#2",
    "TZ=Australia/Lord_Howe */10 1-3 * 10 SUN#1",
    "TZ=Africa/Casablanca */7 2 29 2 *",
    "TZ=America/Havana */7 0 * 3 0#2",
]


def use(text: str, zone: str) -> Schedule | None:
    """What a save does with a text: read it, and check that it fires."""
    try:
        schedule = parse(text, timezone=zone, name="job", anchor_us=NOW_US)
        check_fires(schedule, NOW_US)
    except InvalidSchedule as refused:
        assert refused.why
        assert 0 <= refused.column <= len(text) + 1
        assert refused.field == "schedule" or (refused.field == "timezone" and refused.column == 0)
        str(refused).encode()  # fit for an answer
        return None
    return schedule


@given(text=TEXTS, zone=st.sampled_from(ZONES))
@settings(max_examples=1500, database=None)
def test_any_text(text: str, zone: str) -> None:
    """Refused with a reason and a column inside the text, or accepted, and then it answers everything in order: the
    work is bounded by the number of searches, none of which goes further than 50 years."""
    with patch.object(Calendar, "next", autospec=True, side_effect=Calendar.next) as asked:
        schedule = use(text, zone)
        assert asked.call_count <= SEARCHES_MAX
    if schedule is None:
        return
    assert schedule.text == text
    explained = explain(schedule, NOW_US, 3)
    assert explained.words
    assert list(explained.next_us) == sorted(set(explained.next_us))
    for tick in explained.next_us:
        assert tick > NOW_US
        assert tick % 1_000_000 == 0
        assert schedule.latest_before(tick, tick - 1) == tick
        assert schedule.latest_before(tick - 1, NOW_US) == max(
            (earlier for earlier in explained.next_us if earlier < tick), default=None
        )
    if explained.next_us:
        assert schedule.count_between(NOW_US, explained.next_us[-1], 3) == len(explained.next_us)


@pytest.mark.parametrize("text", WORST, ids=range(len(WORST)))
def test_the_worst_texts_are_answered(text: str) -> None:
    """The ones made to hurt are refused or accepted like any other."""
    with patch.object(Calendar, "next", autospec=True, side_effect=Calendar.next) as asked:
        use(text, "")
    assert asked.call_count <= SEARCHES_MAX


def cpu_ms(text: str, zone: str) -> float:
    start = time.process_time()
    use(text, zone)
    return (time.process_time() - start) * 1000


@pytest.mark.named
@given(text=st.sampled_from(WORST) | TEXTS, zone=st.sampled_from(ZONES))
@settings(max_examples=5000, database=None)
def test_cpu_of_any_text(text: str, zone: str) -> None:
    """At most 10 ms of CPU to refuse or accept, the best of three (a busy machine adds), after the tz data is read."""
    use("TZ=europe/berlin 0 0 * * *", "")
    assert min(cpu_ms(text, zone) for _ in range(3)) < CPU_MS_MAX, text


@pytest.mark.named
def test_cpu_of_the_worst_texts() -> None:
    """The same for the list, with the figures printed (-s)."""
    use("TZ=europe/berlin 0 0 * * *", "")
    costs = {text: min(cpu_ms(text, "") for _ in range(3)) for text in WORST}
    for text, cost in sorted(costs.items(), key=lambda item: -item[1])[:5]:
        print(f"{cost:6.2f} ms  {text[:60]!r}")
    assert max(costs.values()) < CPU_MS_MAX
