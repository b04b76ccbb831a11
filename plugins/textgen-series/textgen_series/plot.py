"""Forecasts as an SVG that suits light and dark pages: a panel for each number of steps ahead."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from textgen_series.report import Horizon, Report, Values

WIDTH, PANEL, GAP = 760, 150, 40
LEFT, RIGHT, TOP, BOTTOM = 58, 26, 62, 46
_STYLE: Final = """
  svg { color-scheme: light dark; font: 13px system-ui, sans-serif; background: #ffffff; }
  text { fill: #333333; } .title { font-weight: 600; }
  .grid { stroke: #e3e3e3; } .axis { stroke: #777777; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; } .actual { fill: #8a8a8a; }
  .model { stroke: #1f6fb5; } .band { fill: #1f6fb5; fill-opacity: 0.18; }
  .linear { stroke: #c4510d; stroke-dasharray: 6 4; }
  @media (prefers-color-scheme: dark) {
    svg { background: #1b1d21; } text { fill: #d6d6d6; }
    .grid { stroke: #34373d; } .axis { stroke: #8a8a8a; } .actual { fill: #9a9a9a; }
    .model { stroke: #6cb2ee; } .band { fill: #6cb2ee; fill-opacity: 0.25; }
    .linear { stroke: #f2955c; }
  }
"""


def draw(report: Report) -> str:
    """The SVG: held-out values as dots, both forecasts as lines, the model's band."""
    first, last = report.training + 1, len(report.values)
    x_ticks = _ticks(first, last, 8)
    held_out = report.values[report.training :]
    spread = float(np.ptp(held_out)) or 1.0
    y_ticks = _ticks(float(held_out.min()) - 0.1 * spread, float(held_out.max()) + 0.1 * spread, 6)
    low, high = y_ticks[0], y_ticks[-1]
    scale_x = (WIDTH - LEFT - RIGHT) / max(last - first, 1)
    height = TOP + len(report.horizons) * (PANEL + GAP) - GAP + BOTTOM
    parts = [
        _legend(report),
        f'<clipPath id="panel"><rect x="{LEFT}" y="0" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{PANEL}"/></clipPath>',
    ]
    for number, horizon in enumerate(report.horizons):

        def points(values: Values, horizon: Horizon = horizon) -> list[tuple[str, str]]:
            # A diverging forecast leaves the panel; renderers need no exact position far outside.
            y = np.clip(PANEL * (high - values) / (high - low), -PANEL, 2 * PANEL)
            x = LEFT + (horizon.targets + 1 - first) * scale_x
            return [(f"{a:.1f}", f"{b:.1f}") for a, b in zip(x, y, strict=True)]

        dots = "".join(f'<circle cx="{x}" cy="{y}" r="1.4"/>' for x, y in points(horizon.actual))
        band = _path(points(horizon.low) + points(horizon.high)[::-1])
        parts += [
            f'<g transform="translate(0 {TOP + number * (PANEL + GAP)})">',
            _title(horizon),
            *_axes(x_ticks, y_ticks, first, scale_x, labels=number == len(report.horizons) - 1),
            f'<g clip-path="url(#panel)"><path class="band" d="{band}Z"/>',
            f'<g class="actual">{dots}</g>',
            f'<path class="line linear" d="{_path(points(horizon.linear))}"/>',
            f'<path class="line model" d="{_path(points(horizon.fed_back))}"/></g>',
            "</g>",
        ]
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="forecasts of the held-out values">\n  '
        f"<style>{_STYLE}</style>\n  {body}\n</svg>\n"
    )


def _path(points: list[tuple[str, str]]) -> str:
    return "M" + " L".join(f"{x},{y}" for x, y in points)


def _title(horizon: Horizon) -> str:
    summary = horizon.summary()
    plural = "step" if horizon.k == 1 else "steps"
    return (
        f'<text x="{LEFT}" y="-9"><tspan class="title">{horizon.k} {plural} ahead</tspan>'
        f'<tspan dx="12">RMSE: model {summary["fed_back"]["rmse"]:.3f}, linear '
        f"{summary['linear']['rmse']:.3f}"
        "</tspan></text>"
    )


def _legend(report: Report) -> str:
    settings, y = report.settings, 20
    band = f"{settings.band:.0%} of {settings.samples} samples"
    line = '<path class="line {}" d="M{},{}h26"/>'
    text = '<text x="{}" y="24">{}</text>'
    return "".join(
        [
            f'<circle class="actual" cx="{LEFT + 10}" cy="{y}" r="2.5"/>'
            + text.format(LEFT + 20, "held out"),
            line.format("model", LEFT + 95, y) + text.format(LEFT + 127, "model, mean fed back"),
            f'<rect class="band" x="{LEFT + 315}" y="{y - 7}" width="26" height="14"/>'
            + text.format(LEFT + 347, band),
            line.format("linear", LEFT + 525, y)
            + text.format(LEFT + 557, f"linear, {settings.lags} lags"),
        ]
    )


def _axes(
    x_ticks: list[float], y_ticks: list[float], first: int, scale_x: float, *, labels: bool
) -> list[str]:
    """Grid, axes and tick labels of a panel; `labels` names the time axis too."""
    parts = []
    right, low, high = WIDTH - RIGHT, y_ticks[0], y_ticks[-1]
    for tick in y_ticks:
        y = PANEL * (high - tick) / (high - low)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in (tick for tick in x_ticks if first <= tick <= first + (right - LEFT) / scale_x):
        x = LEFT + (tick - first) * scale_x
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{PANEL}" y2="{PANEL + 5}"/>'
        )
        if labels:
            parts.append(
                f'<text x="{x:.1f}" y="{PANEL + 19}" text-anchor="middle">{tick:,g}</text>'
            )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{PANEL}" y2="{PANEL}"/>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{PANEL}"/>')
    middle = PANEL / 2
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 '
        f'{middle})">x(t)</text>'
    )
    if labels:
        parts.append(
            f'<text x="{(LEFT + right) / 2}" y="{PANEL + 38}" text-anchor="middle">time '
            f"step t</text>"
        )
    return parts


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose `low` to `high`."""
    raw = (high - low or max(abs(high), 1.0)) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    size = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    return [round(i * size, 10) for i in range(math.floor(low / size), math.ceil(high / size) + 1)]
