"""Curves of losses by step as one SVG, for light and dark pages and for every kind of colour
vision.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

# Each has a contrast of at least 4.5 on its page, so that names can have it too, and differs from
# the others in lightness where some eyes see no difference of hue. After as many curves, the next
# ones are dashed.
LIGHT: Final = ("#1976b8", "#cc3d10", "#006b57", "#7a1fa2", "#5a3200", "#000000")
DARK: Final = ("#5aa9ee", "#ff7033", "#0fa37f", "#f3b6ff", "#f7e05a", "#ffffff")
_DASHES: Final = ("none", "7 4", "2 3")
_LEFT, _TOP, _BOTTOM, _RIGHT = 76, 24, 52, 630
_LABEL_HEIGHT: Final = 17
_LABEL_LENGTH: Final = 40
_TICKS: Final = 6  # about as many on an axis
_CUT_SHARE: Final = 0.15  # share of a curve that may leave the picture at the top
_CUT_DISTANCE: Final = 1.5  # times as far above the best as is usual, a curve may leave it too
_STYLE: Final = """
  svg.curves { color-scheme: light dark; font: 13px system-ui, sans-serif; background: #ffffff; }
  .curves text { fill: #333333; }
  .curves .grid { stroke: #e3e3e3; } .curves .axis { stroke: #777777; }
  .curves path { fill: none; stroke-width: 2; stroke-linejoin: round; }
"""
_DARK_STYLE: Final = """
    svg.curves { background: #1b1d21; } .curves text { fill: #d6d6d6; }
    .curves .grid { stroke: #34373d; } .curves .axis { stroke: #8a8a8a; }
"""


@attrs.frozen
class Curve:
    """Points of step and loss under a name; without any, it is not drawn."""

    name: str
    points: Sequence[tuple[float, float]]


def draw(curves: Sequence[Curve], unit: str) -> str:
    """The SVG.

    Beside them stands the last loss of each, the best one if that is another, and its name.
    """
    drawn = [curve for curve in curves if curve.points]
    labels = [_label(curve) for curve in drawn]
    width = int(_RIGHT + 80 + 7.2 * max(map(len, labels), default=0))
    height = max(460, _TOP + _BOTTOM + _LABEL_HEIGHT * (len(drawn) + 1))
    parts = ['<text x="64" y="60">no evaluation yet</text>']
    if drawn:
        axes = _Axes(height - _BOTTOM, max(curve.points[-1][0] for curve in drawn), *_range(drawn))
        clip = (
            f'<rect x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT + 6}" '
            f'height="{axes.bottom - _TOP + 6}"/>'
        )
        parts = [
            *axes.parts(unit),
            f'<clipPath id="plot">{clip}</clipPath>',
            *(_line(curve, number, axes) for number, curve in enumerate(drawn)),
            *_legend(drawn, labels),
        ]
    light, dark = (_rules(len(drawn), colours) for colours in (LIGHT, DARK))
    style = f"{_STYLE}{light}\n  @media (prefers-color-scheme: dark) {{{_DARK_STYLE}{dark}\n  }}\n"
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves" viewBox="0 0 {width} '
        f'{height}" width="{width}" '
        f'height="{height}" role="img" aria-label="losses by step">\n  '
        f"<style>{style}</style>\n  {body}\n</svg>\n"
    )


@attrs.frozen
class _Axes:
    """Axes for steps up to `last` and losses from `low` to `high`; that of the steps is at the
    height `bottom`.
    """

    bottom: int
    last: float
    low: float
    high: float

    def point(self, step: float, loss: float) -> tuple[float, float]:
        """The position of a point, in pixels; one far outside the plot is drawn closer to it, where
        renderers can still draw the line.
        """
        x = _LEFT + (_RIGHT - _LEFT) * step / (self.last or 1)
        share = (self.high - loss) / ((self.high - self.low) or 1.0)
        return x, _TOP + (self.bottom - _TOP) * min(max(share, -1), 2)

    def parts(self, unit: str) -> Iterator[str]:
        """The axes; `unit` names that of the losses."""
        for tick in _ticks(self.low, self.high):
            y = self.point(0, tick)[1]
            yield f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(0, self.last):
            x = self.point(tick, self.low)[0]
            yield (
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{self.bottom}" '
                f'y2="{self.bottom + 5}"/>'
            )
            yield f'<text x="{x:.1f}" y="{self.bottom + 19}" text-anchor="middle">{tick:,g}</text>'
        x, y = (_LEFT + _RIGHT) / 2, (_TOP + self.bottom) / 2
        yield (
            f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{self.bottom}" y2="{self.bottom}"/>'
        )
        yield f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{self.bottom}"/>'
        yield f'<text x="{x}" y="{self.bottom + 40}" text-anchor="middle">step</text>'
        yield (
            f'<text x="18" y="{y}" text-anchor="middle" transform="rotate(-90 18 '
            f'{y})">{unit}</text>'
        )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`."""
    raw = ((high - low) or max(abs(high), 1.0)) / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw))
    size = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw)
    return [round(i * size, 10) for i in range(math.ceil(low / size), math.floor(high / size) + 1)]


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """The losses to show: all but those of the beginning, and of curves that are far off."""
    best = min(loss for curve in curves for _, loss in curve.points)
    later = [
        max(loss for step, loss in curve.points if step >= _CUT_SHARE * curve.points[-1][0])
        for curve in curves
    ]
    usual = statistics.median_low(later) - best
    limit = best + (_CUT_DISTANCE * usual if len(curves) > 2 else max(best, 1))
    ends = [curve.points[-1][1] for curve in curves]
    near = [high for high, end in zip(later, ends, strict=True) if end <= limit]
    return best, max(near, default=limit)


def _label(curve: Curve) -> str:
    last, best = curve.points[-1][1], min(loss for _, loss in curve.points)
    more = f", best {best:.3f}" if best < last else ""
    name = _printable(curve.name)
    half = _LABEL_LENGTH // 2
    short = name if len(name) <= _LABEL_LENGTH else f"{name[:half]}…{name[-half:]}"
    return f"{last:.3f} {short}{more}"


def _line(curve: Curve, number: int, axes: _Axes) -> str:
    points = " L".join(f"{x:.1f},{y:.1f}" for x, y in (axes.point(*each) for each in curve.points))
    x, y = axes.point(*curve.points[-1])
    title = f"<title>{html.escape(_printable(curve.name))}</title>"
    dot = f'<circle class="f{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    return (
        f'<g clip-path="url(#plot)"><path class="c{number}" d="M{points}">{title}</path>{dot}</g>'
    )


def _legend(curves: Sequence[Curve], labels: Sequence[str]) -> Iterator[str]:
    """A label for each curve, in the order in which they end, the highest first."""
    order = sorted(range(len(curves)), key=lambda number: -curves[number].points[-1][1])
    for row, number in enumerate(order):
        x, y = _RIGHT + 36, _TOP + 4 + _LABEL_HEIGHT * row
        title = f"<title>{html.escape(_printable(curves[number].name))}</title>"
        yield f'<path class="c{number}" d="M{x},{y} h22"/>'
        yield (
            f'<text class="f{number}" x="{x + 28}" y="{y + 4}">{title}'
            f"{html.escape(labels[number])}</text>"
        )


def _rules(count: int, colours: Sequence[str]) -> str:
    """The style of each curve and of its label."""
    rules = []
    for number in range(count):
        colour = colours[number % len(colours)]
        dash = _DASHES[number // len(colours) % len(_DASHES)]
        rules.append(f"  .curves .c{number} {{ stroke: {colour}; stroke-dasharray: {dash}; }}")
        rules.append(f"  .curves .f{number} {{ fill: {colour}; }}")
    return "\n".join(rules)


def _printable(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(character if character.isprintable() else "�" for character in text)
