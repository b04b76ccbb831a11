"""Draws docs/seed-curve.svg from docs/seed-loss.csv: the book's losses beside ours, epoch by epoch.

python docs/draw_seed_curve.py                  draw it again
python docs/draw_seed_curve.py METRICS.jsonl    put the curve of a run into the table first
"""

import csv
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE / "seed-loss.csv"
# Hues and greys of middle lightness, so that one picture serves pages of light and of dark background.
SERIES = (
    ("book", "the book's code", "#dd7a10"),
    ("textgen", "textgen: seed.toml", "#3a86d0"),
)
GREY = "#838383"
WIDTH, HEIGHT, TOP, BOTTOM = 820, 400, 64, 352
PANELS = (("validation", 56), ("training", 448))
PANEL_WIDTH = 352
LOWEST, HIGHEST = 1.6, 3.0


def main() -> None:
    """Draw the picture from a run and the book's figures."""
    rows = list(csv.DictReader(TABLE.open(encoding="utf-8")))
    if len(sys.argv) == 2:
        evaluations = map(json.loads, Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
        for row, evaluation in zip(rows, evaluations, strict=True):
            row["textgen_training"] = f"{evaluation['training_loss']:.4f}"
            row["textgen_validation"] = f"{evaluation['validation_loss']:.4f}"
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    (HERE / "seed-curve.svg").write_text(draw(rows), encoding="utf-8")


def draw(rows: list[dict[str, str]]) -> str:
    """The picture as an SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        "<title>Validation and training loss by epoch: the book's code and a textgen pipeline</title>",
    ]
    x = PANELS[0][1]
    for _, label, colour in SERIES:
        parts.append(f'<path d="M{x} 14h24" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 31}" y="18.5" fill="{GREY}">{label}</text>')
        x += 60 + 7 * len(label)
    for split, left in PANELS:
        parts.append(
            f'<text x="{left}" y="{TOP - 14}" fill="{GREY}" font-weight="bold">{split} loss</text>'
        )
        for tick in (1.6, 1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0):
            y = height(tick)
            parts.append(
                f'<path d="M{left} {y:.1f}h{PANEL_WIDTH}" stroke="{GREY}" stroke-opacity="0.3"/>'
            )
            parts.append(
                f'<text x="{left - 8}" y="{y + 4:.1f}" fill="{GREY}" text-anchor="end">{tick:.1f}</text>'
            )
        for epoch in (1, 20, 40, 60, 80, 100):
            place = f'x="{across(left, epoch):.1f}" y="{BOTTOM + 20}"'
            parts.append(f'<text {place} fill="{GREY}" text-anchor="middle">{epoch}</text>')
        middle = left + PANEL_WIDTH / 2
        parts.append(
            f'<text x="{middle}" y="{BOTTOM + 40}" fill="{GREY}" text-anchor="middle">epoch</text>'
        )
        for series, _, colour in SERIES:
            points = " ".join(
                f"{across(left, int(row['epoch'])):.1f},{height(float(row[f'{series}_{split}'])):.1f}"
                for row in rows
            )
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
            )
    return "\n".join([*parts, "</svg>", ""])


def across(left: float, epoch: int) -> float:
    """Where an epoch lies from left to right."""
    return left + (epoch - 1) / 99 * PANEL_WIDTH


def height(loss: float) -> float:
    """Where a loss lies from top to bottom."""
    return BOTTOM - (loss - LOWEST) / (HIGHEST - LOWEST) * (BOTTOM - TOP)


if __name__ == "__main__":
    main()
