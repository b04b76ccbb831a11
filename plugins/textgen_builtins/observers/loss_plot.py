"""The losses of one run by step as an SVG for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from textgen_builtins.plot import Axes, document

WIDTH, HEIGHT, ROOM = 720, 440, 150
_LABEL_HEIGHT: Final = 16
_COLOURS: Final = """  .curves .training { stroke: %s; } .curves .validation { stroke: %s; }
  .curves circle.training, .curves text.training { fill: %s; stroke: none; }
  .curves circle.validation, .curves text.validation { fill: %s; stroke: none; }"""
_LIGHT: Final = _COLOURS % (("#1f6fb5", "#c4510d") * 2)
_DARK: Final = _COLOURS % (("#6cb2ee", "#f2955c") * 2)


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """The SVG for the rows of a metrics.jsonl: loss in nats per token by step."""
    series = {name: _points(rows, f"{name}_loss") for name in ("training", "validation")}
    values = [loss for points in series.values() for _, loss in points]
    parts: list[str] = []
    if values:
        axes = Axes(WIDTH, HEIGHT, ROOM, max(row["step"] for row in rows), min(values), max(values))
        parts += axes.parts("loss (nats per token)")
        label_heights: list[float] = []
        for name, points in series.items():
            if points:
                parts += _drawn(name, points, axes, label_heights)
    return document(WIDTH, HEIGHT, "training and validation loss by step", parts, _LIGHT, _DARK)


def _drawn(
    name: str, points: list[tuple[float, float]], axes: Axes, label_heights: list[float]
) -> list[str]:
    """A line, with its name and last loss off the names at `label_heights`, and the best of the held-out text."""
    parts = [f'<path class="{name}" d="{axes.line(points)}"/>']
    best = min(points, key=lambda point: point[1])
    if name == "validation" and best != points[-1]:
        x, y = axes.place(*best)
        parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(
            f'<text class="{name}" x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">best {best[1]:.3f}</text>'
        )
    x, y = axes.place(*points[-1])
    height = y + 4
    if label_heights and abs(height - label_heights[0]) < _LABEL_HEIGHT:
        height = label_heights[0] + math.copysign(_LABEL_HEIGHT, height - label_heights[0])
    label_heights.append(height)
    parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    parts.append(
        f'<text class="{name}" x="{x + 9:.1f}" y="{height:.1f}">{name} {points[-1][1]:.3f}</text>'
    )
    return parts


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [
        (row["step"], row[key]) for row in rows if row[key] is not None and math.isfinite(row[key])
    ]
