"""The losses of several runs by step as one SVG, for light and dark pages and for every kind of colour vision."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from textgen_builtins.commands import text
from textgen_builtins.commands.compared import ComparedRun
from textgen_builtins.plot import BOTTOM, LEFT, TOP, Axes, document

MARK: Final = "<!-- curves of textgen compare -->"
WIDTH: Final = 990
_ROOM: Final = 360
_LEAST_HEIGHT: Final = 460
_LABEL_HEIGHT: Final = 17
_LABEL_LENGTH: Final = 34
_DIVERGED: Final = (
    2.0  # a last loss above the best one's double says nothing about the others' scale
)
_BEGINNING: Final = 0.15  # share of a run in which its loss may leave the picture at the top
# Each has a contrast of at least 4.5 on its page, so that names can have it too, and differs from the others in
# lightness where some eyes see no difference of hue. After as many runs, the next ones are dashed.
LIGHT: Final = ("#1976b8", "#cc3d10", "#006b57", "#7a1fa2", "#5a3200", "#000000")
DARK: Final = ("#5aa9ee", "#ff7033", "#0fa37f", "#f3b6ff", "#f7e05a", "#ffffff")
_DASHES: Final = ("none", "7 4", "2 3")


def draw(runs: Sequence[ComparedRun]) -> str:
    """The SVG. A run without an evaluation is not in it."""
    drawn = [run for run in runs if run.curve]
    height = max(_LEAST_HEIGHT, TOP + BOTTOM + _LABEL_HEIGHT * (len(drawn) + 1))
    parts = ['<text x="64" y="60">no run has an evaluation yet</text>']
    if drawn:
        axes = Axes(WIDTH, height, _ROOM, max(run.curve[-1][0] for run in drawn), *_range(drawn))
        kind = "loss of the held-out text" if all(run.is_held_out for run in drawn) else "loss"
        clip = f'<rect x="{LEFT}" y="{TOP}" width="{axes.right - LEFT + 6}" height="{axes.bottom - TOP + 6}"/>'
        parts = [
            *axes.parts(f"{kind} (nats per token)"),
            f'<clipPath id="plot">{clip}</clipPath>',
            *(_line(run, number, axes) for number, run in enumerate(drawn)),
            *_named(drawn, axes),
        ]
    light, dark = (_rules(len(drawn), colours) for colours in (LIGHT, DARK))
    return document(WIDTH, height, "loss of each run by step", parts, light, dark, MARK)


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


def _line(run: ComparedRun, number: int, axes: Axes) -> str:
    x, y = axes.place(*run.curve[-1])
    title = f"<title>{html.escape(_printable(run.label))}</title>"
    dot = f'<circle class="f{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    return f'<g clip-path="url(#plot)"><path class="c{number}" d="{axes.line(run.curve)}">{title}</path>{dot}</g>'


def _named(runs: Sequence[ComparedRun], axes: Axes) -> list[str]:
    """A name with the last loss right of each line, at its height or as near to it as names have room."""
    ends = [axes.place(*run.curve[-1]) for run in runs]
    order = sorted(range(len(runs)), key=lambda number: (ends[number][1], number))
    places: list[float] = []
    for number in order:
        wanted = min(max(ends[number][1], TOP + 4), axes.bottom)
        places.append(max(wanted, places[-1] + _LABEL_HEIGHT if places else wanted))
    bound = axes.bottom + 4.0
    for place_in_order in reversed(range(len(places))):
        places[place_in_order] = min(places[place_in_order], bound)
        bound = places[place_in_order] - _LABEL_HEIGHT
    parts = []
    left = axes.right + 36
    for number, y in zip(order, places, strict=True):
        (end_x, end_y), run = ends[number], runs[number]
        end_y = min(max(end_y, TOP), axes.bottom)
        name = _printable(run.label)
        title = f"<title>{html.escape(name)}</title>"
        parts.append(
            f'<path class="leader c{number}" d="M{end_x + 5:.1f},{end_y:.1f} L{left - 5},{y:.1f}"/>'
        )
        parts.append(f'<path class="c{number}" d="M{left},{y:.1f} h22"/>')
        parts.append(
            f'<text class="f{number}" x="{left + 28}" y="{y + 4:.1f}">{title}'
            f"{run.curve[-1][1]:.3f} {html.escape(_shortened(name))}</text>"
        )
    return parts


def _rules(count: int, colours: Sequence[str]) -> str:
    """The style of each run's line and name."""
    rules = []
    for number in range(count):
        colour = colours[number % len(colours)]
        dash = _DASHES[number // len(colours) % len(_DASHES)]
        rules.append(f"  .curves .c{number} {{ stroke: {colour}; stroke-dasharray: {dash}; }}")
        rules.append(f"  .curves .f{number} {{ fill: {colour}; }}")
    return "\n".join(rules)


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
