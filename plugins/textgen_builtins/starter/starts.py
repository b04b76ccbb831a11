"""What a pipeline may start from: a new network, or a model that knows the language of the text.
Each is tried on a sample of the text.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from textgen import (
    BuildContext,
    Engine,
    PluginSet,
    RegisteredComponent,
    TextgenError,
    UsageError,
    devices,
)
from textgen.events import StepDone
from textgen.gradient import Length
from textgen.plugin import merged
from textgen.protocols import Table
from textgen.runs import offered_run, run_of
from textgen.speed import operations_per_second
from textgen.tokenizers import unknown_id
from textgen_builtins.starter import settings
from textgen_builtins.starter.texts import TextFacts, relative

NONE: Final = "none"
_TRAINING_SHARE: Final = 0.9  # of a text; the rest is held out
_STEPS_SHARE: Final = 0.8  # of the time of a run; it also loads, evaluates and writes
_LEAST_PASS: Final = 1 / 3  # of a text that adapters must have time to read
_SAMPLE: Final = 300_000  # characters
_HELD_OUT: Final = 3000  # tokens of the sample on which the loss is measured
# A trial changes nothing: it measures the loss of the model as it is, and the time of a step.
_TRIAL: Final = {"length": "3 steps", "evaluate_every": 3, "learning_rate": 1e-12}
_TRIAL_TOKENS: Final = 8000  # that count as read in a trial, those held out included
_TOKEN_LENGTH: Final = 4.5  # characters, with a large vocabulary
_OPERATIONS: Final = 4  # for a weight and a token: a product forward, and one back to the adapters
_LOADING: Final = 7e-8  # seconds for a weight, to load it to train, and again to write
# A tuned model has this share of the loss of a new network, and more the worse it knows the text
# before. Tuned from textgen-english, novels had 0.79 of that loss, verse 0.78 and plays 0.74; texts
# in another language have a loss 3 times as high before.
_TUNED_SHARE: Final = 0.82
_UNKNOWN_SHARE: Final = 0.36


@attrs.frozen
class Start:
    """What a run may start from.

    loss        expected of held-out text, in nats per character; infinite if it was not tried
    tables      of a pipeline that starts from it
    seconds     that training needs at least
    a_pass      seconds of a pass over the text, where they decide whether there is time for it
    is_enough   whether there is time for all passes
    """

    name: str
    loss: float
    tables: Table = attrs.field(factory=dict)
    seconds: float = 0.0
    a_pass: float = 0.0
    is_enough: bool = False

    def __str__(self) -> str:
        if self.name == NONE:
            return f"{self.loss:.2f} without"
        loss = "" if math.isinf(self.loss) else f"{self.loss:.2f} "
        times = [f"needs {self.seconds:.0f} seconds"] if self.seconds else []
        times += [f"{self.a_pass:.0f} seconds a pass"] if self.a_pass else []
        return f"{loss}from {self.name}" + (f" ({', '.join(times)})" if times else "")

    def table(self) -> dict[str, Any]:
        """The facts in JSON; no loss where it was not tried."""
        loss = None if math.isinf(self.loss) else self.loss
        return {"name": self.name, "loss": loss, "seconds": self.seconds, "a_pass": self.a_pass}


def named(plugins: PluginSet) -> list[RegisteredComponent]:
    """The offered runs that are not made of a path."""
    return [o for o in plugins.offers("run") if "path" not in o.component.options()]


@attrs.frozen
class Trials:
    """Trials of starts for a text, a run of so many seconds, and a pipeline in a folder.

    say   told what is tried, and what cannot be started from
    """

    facts: TextFacts
    seconds: float
    folder: Path
    plugins: PluginSet
    say: Callable[[str], None]

    def starts(self, wanted: str | None) -> list[Start]:
        """A new network, and the models that plugins offer; or `wanted` alone, which is the name of
        an offered run, the path of a run directory or of what a plugin makes a model of, or "none".

        Raises UsageError if `wanted` cannot be used.
        """
        new = self._new_network()
        if wanted == NONE:
            return [new]
        if wanted is not None:
            try:
                start = self._known(wanted, new.loss)
            except TextgenError as error:
                raise UsageError(str(error), argument="start") from error
            if (Path(wanted) / "run.json").is_file():
                path = relative(Path(wanted), self.folder)
                model = {"start": path if "/" in path else f"./{path}"}
                start = attrs.evolve(start, tables=merged(start.tables, {"model": model}))
            return [start]
        found = [new]
        for offer in named(self.plugins):
            is_alone = self.plugins.find("run", offer.name) == offer
            name = offer.name if is_alone else offer.qualified_name
            try:
                found.append(self._known(name, new.loss))
            except TextgenError as error:
                self.say(f"textgen: warning: {name} cannot be started from: {error}")
        return found

    def _new_network(self) -> Start:
        """A new network, which falls below the loss of counts."""
        tables = settings.new_network(self.facts.size, self.facts.vocabulary, self.seconds)
        counts = {
            "tokenizer": tables["tokenizer"],
            "model": tables["model"]["second"],
            "trainer": {"type": "count"},
            "data": {"validation": min(_SAMPLE // 10, tables["data"]["validation"])},
        }
        return Start(NONE, self._trial(counts)[0], tables)

    def _known(self, name: str, without: float) -> Start:
        """A model that knows the language, where `without` is the loss to expect without it."""
        offered = _offered(name, self.plugins)
        duration = ""
        if isinstance(offered, Mapping) and (weights := offered.get("parameters")):
            tokens = self.facts.size * _TRAINING_SHARE / _TOKEN_LENGTH
            least = _seconds_at_best(weights, tokens * _LEAST_PASS / _STEPS_SHARE)
            if least > self.seconds:  # it need not be loaded
                return Start(name, math.inf, seconds=least)
            trial = _seconds_at_best(weights, _TRIAL_TOKENS)
            duration = f", {math.ceil(trial)} seconds or more"
        self.say(f"trying {name} on a sample of the text{duration}")
        if isinstance(offered, Mapping):
            return self._from_tables(name, offered)
        return self._from_run(name, without)

    def _from_run(self, name: str, without: float) -> Start:
        """A start from a run, where `without` is the loss to expect of a new network."""
        with Engine(self.plugins).load(name, device="cpu") as generator:
            model_type = generator.tables["model"]["type"]
            strategy = generator.tables["generate"].get("strategy")
            reads_every_text = unknown_id(generator.tokenizer) is None
            tokens = len(generator.tokenizer.encode(self._held_out))
        if model_type != "rnn":
            raise UsageError(f"its model is of the type {model_type}, and init tunes type rnn")
        # With characters as tokens, the run gets one for each character of the text.
        share = tokens / len(self._held_out) if reads_every_text else 1.0
        tables = settings.tuning(self.facts.size, share, self.seconds)
        tables["model"]["start"] = name
        if not reads_every_text:
            tables["tokenizer"] = {"type": "char"}
        trial = {
            "data": {"validation": _HELD_OUT},
            "trainer": {**tables["trainer"], **_TRIAL},
        }
        loss, _, _ = self._trial(tables | trial)
        if strategy:
            tables["generate"] = {"strategy": strategy}
        share = _TUNED_SHARE + _UNKNOWN_SHARE * max(0.0, loss / without - 1.0)
        return Start(name, share * without, tables)

    def _from_tables(self, name: str, offered: Table) -> Start:
        """A start from tables, such as adapters of a transformer, trained as their table `start`
        says. The loss to expect is that before training: how much lower it gets depends on the
        text.
        """
        engine, training = Engine(self.plugins), offered.get("start", {})
        recipe = merged(offered, training)
        data, trainer = recipe.get("data", {}), recipe.get("trainer", {})
        tokenizer = engine.build("tokenizer", recipe["tokenizer"], BuildContext(folder=Path.cwd()))
        tokenizer.fit([])
        share = len(tokenizer.encode(self._held_out)) / len(self._held_out)
        tokens_of_pass = max(10.0, self.facts.size * _TRAINING_SHARE * share)
        # A ninth of them is held out, and must have a window.
        window = min(data.get("window_length", 64), int(tokens_of_pass / 10))
        batch = settings.batch_size(trainer.get("batch_size", 64), tokens_of_pass / window, 24)
        if isinstance(offered_run(name, self.plugins), Mapping):
            tables = merged({"model": {"start": name}}, training)
        else:  # made of a path
            parts = {kind: offered[kind] for kind in ("tokenizer", "model")}
            tables = merged(parts, training)
        tables["data"] = {**data, "window_length": window, "validation": settings.HELD_OUT}
        tables["trainer"] = {**trainer, "batch_size": batch}
        trial = {
            "data": {**tables["data"], "validation": _HELD_OUT},
            "trainer": {**tables["trainer"], **_TRIAL},
        }
        loss, loading, step = self._trial(tables | trial)
        length = trainer.get("length", "1 epoch")
        tables["trainer"]["length"] = settings.with_time(length, self.seconds)
        steps_of_pass = math.ceil(tokens_of_pass / window / batch)
        limits = Length.of(length)
        steps = min(limits.steps, limits.epochs * steps_of_pass)
        is_enough = loading + steps * step / _STEPS_SHARE <= self.seconds
        if is_enough:
            tables["trainer"]["evaluate_every"] = math.ceil(steps / 4)
        a_pass = steps_of_pass * step
        return Start(
            name,
            loss,
            {**tables, "sampler": offered.get("sampler", [])},
            seconds=loading + _LEAST_PASS * a_pass / _STEPS_SHARE,
            a_pass=a_pass,
            is_enough=is_enough,
        )

    @property
    def _held_out(self) -> str:
        """What a trial holds out."""
        text = self.facts.sample
        return text[len(text) * 9 // 10 :][: _SAMPLE // 10]

    def _trial(self, tables: Table) -> tuple[float, float, float]:
        """The loss of held-out text after the trainer of the tables, in nats per character; the
        seconds in which the model is loaded twice; and those of a step.
        """
        text = self.facts.sample
        # What a run holds out is the last tenth of its text, and here that of the sample.
        end = len(text) * 9 // 10 + _SAMPLE // 10
        corpus = text[max(0, end - _SAMPLE) : end]
        ends_of_steps: list[float] = []

        def observe(event: Any) -> None:
            if isinstance(event, StepDone):
                float(event.loss)  # waits for the device
                ends_of_steps.append(time.perf_counter())

        kinds = {kind: tables[kind] for kind in settings.KINDS if kind in tables}
        begun = time.perf_counter()
        run = Engine(self.plugins).train(corpus=corpus, observers=[observe], **kinds)
        with run.generator as generator:
            tokens = len(generator.tokenizer.encode(self._held_out))
        loss = (run.best_loss or 0.0) * tokens / len(self._held_out)
        if len(ends_of_steps) < 2:
            return loss, 0.0, 0.0
        loading = ends_of_steps[0] - begun
        step = (ends_of_steps[-1] - ends_of_steps[0]) / (len(ends_of_steps) - 1)
        return loss, 2 * loading, step


def _offered(name: str, plugins: PluginSet) -> Any:
    """The path or the tables that plugins offer by a name, or make of a path."""
    offered, path = offered_run(name, plugins), Path(name)
    if isinstance(offered, Path | Mapping) or (path / "run.json").is_file():
        return offered
    error: TextgenError | None = None
    for offer in plugins.offers("run"):
        if "path" in offer.component.options() and (path.exists() or "/" in name):
            try:
                return run_of(offer, plugins, {"path": name}, console=sys.stderr)
            except TextgenError as caught:
                error = caught
    if error is not None:
        raise error
    return offered


def _seconds_at_best(weights: int, tokens: float) -> float:
    """Seconds in which adapters to so many weights read tokens here at best, and are loaded."""
    loading = _LOADING * weights
    if devices.resolve("auto") != "cpu":
        return loading
    return loading + tokens * weights * _OPERATIONS / operations_per_second()
