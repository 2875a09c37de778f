"""What a figure is, and the table they are printed as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HEADINGS = ("figure", "measured", "goal", "limit in the same run", "met")


@dataclass(frozen=True)
class Figure:
    """One row. `met` None: it is a limit of the machine or a remark, with nothing to meet; or, with a goal, it was not
    measured."""

    name: str
    measured: str
    goal: str = ""
    limit: str = ""
    met: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        return self.name, self.measured, self.goal, self.limit, {None: "", True: "yes", False: "NO"}[self.met]


def unmeasured(name: str, goal: str, why: str) -> Figure:
    """A row that this machine does not allow to measure: neither met nor missed, but named."""
    return Figure(name, f"not measured: {why}", goal)


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table that also reads well as it is."""
    rows = [HEADINGS, *(figure.cells for figure in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    body = [line(row, widths) for row in rows]
    return "\n".join([body[0], line(["-" * width for width in widths], widths), *body[1:]])


def verdict(figures: Sequence[Figure]) -> str:
    judged = [figure for figure in figures if figure.met is not None]
    missed = [figure.name for figure in judged if not figure.met]
    unknown = [figure.name for figure in figures if figure.goal and figure.met is None]
    named = [f"{what}: {'; '.join(names)}" for what, names in (("not met", missed), ("not measured", unknown)) if names]
    return "; ".join([f"{len(judged) - len(missed)} of {len(judged)} met", *named])


def per_second(rate: float) -> str:
    return f"{rate:,.0f}/s"


def milliseconds(seconds: Iterable[float]) -> str:
    """`2.1 / 5.9 ms`."""
    return " / ".join(f"{each * 1e3:.1f}" for each in seconds) + " ms"


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value with at least this share of all at or below it."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
