"""A plot as an SVG, by hand: some panels beside each other, the numbers across on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 46, 44

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .grid { stroke: #d1d9e0 }
  .line { fill: none; stroke-width: 2 }
  .a { stroke: #0969da; fill: #0969da } .b { stroke: #bc4c00; fill: #bc4c00 }
  path.a, path.b { fill: none } text.a, text.b { stroke: none }
  .paper { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .grid { stroke: #3d444d } .paper { fill: #0d1117 }
    .a { stroke: #58a6ff; fill: #58a6ff } .b { stroke: #f0883e; fill: #f0883e }
    path.a, path.b { fill: none }
  }
"""


@dataclass(frozen=True)
class Line:
    """Its name stands above its last point."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Two lines at most; `marks` are the numbers of the upright axis, lowest first."""

    title: str
    lines: Sequence[Line]
    marks: Sequence[float]
    logarithmic: bool

    def share(self, value: float) -> float:
        """Where a value lies between the lowest mark and the highest."""
        low, high = self.marks[0], self.marks[-1]
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


def drawn(panels: Sequence[Panel], across: Sequence[float], unit: str) -> str:
    """The whole SVG, in the colours that the reader's page has."""
    width = WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img">',
        f"<title>{'; '.join(panel.title for panel in panels)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{HEIGHT}"/>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, across, unit, WIDTH * number)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, across: Sequence[float], unit: str, left: int) -> list[str]:
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    reach = math.log(across[-1] / across[0])

    def x(value: float) -> float:
        return round(left + LEFT + wide * math.log(value / across[0]) / reach, 1)

    def y(value: float) -> float:
        return round(TOP + high * (1 - panel.share(value)), 1)

    parts = [f'<text class="title" x="{left + LEFT}" y="24">{panel.title}</text>']
    for mark in panel.marks:
        parts.append(f'<path class="grid" d="M{x(across[0])} {y(mark)}H{x(across[-1])}"/>')
        parts.append(f'<text x="{left + LEFT - 8}" y="{y(mark) + 4}" text-anchor="end">{mark:,g}</text>')
    for value in across:
        said = f"{value:,g} {unit}" if value == across[-1] else f"{value:,g}"
        anchor = "end" if value == across[-1] else "middle"
        shift = 14 if value == across[-1] else 0
        parts.append(f'<text x="{x(value) + shift}" y="{HEIGHT - 20}" text-anchor="{anchor}">{said}</text>')
    for line, colour in zip(panel.lines, "ab", strict=False):
        way = "L".join(f"{x(one)} {y(value)}" for one, value in line.points)
        parts.append(f'<path class="line {colour}" d="M{way}"/>')
        parts += [f'<circle class="{colour}" cx="{x(one)}" cy="{y(value)}" r="3"/>' for one, value in line.points]
        at, value = line.points[-1]
        parts.append(f'<text class="{colour}" x="{x(at)}" y="{y(value) - 10}" text-anchor="end">{line.name}</text>')
    return parts
