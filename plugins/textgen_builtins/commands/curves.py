"""The losses of several runs by step as one SVG, for light and dark pages and for every kind of colour vision."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any, Final

from textgen_builtins.commands import text
from textgen_builtins.commands.compared import ComparedRun
from textgen_builtins.observers.loss_plot import ticks

MARK: Final = "<!-- curves of textgen compare -->"
WIDTH: Final = 990
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 360, 24, 52
_LEAST_HEIGHT: Final = 460
_LABEL_HEIGHT: Final = 17
_LABEL_LENGTH: Final = 34
_DIVERGED: Final = 2.0  # a last loss above the best one's double says nothing about the others' scale
_BEGINNING: Final = 0.15  # share of a run in which its loss may leave the picture at the top
# Each has a contrast of at least 4.5 on its page, so that names can have it too, and differs from the others in
# lightness where some eyes see no difference of hue. After as many runs, the next ones are dashed.
LIGHT: Final = ("#1976b8", "#cc3d10", "#006b57", "#7a1fa2", "#5a3200", "#000000")
DARK: Final = ("#5aa9ee", "#ff7033", "#0fa37f", "#f3b6ff", "#f7e05a", "#ffffff")
_DASHES: Final = ("none", "7 4", "2 3")
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
_Place = Callable[[float, float], tuple[float, float]]


def draw(runs: Sequence[ComparedRun]) -> str:
    """The SVG. A run without an evaluation is not in it."""
    drawn = [run for run in runs if run.curve]
    height = max(_LEAST_HEIGHT, _TOP + _BOTTOM + _LABEL_HEIGHT * (len(drawn) + 1))
    if not drawn:
        return _document(height, '<text x="64" y="60">no run has an evaluation yet</text>', ())
    low, high = _range(drawn)
    x_ticks, y_ticks = ticks(0, max(run.curve[-1][0] for run in drawn), 6), ticks(low, high, 6, outward=True)
    x_span, y_low, y_high = max(x_ticks[-1], *(run.curve[-1][0] for run in drawn)), y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (WIDTH - _LEFT - _RIGHT) * x / x_span,
            _TOP + (height - _TOP - _BOTTOM) * min(max((y_high - y) / (y_high - y_low), -1), 2),
        )

    kind = "loss of the held-out text" if all(run.is_held_out for run in drawn) else "loss"
    parts = [
        *_axes(x_ticks, y_ticks, place, height, f"{kind} (nats per token)"),
        f'<clipPath id="plot"><rect x="{_LEFT}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT + 6}" '
        f'height="{height - _TOP - _BOTTOM + 6}"/></clipPath>',
    ]
    parts += [_line(run, number, place) for number, run in enumerate(drawn)]
    parts += _named(drawn, place, height)
    return _document(height, "\n  ".join(parts), drawn)


def is_picture(beginning: bytes) -> bool:
    """Whether a file that begins so is such a picture."""
    return MARK.encode() in beginning


def _range(runs: Sequence[ComparedRun]) -> tuple[float, float]:
    """The losses to show: all but those of the beginning, and of runs that have diverged."""
    best = min(loss for run in runs for _, loss in run.curve)
    high = best
    for run in runs:
        if run.curve[-1][1] <= max(best * _DIVERGED, best + 1):
            later = [loss for step, loss in run.curve if step >= _BEGINNING * run.curve[-1][0]]
            high = max(high, *later)
    return best, high


def _line(run: ComparedRun, number: int, place: _Place) -> str:
    points = [place(*point) for point in run.curve]
    path = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    title = f"<title>{html.escape(_printable(run.label))}</title>"
    dot = f'<circle class="f{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    return f'<g clip-path="url(#plot)"><path class="c{number}" d="M{path}">{title}</path>{dot}</g>'


def _named(runs: Sequence[ComparedRun], place: _Place, height: int) -> list[str]:
    """A name with the last loss right of each line, at its height or as near to it as names have room."""
    ends = [place(*run.curve[-1]) for run in runs]
    order = sorted(range(len(runs)), key=lambda number: (ends[number][1], number))
    lowest = height - _BOTTOM
    places: list[float] = []
    for number in order:
        wanted = min(max(ends[number][1], _TOP + 4), lowest)
        places.append(max(wanted, places[-1] + _LABEL_HEIGHT if places else wanted))
    bound = lowest + 4.0
    for place_in_order in reversed(range(len(places))):
        places[place_in_order] = min(places[place_in_order], bound)
        bound = places[place_in_order] - _LABEL_HEIGHT
    parts = []
    left = WIDTH - _RIGHT + 36
    for number, y in zip(order, places, strict=True):
        (end_x, end_y), run = ends[number], runs[number]
        end_y = min(max(end_y, _TOP), lowest)
        name = _printable(run.label)
        title = f"<title>{html.escape(name)}</title>"
        parts.append(f'<path class="leader c{number}" d="M{end_x + 5:.1f},{end_y:.1f} L{left - 5},{y:.1f}"/>')
        parts.append(f'<path class="c{number}" d="M{left},{y:.1f} h22"/>')
        parts.append(
            f'<text class="f{number}" x="{left + 28}" y="{y + 4:.1f}">{title}'
            f"{run.curve[-1][1]:.3f} {html.escape(_shortened(name))}</text>"
        )
    return parts


def _axes(x_ticks: Sequence[float], y_ticks: Sequence[float], place: _Place, height: int, title: str) -> list[str]:
    parts = []
    bottom, right = height - _BOTTOM, WIDTH - _RIGHT
    for tick in y_ticks:
        y = place(0, tick)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x = place(tick, y_ticks[0])[0]
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{tick:,g}</text>')
    middle = (_TOP + bottom) / 2
    return [
        *parts,
        f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
        f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{bottom}"/>',
        f'<text x="{(_LEFT + right) / 2}" y="{height - 12}" text-anchor="middle">step</text>',
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{title}</text>',
    ]


def _colours(runs: Sequence[Any], colours: Sequence[str]) -> str:
    """The style of each run's line and name."""
    rules = []
    for number in range(len(runs)):
        colour = colours[number % len(colours)]
        dash = _DASHES[number // len(colours) % len(_DASHES)]
        rules.append(f"  .curves .c{number} {{ stroke: {colour}; stroke-dasharray: {dash}; }}")
        rules.append(f"  .curves .f{number} {{ fill: {colour}; }}")
    return "\n".join(rules)


def _document(height: int, body: str, runs: Sequence[Any]) -> str:
    dark = f"{_DARK_STYLE}{_colours(runs, DARK)}"
    style = f"{_STYLE}{_colours(runs, LIGHT)}\n  @media (prefers-color-scheme: dark) {{{dark}\n  }}\n"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="loss of each run by step">{MARK}\n'
        f"  <style>{style}</style>\n  {body}\n</svg>\n"
    )


def _printable(text: str) -> str:
    """What XML may hold."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _shortened(label: str) -> str:
    """The label without its middle, if it is long: runs of a sweep differ at both ends."""
    half = len(label) // 2 + 1
    shown = label
    while text.width(shown) > _LABEL_LENGTH:
        half -= 1
        shown = f"{label[:half]}…{label[-half:]}"
    return shown
