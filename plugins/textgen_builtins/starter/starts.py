"""Starts of a pipeline: a new model, or one that knows the language of the text, each
with the loss to expect of it, and its price.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen import BuildContext, Engine, PluginSet, RegisteredComponent, TextgenError, UsageError
from textgen.errors import Fault
from textgen.gradient import GradientOptions, Length
from textgen.plugin import merged
from textgen.protocols import Model, Table, Tokenizer
from textgen.runs import load_generator, offered_run, run_of
from textgen.tokenizers import unknown_id
from textgen_builtins.starter import settings
from textgen_builtins.starter.settings import Pretrained

NONE: Final = "none"
_PIECES, _LENGTH = 12, 500  # characters of the sample, from so many places
_HELD_OUT: Final = 14_000  # characters that adapters are tried on
_UNTRAINED_TRAINER: Final = {
    "type": "adamw",
    "length": "1 step",
    "batch_size": 1,
    "learning_rate": 1e-12,
}
_TIMED_TOKENS: Final = 16  # tokens that are timed


@attrs.frozen
class Candidate:
    """A start, with the loss of held-out text to expect, in nats per character, its price, and the
    seconds that training needs at least to come to it.

    tables     of the pipeline, where a plugin offers tables in place of a run
    is_enough  whether more time would be of no use to these
    """

    name: str
    loss: float
    seconds: float = 0.0
    pretrained: Pretrained | None = None
    tables: Table = attrs.field(factory=dict)
    price: str = ""
    is_enough: bool = False

    def table(self) -> Table:
        """The facts in JSON; no loss where it was not tried."""
        loss = None if math.isinf(self.loss) else self.loss
        return {"name": self.name, "loss": loss, "seconds": self.seconds, "price": self.price}

    def __str__(self) -> str:
        loss = "" if math.isinf(self.loss) else f"{self.loss:.2f} "  # it was not tried
        return loss + ("without" if self.name == NONE else f"from {self.name}")


def named(plugins: PluginSet) -> list[RegisteredComponent]:
    """The offered runs that are not made of a path."""
    return [o for o in plugins.offers("run") if "path" not in o.component.options()]


def candidates(
    text: str,
    size: int,
    vocabulary: int,
    start: str | None,
    seconds: float,
    plugins: PluginSet,
    say: Callable[[str], None],
) -> list[Candidate]:
    """A new model, and the runs that plugins offer; or `start` alone.

    text        the text, or its beginning
    size        its characters in all
    vocabulary  number of different ones
    start       the name of an offered run, the path of a run directory or of what a plugin makes a
                model of, or "none"
    seconds     that a run may take
    say         told which runs are tried, and which cannot be started from

    Raises UsageError if `start` cannot be used.
    """
    offers = named(plugins) if start is None else []
    names = [o.name if plugins.find("run", o.name) == o else o.qualified_name for o in offers]
    without = settings.expected_loss(text)
    found: list[Candidate] = []
    if start in (None, NONE):
        chosen = settings.choose(size, vocabulary, seconds)
        megabytes = settings.run_bytes(size, vocabulary, chosen) / 1e6
        price = f"at most {seconds:.0f} seconds, {megabytes:.0f} MB a run"
        found.append(Candidate(NONE, without, price=price))
    for name in [start] if start not in (None, NONE) else names:
        try:
            offered = _offered(name, plugins)
            weights = offered.get("parameters", 0) if isinstance(offered, Mapping) else 0
            duration = ""
            if weights:
                speed = settings.adapting_speed()
                least = settings.least_seconds(size, weights, speed)
                if least > seconds:  # without loading it
                    found.append(Candidate(name, math.inf, least))
                    continue
                duration = f", {settings.trial_seconds(weights, speed)} seconds or so"
            say(f"trying {name} on a sample of the text{duration}")
            if isinstance(offered, Mapping):
                made = _adapted(name, offered, text, size, seconds, plugins)
            else:
                run, price = _tried(name, text, size, plugins)
                loss = settings.tuned_loss(run.loss, without)
                made = Candidate(name, loss, pretrained=run, price=price)
        except TextgenError as error:
            if start is not None:
                raise UsageError(str(error), argument="start") from error
            say(f"textgen: warning: {name} cannot be started from: {error}")
        else:
            found.append(made)
    return found


def best(found: list[Candidate], seconds: float) -> Candidate:
    """The one with the lowest loss of those that there is time for.

    Raises UsageError where there is time for none.
    """
    timely = [each for each in found if each.seconds <= seconds]
    if not timely:
        cause = f"a third of a pass over the text from {found[0].name} takes at least"
        raise UsageError(
            f"{cause} {found[0].seconds:.0f} seconds here; give at least --minutes "
            f"{math.ceil(found[0].seconds / 6) / 10}",
            argument="start",
        )
    return min(timely, key=lambda each: each.loss)


def told(each: Candidate, seconds: float) -> str:
    """A line on the loss to expect of a start, and whether there is time for it."""
    late = f" (needs {each.seconds:.0f} seconds)" if each.seconds > seconds else ""
    return f"{each}{late}"


def _offered(start: str, plugins: PluginSet) -> Path | Table | Fault | None:
    """The start that plugins offer by a name, or make of a path."""
    offered = offered_run(start, plugins)
    path = Path(start)
    if isinstance(offered, Path | Mapping) or (path / "run.json").is_file():
        return offered
    error: TextgenError | None = None
    for offer in plugins.offers("run"):
        if "path" in offer.component.options() and (path.exists() or "/" in start):
            try:
                return run_of(offer, plugins, {"path": start}, console=sys.stderr)
            except TextgenError as caught:
                error = caught
    if error is not None:
        raise error
    return offered


def _sample(text: str) -> str:
    step = max(1, len(text) // _PIECES)
    return "".join(text[place : place + min(step, _LENGTH)] for place in range(0, len(text), step))


def _tried(name: str, text: str, size: int, plugins: PluginSet) -> tuple[Pretrained, str]:
    """The run, with the loss of a sample under the model as it is when training begins: with its
    vocabulary for this text; and its price.
    """
    import torch

    sample, engine = _sample(text), Engine(plugins)
    with engine.load(name, device="cpu") as known:
        model, reads_all = dict(known.tables["model"]), unknown_id(known.tokenizer) is None
        strategy = known.tables["generate"].get("strategy", {})
    if model["type"] != "rnn":
        raise UsageError(f"its model is of the type {model['type']}, and init tunes type rnn")
    model.pop("start", None)
    tokenizer = None if reads_all else {"type": "char"}
    begun = engine.train(
        corpus=sample,
        tokenizer=tokenizer,
        model={"start": name},
        trainer=_UNTRAINED_TRAINER,
        data={"validation": 0},
        device="cpu",
    )
    with begun.generator as generator:
        score = generator.score(sample)
        loss, length = score.bits_per_character * math.log(2), score.characters / score.tokens
        context = BuildContext(folder=Path.cwd(), tokenizer=generator.tokenizer)
        speed, _ = settings.tried(
            engine.build("model", model, context),
            generator.tokenizer.encode(sample),
            context.vocab_size,
            64,
            GradientOptions(order="streams", precision="auto"),
            context.device,
            torch.get_num_threads() if context.device == "cpu" else 1,
        )
        run = Pretrained(
            name, size * settings.TRAINING / length / speed, loss, length, reads_all, strategy
        )
        weights = sum(each.nbytes for each in generator.model.tensors().values())
        return run, _price(run.seconds, generator.model, weights)


def _adapted(
    name: str,
    offered: Table,
    text: str,
    size: int,
    seconds: float,
    plugins: PluginSet,
) -> Candidate:
    """A model that is offered as tables, tuned as its table `start` says for as many passes as
    there is time for. Expected is its loss before: how much less it will be depends on the text.
    """
    given, begun = offered.get("start", {}), settings.Stopwatch()
    sample = text[len(text) * 9 // 10 :][:_HELD_OUT]  # in its order, as evaluations read it
    recipe, engine = merged(offered, given), Engine(plugins)
    data, trainer = recipe.get("data", {}), recipe.get("trainer", {})
    context, tokenizer, model = _built(recipe, engine)
    loading = 2 * begun.seconds()  # again to write
    tokens = tokenizer.encode(sample)
    read = max(10.0, size * settings.TRAINING * len(tokens) / len(sample))  # tokens in a pass
    window = min(data.get("window_length", 64), int(read / 10))  # a ninth is held out
    batch = trainer.get("batch_size", 64)
    while batch > 1 and read / window / batch < settings.ADAPTING_STEPS:
        batch //= 2
    speed, loss = settings.tried(
        model, tokens, context.vocab_size, window, GradientOptions(batch_size=batch), context.device
    )
    a_pass = read / speed
    passes = max(0.0, seconds - loading) * settings.USED / a_pass
    epochs = Length.of(trainer.get("length", "1 epoch")).epochs
    is_enough = passes >= epochs
    held_out = max(settings.evaluated(seconds, speed), window + 1)
    most = "" if math.isinf(epochs) else f"{epochs:.0f} epochs or "
    length: dict[str, Any] = {"length": f"{most}{seconds:.10g}s"}
    if is_enough:
        steps = math.ceil(read / window / batch) * int(epochs)
        every = settings.evaluate_every(steps, batch * window, min(held_out, read / 9))
        length["evaluate_every"] = every
    own = {"model": {"start": name}} if isinstance(offered_run(name, plugins), Mapping) else offered
    planned: dict[str, Any] = {
        "data": {"window_length": window, "validation": held_out},
        "trainer": {"batch_size": batch, **length},
        "sampler": offered.get("sampler", []),
    }
    least = loading + a_pass * settings.LEAST / settings.USED
    size = sum(each.nbytes for each in model.tensors().values())
    if trainer.get("average_share"):
        size += size * settings.AVERAGED // settings.CHECKPOINT
    del model
    price = f"{a_pass:.0f} seconds a pass, {_megabytes(size)}"
    if least <= seconds:
        with load_generator(offered, plugins, device="auto", given={}, source=name) as writer:
            price = _price(a_pass, writer.model, size)
    return Candidate(
        name,
        loss * len(tokens) / len(sample),
        least,
        tables=merged(merged(own, given), planned),
        is_enough=is_enough,
        price=price,
    )


def _built(recipe: Table, engine: Engine) -> tuple[BuildContext, Tokenizer, Model]:
    """Tokenizer and model of tables, and what the model was built in."""
    context = BuildContext(folder=Path.cwd())
    tokenizer = engine.build("tokenizer", recipe["tokenizer"], context)
    tokenizer.fit([])
    context = attrs.evolve(context, tokenizer=tokenizer)
    return context, tokenizer, engine.build("model", recipe["model"], context)


def _price(a_pass: float, model: Model, size: int) -> str:
    """The price of training, and of writing with a run whose weights have so many bytes."""
    decoder, token = model.decoder(1), np.zeros((1, 1), np.int64)
    decoder.extend(token)  # allocates memory
    watch = settings.Stopwatch()
    for _ in range(_TIMED_TOKENS):
        decoder.extend(token)
    rate = _TIMED_TOKENS / watch.seconds()
    return (
        f"{a_pass:.0f} seconds a pass, {rate:,.0f} tokens a second when writing, {_megabytes(size)}"
    )


def _megabytes(size: int) -> str:
    return f"{settings.CHECKPOINT * size / 1e6:.0f} MB a run"
