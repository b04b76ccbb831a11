"""What a sweep found: a row for each trial, and how much each setting mattered."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from textgen_builtins.commands import text
from textgen_builtins.commands.processes import status_of
from textgen_builtins.commands.trials import Trial, short_names, shown_value


@attrs.frozen(kw_only=True)
class Result:
    """A trial as it is now.

    status   "finished", "failed", "running" elsewhere, "stopped", or "waiting" without a run directory
    loss     the lowest of the held-out text, in nats per token; of the training text where nothing is held out
    """

    name: str
    path: str
    settings: dict[str, Any]
    status: str
    loss: float | None = None
    best_step: int | None = None
    step: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    error: str = ""


@attrs.frozen
class Effect:
    """The mean loss of each value of a setting, lowest first, and how far the means are apart."""

    key: str
    spread: float
    means: tuple[tuple[Any, float, int], ...]
    """Value, mean loss, and of how many trials."""


def results(trials: Sequence[Trial], folder: Path, failed: Mapping[str, str]) -> list[Result]:
    """A result for each trial, the best first."""
    found = [_result(trial, folder / trial.name, failed.get(trial.name, "")) for trial in trials]
    return sorted(found, key=lambda result: (result.status != "finished", result.loss is None, result.loss))


def effects(found: Sequence[Result]) -> list[Effect]:
    """How much each setting mattered, over the finished trials; the one that mattered most first."""
    done = [result for result in found if result.status == "finished" and result.loss is not None]
    made = []
    for key in done[0].settings if done else ():
        losses: defaultdict[str, list[float]] = defaultdict(list)
        values = {}
        for result in done:
            name = repr(result.settings[key])
            values[name] = result.settings[key]
            losses[name].append(result.loss or 0.0)
        means = sorted(
            ((values[name], sum(those) / len(those), len(those)) for name, those in losses.items()),
            key=lambda mean: mean[1],
        )
        if len(means) > 1:
            made.append(Effect(key, means[-1][1] - means[0][1], tuple(means)))
    return sorted(made, key=lambda effect: -effect.spread)


def as_text(found: Sequence[Result], trials: Sequence[Trial]) -> str:
    """The table, and what mattered."""
    names = short_names(trials)
    varied = [key for key in names if len({repr(trial.settings[key]) for trial in trials}) > 1]
    shows_status = any(result.status != "finished" for result in found)
    header = [*(names[key] for key in varied), "loss", "step", "of", "seconds", *(["status"] if shows_status else [])]
    rows = []
    for result in found:
        figures = [text.loss(result.loss), text.count(result.best_step), text.count(result.step)]
        figures += [text.count(result.seconds), *([result.status] if shows_status else [])]
        rows.append([*(shown_value(result.settings[key]) for key in varied), *figures])
    n = len(varied)
    parts = [text.table(header, rows, right=range(n, n + 4))]
    parts += [_effects_text(made, names) for made in [effects(found)] if made]
    if found and found[0].status == "finished":
        parts.append(f"the best: textgen generate {text.printable(shlex.quote(found[0].path))}")
    return "\n\n".join(parts)


def _result(trial: Trial, path: Path, error: str) -> Result:
    found = status_of(path)
    if found is None:
        return Result(
            name=trial.name,
            path=str(path),
            settings=trial.settings,
            status="failed" if error else "waiting",
            error=error,
        )
    return Result(
        name=trial.name,
        path=str(path),
        settings=trial.settings,
        status="failed" if error else found.status,
        loss=found.best_loss,
        best_step=found.best_step,
        step=found.step,
        seconds=found.seconds,
        parameters=found.parameters,
        error=error,
    )


def _effects_text(made: Sequence[Effect], names: Mapping[str, str]) -> str:
    """The settings, the one that mattered most first."""
    rows = []
    for effect in made:
        means = ", ".join(f"{shown_value(value)}: {mean:.4f}" for value, mean, _ in effect.means)
        rows.append([names[effect.key], f"{effect.spread:.4f}", means])
    most, best = names[made[0].key], shown_value(made[0].means[0][0])
    said = f"{most} mattered most; {best} was best on average" if len(made) > 1 else f"{best} was the best {most}"
    return f"{text.table(['setting', 'spread', 'mean loss of each value'], rows, right=[1])}\n{text.printable(said)}"
