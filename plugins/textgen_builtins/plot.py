"""Losses by step as SVG: axes and their style, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final

import attrs

LEFT, TOP, BOTTOM = 76, 24, 52
_TICKS: Final = 6  # about as many on an axis
_STYLE: Final = """
  svg.curves { color-scheme: light dark; font: 13px system-ui, sans-serif; background: #ffffff; }
  .curves text { fill: #333333; } .curves .grid { stroke: #e3e3e3; } .curves .axis { stroke: #777777; }
  .curves path { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .curves .leader { stroke-width: 1; opacity: 0.55; }
"""
_DARK_STYLE: Final = """
    svg.curves { background: #1b1d21; } .curves text { fill: #d6d6d6; }
    .curves .grid { stroke: #34373d; } .curves .axis { stroke: #8a8a8a; }
"""


@attrs.frozen(slots=False)
class Axes:
    """Axes for steps up to `last` and losses from `low` to `high`, with `room` for names at their right."""

    width: int
    height: int
    room: int
    last: float
    low: float
    high: float

    @cached_property
    def _x_ticks(self) -> list[float]:
        return ticks(0, self.last, _TICKS)

    @cached_property
    def _y_ticks(self) -> list[float]:
        return ticks(self.low, self.high, _TICKS, outward=True)

    @property
    def right(self) -> int:
        """Where the plot ends."""
        return self.width - self.room

    @property
    def bottom(self) -> int:
        """Where the axis of steps is."""
        return self.height - BOTTOM

    def place(self, step: float, loss: float) -> tuple[float, float]:
        """Where a point is; far outside the plot, only so far that a renderer can draw the line to it."""
        low, high = self._y_ticks[0], self._y_ticks[-1]
        x = LEFT + (self.right - LEFT) * step / max(self.last, self._x_ticks[-1])
        return x, TOP + (self.bottom - TOP) * min(max((high - loss) / (high - low), -1), 2)

    def line(self, points: Iterable[tuple[float, float]]) -> str:
        """The path through points of step and loss."""
        return "M" + " L".join(
            f"{x:.1f},{y:.1f}" for x, y in (self.place(*point) for point in points)
        )

    def parts(self, title: str) -> Iterator[str]:
        """The axes, with `title` at that of the losses."""
        for tick in self._y_ticks:
            y = self.place(0, tick)[1]
            yield f'<line class="grid" x1="{LEFT}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in self._x_ticks:
            x = self.place(tick, self.low)[0]
            yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{self.bottom}" y2="{self.bottom + 5}"/>'
            yield f'<text x="{x:.1f}" y="{self.bottom + 19}" text-anchor="middle">{tick:,g}</text>'
        middle = (TOP + self.bottom) / 2
        yield f'<line class="axis" x1="{LEFT}" x2="{self.right}" y1="{self.bottom}" y2="{self.bottom}"/>'
        yield f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{self.bottom}"/>'
        yield f'<text x="{(LEFT + self.right) / 2}" y="{self.height - 12}" text-anchor="middle">step</text>'
        yield f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{title}</text>'


def ticks(low: float, high: float, count: int, *, outward: bool = False) -> list[float]:
    """Round numbers from `low` to `high`; with `outward`, also the next round number at both ends."""
    span = (high - low) or max(abs(high), 1.0)
    raw = span / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    size = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw)
    first = math.floor(low / size) if outward else math.ceil(low / size)
    last = math.ceil(high / size) if outward else math.floor(high / size)
    return [round(i * size, 10) for i in range(first, max(last, first + 1) + 1)]


def document(
    width: int,
    height: int,
    label: str,
    parts: Iterable[str],
    light: str = "",
    dark: str = "",
    mark: str = "",
) -> str:
    """The SVG, with rules of its own for the style of light and of dark pages."""
    body = "\n  ".join(parts)
    style = f"{_STYLE}{light}\n  @media (prefers-color-scheme: dark) {{{_DARK_STYLE}{dark}\n  }}\n"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{label}">{mark}\n  <style>{style}</style>\n  {body}\n</svg>\n'
    )
