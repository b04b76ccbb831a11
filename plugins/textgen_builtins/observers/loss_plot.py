"""A line plot of losses as an SVG for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 24, 52
_STYLE: Final = """
  svg { color-scheme: light dark; font: 13px system-ui, sans-serif; background: #ffffff; }
  text { fill: #333333; } .grid { stroke: #e3e3e3; } .axis { stroke: #777777; }
  path { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .training { stroke: #1f6fb5; } .validation { stroke: #c4510d; }
  circle.training, text.training { fill: #1f6fb5; stroke: none; }
  circle.validation, text.validation { fill: #c4510d; stroke: none; }
  @media (prefers-color-scheme: dark) {
    svg { background: #1b1d21; } text { fill: #d6d6d6; } .grid { stroke: #34373d; } .axis { stroke: #8a8a8a; }
    .training { stroke: #6cb2ee; } .validation { stroke: #f2955c; }
    circle.training, text.training { fill: #6cb2ee; } circle.validation, text.validation { fill: #f2955c; }
  }
"""


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """The SVG for the rows of a metrics.jsonl: loss in nats per token by step."""
    series = {name: _points(rows, f"{name}_loss") for name in ("training", "validation")}
    values = [y for points in series.values() for _, y in points]
    if not values:
        return _document("")
    last = max(row["step"] for row in rows)
    x_ticks = ticks(0, last, 6)
    y_ticks = ticks(min(values), max(values), 6, outward=True)
    x_span, y_low, y_high = max(last, x_ticks[-1]), y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * x / x_span,
            TOP + (HEIGHT - TOP - BOTTOM) * (y_high - y) / (y_high - y_low),
        )

    parts = [*_axes(x_ticks, y_ticks, place)]
    label_heights: list[float] = []
    for name, points in series.items():
        if points:
            placed = [place(x, y) for x, y in points]
            parts.append(f'<path class="{name}" d="M{" L".join(f"{x:.1f},{y:.1f}" for x, y in placed)}"/>')
            x, y = placed[-1]
            height = y + 4
            if label_heights and abs(height - label_heights[0]) < 16:  # keep the second label off the first
                height = label_heights[0] + math.copysign(16, height - label_heights[0])
            label_heights.append(height)
            best = min(points, key=lambda point: point[1])
            if name == "validation" and best != points[-1]:
                x, y = place(*best)
                parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
                parts.append(
                    f'<text class="{name}" x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">best {best[1]:.3f}</text>'
                )
                x, y = placed[-1]
            parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
            parts.append(f'<text class="{name}" x="{x + 9:.1f}" y="{height:.1f}">{name} {points[-1][1]:.3f}</text>')
    return _document("\n  ".join(parts))


def _axes(x_ticks: list[float], y_ticks: list[float], place: Any) -> list[str]:
    parts = []
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for tick in y_ticks:
        y = place(0, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x = place(tick, y_ticks[0])[0]
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{tick:,g}</text>')
    middle = (TOP + bottom) / 2
    return [
        *parts,
        f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}"/>',
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">step</text>',
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">'
        "loss (nats per token)</text>",
    ]


def ticks(low: float, high: float, count: int, *, outward: bool = False) -> list[float]:
    """Round numbers from `low` to `high`; with `outward`, also the next round number at both ends."""
    span = (high - low) or max(abs(high), 1.0)
    raw = span / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    size = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw)
    first = math.floor(low / size) if outward else math.ceil(low / size)
    last = math.ceil(high / size) if outward else math.floor(high / size)
    return [round(i * size, 10) for i in range(first, max(last, first + 1) + 1)]


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in rows if row[key] is not None and math.isfinite(row[key])]


def _document(body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="training and validation loss by step">\n  <style>{_STYLE}</style>\n  {body}\n</svg>\n'
    )
