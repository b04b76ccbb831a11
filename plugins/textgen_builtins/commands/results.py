"""What a sweep found: a row for each trial, and how much each setting mattered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from textgen.windows import quoted
from textgen_builtins.commands import text
from textgen_builtins.commands.compared import (
    ComparedRun,
    have_other_tokens,
    ranked,
    read_run,
    warning,
)
from textgen_builtins.commands.processes import status_of
from textgen_builtins.commands.trials import Trial, short_names, shown_value


@attrs.frozen(kw_only=True)
class Result:
    """A trial as it is now.

    status   "finished", "failed", "running" elsewhere, "stopped", or "waiting" without a run directory
    loss     the lowest of the held-out text, in nats per token; of the training text where nothing is held out
    bits_per_character   the same loss by characters of text
    """

    name: str
    path: str
    settings: dict[str, Any]
    status: str
    loss: float | None = None
    bits_per_character: float | None = None
    best_step: int | None = None
    step: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    error: str = ""


@attrs.frozen
class Ranking:
    """The trials, the best first.

    by     by which of their figures: bits per character, where their tokens differ
    note   why their losses cannot be compared; "" where they can
    """

    trials: list[Result]
    by: Literal["loss", "bits_per_character"]
    note: str

    def figure(self, result: Result) -> float | None:
        """The one that ranks a trial."""
        return result.loss if self.by == "loss" else result.bits_per_character


@attrs.frozen
class Effect:
    """The mean loss, or bits per character, of each value of a setting, lowest first, and how far they are apart."""

    key: str
    spread: float
    means: tuple[tuple[Any, float, int], ...]
    """Value, mean, and of how many trials."""


def results(trials: Sequence[Trial], folder: Path, failed: Mapping[str, str]) -> Ranking:
    """A result for each trial, the best first."""
    runs = {
        trial.name: read_run(summary, trial.name)
        for trial in trials
        if (summary := status_of(folder / trial.name))
    }
    found = [
        _result(trial, folder / trial.name, failed.get(trial.name, ""), runs.get(trial.name))
        for trial in trials
    ]
    order = {run.label: place for place, (_, run) in enumerate(ranked(list(runs.values())))}
    found.sort(key=lambda result: (result.status != "finished", order.get(result.name, len(order))))
    by: Literal["loss", "bits_per_character"] = (
        "bits_per_character" if have_other_tokens(list(runs.values())) else "loss"
    )
    return Ranking(found, by, warning(list(runs.values())))


def effects(found: Ranking) -> list[Effect]:
    """How much each setting mattered, over the finished trials; the one that mattered most first."""
    figures = [(each, found.figure(each)) for each in found.trials if each.status == "finished"]
    done = [(result, figure) for result, figure in figures if figure is not None]
    made = []
    for key in done[0][0].settings if done else ():
        losses: defaultdict[str, list[float]] = defaultdict(list)
        values = {}
        for result, figure in done:
            name = repr(result.settings[key])
            values[name] = result.settings[key]
            losses[name].append(figure)
        means = sorted(
            ((values[name], sum(those) / len(those), len(those)) for name, those in losses.items()),
            key=lambda mean: mean[1],
        )
        if len(means) > 1:
            made.append(Effect(key, means[-1][1] - means[0][1], tuple(means)))
    return sorted(made, key=lambda effect: -effect.spread)


def as_text(found: Ranking, trials: Sequence[Trial]) -> str:
    """The table, and what mattered."""
    names = short_names(trials)
    varied = [key for key in names if len({repr(trial.settings[key]) for trial in trials}) > 1]
    shows_status = any(result.status != "finished" for result in found.trials)
    shown = "loss" if found.by == "loss" else "bits/char"
    header = [
        *(names[key] for key in varied),
        shown,
        "step",
        "of",
        "seconds",
        *(["status"] if shows_status else []),
    ]
    rows = []
    for result in found.trials:
        figures = [
            text.loss(found.figure(result)),
            text.count(result.best_step),
            text.count(result.step),
        ]
        figures += [text.count(result.seconds), *([result.status] if shows_status else [])]
        rows.append([*(shown_value(result.settings[key]) for key in varied), *figures])
    n = len(varied)
    parts = [text.table(header, rows, right=range(n, n + 4))]
    parts += [f"note: {found.note}"] if found.note else []
    parts += [_effects_text(made, names, shown) for made in [effects(found)] if made]
    if found.trials and found.trials[0].status == "finished":
        parts.append(f"the best: textgen generate {text.printable(quoted(found.trials[0].path))}")
    return "\n\n".join(parts)


def _result(trial: Trial, path: Path, error: str, run: ComparedRun | None) -> Result:
    if run is None:
        return Result(
            name=trial.name,
            path=str(path),
            settings=trial.settings,
            status="failed" if error else "waiting",
            error=error,
        )
    found = run.summary
    return Result(
        name=trial.name,
        path=str(path),
        settings=trial.settings,
        status="failed" if error else found.status,
        loss=found.best_loss,
        bits_per_character=run.bits_per_character,
        best_step=found.best_step,
        step=found.step,
        seconds=found.seconds,
        parameters=found.parameters,
        error=error,
    )


def _effects_text(made: Sequence[Effect], names: Mapping[str, str], shown: str) -> str:
    """The settings, the one that mattered most first."""
    rows = []
    for effect in made:
        means = ", ".join(f"{shown_value(value)}: {mean:.4f}" for value, mean, _ in effect.means)
        rows.append([names[effect.key], f"{effect.spread:.4f}", means])
    most, best = names[made[0].key], shown_value(made[0].means[0][0])
    said = (
        f"{most} mattered most; {best} was best on average"
        if len(made) > 1
        else f"{best} was the best {most}"
    )
    return f"{text.table(['setting', 'spread', f'mean {shown} of each value'], rows, right=[1])}\n{text.printable(said)}"
