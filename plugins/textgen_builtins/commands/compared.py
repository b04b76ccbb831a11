"""The runs to compare: figures, settings and curves of each, read without its model."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from textgen import RunSummary, UsageError
from textgen.plugin import flat
from textgen.protocols import Table
from textgen_builtins.commands.folders import summaries

_CHAINS: Final = ("sampler", "observer")
_MANY_UNKNOWN: Final = 0.01  # share of unknown tokens above which bits per character mislead


@attrs.frozen(kw_only=True)
class ComparedRun:
    """A run.

    label      what tells it from the others: its folder's name, with those above it where need be
    settings   every key of its pipeline that somebody chose, dotted, with the checksum of its text
    curve      step and loss of each evaluation, in nats per token; of the held-out text where there
               is one
    bits       the same in bits per character
    bits_per_character, characters_per_second   at the best evaluation; the median over all of them
    """

    label: str
    summary: RunSummary
    settings: Table
    curve: tuple[tuple[int, float], ...]
    bits: tuple[tuple[int, float], ...]
    bits_per_character: float | None
    characters_per_second: float | None

    @property
    def is_held_out(self) -> bool:
        """Whether its loss is that of a held-out text."""
        data = self.summary.record.get("data")
        return not isinstance(data, Mapping) or bool(data.get("validation_tokens"))

    @property
    def unknown_share(self) -> float:
        """The share of its tokens that stand for text outside the vocabulary."""
        data = self.summary.record.get("data")
        share = data.get("unknown_share") if isinstance(data, Mapping) else None
        return share if isinstance(share, float) else 0.0


def read_runs(paths: Sequence[str]) -> list[ComparedRun]:
    """The runs at the paths, or in the folders there. Raises UsageError where there is none."""
    found: dict[str, RunSummary] = {}
    for path in paths:
        there = list(summaries(Path(path))) if Path(path).is_dir() else []
        if not there:
            cause = f"{path} is not a run directory, and there is none in it"
            raise UsageError(f"{cause}; give run directories, such as runs/my")
        found |= {os.path.realpath(summary.path): summary for summary in there}
    labels = _labels([summary.path for summary in found.values()])
    return [read_run(summary, label) for summary, label in zip(found.values(), labels, strict=True)]


def have_other_tokens(runs: Sequence[ComparedRun]) -> bool:
    """Whether their tokens differ, so that bits per character compare them and losses do not."""
    return _differ(runs, "tokenizer.")


def ranked(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """The best first: by the loss, or by bits per character where their tokens differ."""
    in_bits = have_other_tokens(runs)

    def figure(run: ComparedRun) -> float:
        found = run.bits_per_character if in_bits else run.summary.best_loss
        return math.inf if found is None else found

    return sorted(runs, key=figure)


def differences(runs: Sequence[ComparedRun]) -> dict[str, dict[str, list[str]]]:
    """The settings that not all runs have in common: for each its values, and for each of these the
    labels of its runs.

    A run without any, which is damaged, has no part in it.
    """
    runs = [run for run in runs if run.settings]
    found: dict[str, dict[str, list[str]]] = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values: dict[str, list[str]] = {}
        for run in runs:
            shown = _shown(run.settings[key]) if key in run.settings else "not set"
            values.setdefault(shown, []).append(run.label)
        if len(values) > 1:
            found[key] = values
    return found


def warning(runs: Sequence[ComparedRun]) -> str:
    """The reason why the losses of the runs cannot be compared; "" where they can."""
    if len({run.is_held_out for run in runs}) > 1:
        return "some losses are of held-out text and some of training text: they cannot be compared"
    if _differ(runs, "corpus text"):
        return "the runs have different texts: their losses cannot be compared"
    if _differ(runs, "data."):
        return "the runs hold out different parts of the text: their losses cannot be compared"
    for key in ("letters_only", "lower_case"):
        if len({bool(run.settings.get(f"tokenizer.{key}")) for run in runs}) > 1:
            return f"some runs have the option {key}, and so another text: they cannot be compared"
    if have_other_tokens(runs):
        shares = {run.label: run.unknown_share for run in runs}
        if partial := [
            f"{share:.0%} in {label}" for label, share in shares.items() if share > _MANY_UNKNOWN
        ]:
            cause = "the runs have different tokens, and some stand for text outside the vocabulary"
            shown = ", ".join(partial)
            return f"{cause} ({shown}), whose spelling costs no bits: they cannot be compared"
        return "the runs have different tokens: compare their bits per character, not their losses"
    return ""


def _differ(runs: Sequence[ComparedRun], prefix: str) -> bool:
    """Whether settings differ that begin so, other than the length of windows."""
    return any(key.startswith(prefix) and "window_" not in key for key in differences(runs))


def read_run(summary: RunSummary, label: str) -> ComparedRun:
    """A run by its summary."""
    rows = summary.metrics()
    best = next((row for row in rows if row["step"] == summary.best_step), {})
    speeds = [speed for row in rows if (speed := row.get("characters_per_second"))]
    return ComparedRun(
        label=label,
        summary=summary,
        settings=_settings(summary),
        curve=_points(rows, "validation_loss") or _points(rows, "training_loss"),
        bits=_points(rows, "bits_per_character"),
        bits_per_character=best.get("bits_per_character"),
        characters_per_second=statistics.median(speeds) if speeds else None,
    )


def _points(rows: Sequence[Table], key: str) -> tuple[tuple[int, float], ...]:
    found = ((row["step"], row.get(key)) for row in rows)
    return tuple((step, each) for step, each in found if each is not None)


def _settings(summary: RunSummary) -> dict[str, Any]:
    tables = {key: value for key, value in summary.tables().items() if key != "output"}
    for kind in _CHAINS:
        chain = tables.pop(kind, None)
        for index, table in enumerate(chain if isinstance(chain, list) else ()):
            tables[f"{kind}.{index}"] = table
    settings, made_of = flat(tables), summary.record.get("fingerprint")
    corpus = made_of.get("corpus") if isinstance(made_of, Mapping) else None
    if isinstance(corpus, Mapping):
        settings["corpus text"] = str(corpus.get("sha256"))[:12]
    data = summary.record.get("data")
    if isinstance(data, Mapping) and data.get("held_out"):
        settings["data.held_out"] = data["held_out"]
    return settings


def _labels(paths: Sequence[Path]) -> list[str]:
    """The paths below the folder that they have in common; of one run, its name."""
    if len(paths) == 1:
        return [paths[0].name]
    folder = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(folder).as_posix() for path in paths]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
