"""A cron expression in English words, by cron-descriptor, as far as it has them right."""

from __future__ import annotations

_SENTENCES_MAX = 8
"""Each costs 0.3 ms, and nobody reads the 42 that `1#1,1#2,...` can ask for."""


def cron_words(expression: str) -> str:
    """Words for the plain spelling of six fields (`CronFields.text`), the same on every machine whatever its locale."""
    second, minute, hour, day, month, weekday = expression.split(" ")
    clock = f"{minute} {hour}" if second == "0" else f"{second} {minute} {hour}"
    days = _alternatives(day, month, weekday)
    first, *others = [_sentence(f"{clock} {day}") for day in days[:_SENTENCES_MAX]]
    unsaid = [f"on {len(days) - _SENTENCES_MAX} other kinds of day"] if len(days) > _SENTENCES_MAX else []
    return ", or ".join([first, *(other[0].lower() + other[1:] for other in others), *unsaid])


def _sentence(expression: str) -> str:
    from cron_descriptor import ExpressionDescriptor, Options  # noqa: PLC0415 - 1 MiB for whoever asks for words

    options = Options(locale_code="en_US", use_24hour_time_format=True)
    return str(ExpressionDescriptor(expression, options).get_description())


def _alternatives(day: str, month: str, weekday: str) -> list[str]:
    """A sentence for each day that will do. cron-descriptor leaves out the "or" between day of month and some days of
    week, and garbles `L` and `#` in a list (`1#1,5#2`: "on the  Monday and Friday of the month")."""
    days = [] if day == "*" else [f"{item} {month} *" for item in _apart(day)]
    weekdays = [] if weekday == "*" else [f"* {month} {item}" for item in _apart(weekday)]
    return days + weekdays or [f"* {month} *"]


def _apart(field: str) -> list[str]:
    """The plain items of a list together, each other one alone; `L5` as cron-descriptor wants it, `5L`."""
    items = [f"{item[1:]}L" if item.startswith("L") else item for item in field.split(",")]
    plain = [item for item in items if "L" not in item and "#" not in item]
    return ([",".join(plain)] if plain else []) + [item for item in items if item not in plain]
