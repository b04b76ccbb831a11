"""Loads a generator from a run directory."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import numpy as np

from textgen.contracts.components import Components
from textgen.errors import (
    ContractError,
    CorpusError,
    CorruptFileError,
    Fault,
    PipelineError,
    PluginWarning,
    UsageError,
)
from textgen.files.reading import json_checksum
from textgen.files.vocabularies import VOCABULARY, load_vocabulary
from textgen.generation.generator import Generator
from textgen.generation.sampling.chain import Chain
from textgen.generation.scoring import stream_loss, windows_loss
from textgen.pipeline.chain_options import changed, named
from textgen.pipeline.options import DataOptions, TextOptions
from textgen.pipeline.pipeline import without_starts
from textgen.pipeline.raw_pipeline import RawPipeline
from textgen.plugin.component import BuildContext, ComponentSource, RegisteredComponent
from textgen.plugin.config_reader import ConfigReader, Faults
from textgen.plugin.configured import ConfiguredComponent, RunOption, plain
from textgen.protocols import Ids, Table, Tokenizer
from textgen.runs.directory import RunDirectory
from textgen.runs.encoded_text import EncodedText, kept_tokens
from textgen.runs.fingerprint import differences
from textgen.runs.formats import CorpusDigest
from textgen.runs.given_objects import with_choices
from textgen.runs.record import other_versions
from textgen.runs.split import split_tokens
from textgen.runs.starting import identity, located, naming
from textgen.runs.stored import StoredRun, read_stored
from textgen.runs.vocabulary import are_different
from textgen.tokenizers import unknown_id

_WORSE, _NOISE = 1.3, 0.15  # times and nats that a few windows may be above all of a text
_CHANGED: Final = "the corpus is no longer the one that the model was trained on"
# Whether the text includes the prompt is for the caller to choose.
_DEFAULTS: Final = {field.name for field in attrs.fields(TextOptions)}
_Choices: TypeAlias = tuple[ConfiguredComponent, ConfiguredComponent, Sequence[ConfiguredComponent]]


class RunComponents(Components):
    """Components that may have runs among their options, each of which is loaded once."""

    def __init__(self, base: Components | None = None) -> None:
        super().__init__(base)
        self._runs: dict[str, Generator] = getattr(base, "_runs", {})

    def build(self, choice: ConfiguredComponent | RunOption, context: BuildContext) -> Any:
        """Build the object of a component, or load a run that is an option of one."""
        if isinstance(choice, ConfiguredComponent):
            return super().build(choice, context)
        if choice.name not in self._runs:
            plugins, device = context.plugins, context.requested_device
            assert plugins is not None
            with naming(choice):
                found = located(choice, plugins)
                made = load_generator(found, plugins, device=device, given={}, source=choice.name)
            weakref.finalize(made, made.components.close).atexit = False
            self._runs[choice.name] = made
        return self._runs[choice.name]


def load_generator(
    found: RunDirectory | Table,
    plugins: ComponentSource,
    *,
    device: str,
    given: Table,
    source: str = "",
    raw: RawPipeline | None = None,
) -> Generator:
    """The generator of a run: its model, or while it has none, the weights of its best checkpoint;
    or of the tables that a plugin offers in place of a run, whose tokenizer and model load
    themselves, and whose name is `source`.

    Tables and objects in `given`, by kind, take the place of the run's own, and `raw` that of its
    whole pipeline.toml.
    """
    if isinstance(found, Mapping):
        own = {key: value for key, value in found.items() if key != "start"}
        stored = StoredRun(RawPipeline(own, source, Path.cwd(), source))
    else:
        stored = read_stored(found, raw)
    raw, record = stored.raw, stored.record
    tables = {**raw.tables, **_given_choices(given, plugins)}
    reader = ConfigReader(raw.folder, plugins, raw.source)
    try:
        choices = _choices(tables, reader)
        if stored.is_edited:
            _check_edits(stored, [each for each in choices[:2] if each.offer.kind not in given])
        for remark in stored.remarks:
            warnings.warn(remark, stacklevel=3)
        context = BuildContext(
            folder=raw.folder,
            requested_device=device,
            seed=record.get("seed", 0),
            training=stored.directory is None,  # a model that loads itself does so as for training
            plugins=plugins,
        )
        generator = _build(choices, context, stored)
    except (ContractError, CorruptFileError, PipelineError) as error:
        versions = other_versions(record)
        error.advice = "; ".join(filter(None, [versions, error.advice]))
        raise
    defaults = {k: v for k, v in tables.get("generate", {}).items() if k in _DEFAULTS}
    generator = attrs.evolve(
        generator,
        model_id=stored.model_id or json_checksum([identity(each) for each in choices[:2]]),
        defaults=defaults,
        tables=plain(tables),
        record=record,
    )
    if stored.directory is None:
        return generator
    path, tokenizer = stored.directory.path, generator.tokenizer
    training_tokens = partial(_training_tokens, path, tables, record, tokenizer, reader)
    return attrs.evolve(generator, path=path, training_tokens=training_tokens)


def _build(choices: _Choices, context: BuildContext, stored: StoredRun) -> Generator:
    """The generator of tokenizer, model and samplers: with vocabulary and weights of a run, or as
    they load themselves.
    """
    (tokenizer_choice, model_choice, samplers), directory = choices, stored.directory
    with contextlib.ExitStack() as stack:
        components = stack.enter_context(RunComponents())
        tokenizer = components.build(tokenizer_choice, context)
        if directory is None:
            with components.blaming(tokenizer_choice.offer):
                tokenizer.fit([])
        else:
            tokenizer = load_vocabulary(tokenizer, stored.vocabulary, directory.path / VOCABULARY)
            if max(stored.record.get("priming", ()), default=0) >= tokenizer.vocab_size:
                cause = "priming: ids outside the vocabulary"
                raise CorruptFileError(directory.path / "run.json", cause)
            components.add(tokenizer, tokenizer_choice.offer)
        context = attrs.evolve(context, tokenizer=tokenizer)
        model = components.build(model_choice, context)
        if directory is not None:
            load_weights(model, model_choice, stored.tensors, directory.path)
        elif callable(freeze := getattr(model, "requires_grad_", None)):
            freeze(False)  # it is built as for training, to load its weights, and only writes
        generator = make_generator(
            samplers, model_choice, model, context, components, stored.raw.source
        )
        stack.pop_all()  # from here on, Generator.close closes them
    return generator


def _given_choices(given: Table, plugins: ComponentSource) -> Table:
    """The components that a program gives in place of the run's own; paths are relative to the
    current folder.
    """
    choices: dict[str, Any] = {}
    for kind, value in with_choices(given).items():
        reader = ConfigReader(Path.cwd(), plugins, "", kind)
        if kind == "sampler":
            choices[kind] = reader.chain(kind, value)
        else:
            choices[kind] = reader.choice(kind, value)
    return choices


def _choices(tables: Table, reader: ConfigReader) -> _Choices:
    """The tokenizer, model and samplers of tables. Raises PipelineError."""
    made, faults = list[Any](), Faults()
    for kind in ("tokenizer", "model"):
        with faults.collected():
            made.append(_choice(kind, tables, reader))
    with faults.collected():
        samplers = reader.at("sampler").chain("sampler", tables.get("sampler", ()))
    if (strategy := tables.get("generate", {}).get("strategy")) is not None:
        with faults.collected():
            samplers += (reader.at("generate.strategy").choice("strategy", strategy),)
    faults.check(reader.source)
    return made[0], made[1], samplers


def _choice(kind: str, tables: Table, reader: ConfigReader) -> Any:
    table = tables.get(kind)
    return reader.at(kind).choice(kind, table if kind == "corpus" else without_starts(table))


def _check_edits(stored: StoredRun, choices: Iterable[ConfiguredComponent]) -> None:
    """Raise CorruptFileError if an edited pipeline.toml no longer describes the weights."""
    now: dict[str, Table] = {}
    for choice in choices:
        with contextlib.suppress(PipelineError):  # what training read may be gone
            now[choice.offer.kind] = identity(choice)
    then = {kind: stored.record["fingerprint"][kind] for kind in now}
    # An option that is not set on one side may be of another version of the plugin.
    edits = [each for each in differences(then, now) if None not in (each.before, each.now)]
    if edits:
        cause = f"it no longer describes the weights: {'; '.join(map(str, edits))}"
        raise CorruptFileError(Path(stored.raw.source), cause)


def build_chain(
    choices: Sequence[ConfiguredComponent],
    model: RegisteredComponent,
    context: BuildContext,
    components: Components,
    source: str,
) -> Chain:
    """A chain of samplers, and of a strategy if there is one, for the logits of a model.

    Raises PipelineError with the faults of all of them, each with its key in a pipeline.
    """
    built, faults = [], Faults()
    tokenizer = context.tokenizer
    assert tokenizer is not None
    for number, choice in enumerate(choices):
        try:
            built.append((choice, components.build(choice, context)))
            check_models(choice, built[-1][1], attrs.evolve(context, builder=components.build))
        except PipelineError as error:
            is_sampler = choice.offer.kind == "sampler"
            key = f"sampler.{number}" if is_sampler else "generate.strategy"
            faults += [fault.below(key) for fault in error.faults]
    faults.check(source)
    return Chain.of(built, model, tokenizer.vocab_size, unknown_id(tokenizer), components)


def check_models(choice: ConfiguredComponent, made: Any, context: BuildContext) -> None:
    """Raise PipelineError for a run among the options of a strategy that gives it a model of
    another vocabulary.
    """
    models, own = getattr(made, "models", ()), context.tokenizer
    faults = Faults()
    assert own is not None
    for key, run in choice.runs().items():
        other = context.build(run)
        if any(other.model is model for model in models) and are_different(other.tokenizer, own):
            sizes = f"of {other.tokenizer.vocab_size} tokens; that of the text has {own.vocab_size}"
            faults.append(Fault(key, f"the run has another vocabulary, {sizes}"))
    faults.check(choice.name)


def make_generator(
    samplers: Sequence[ConfiguredComponent],
    model_choice: ConfiguredComponent,
    model: Any,
    context: BuildContext,
    components: Components,
    source: str,
) -> Generator:
    """A generator of a model that is already built."""
    context = attrs.evolve(context, model=model)
    assert context.tokenizer is not None

    def make_chain(options: Table) -> Chain:
        assert context.plugins is not None
        choices, own = changed(samplers, options, context.plugins), RunComponents(components)
        try:
            made = build_chain(choices, model_choice.offer, context, own, source)
        except BaseException as error:
            own.close()
            if not isinstance(error, PipelineError):
                raise
            # Without the place in a pipeline, of two words.
            bare = (attrs.evolve(f, path=".".join(f.path.split(".")[2:])) for f in error.faults)
            raise UsageError(faults=named(bare, [choice.offer for choice in choices])) from error
        weakref.finalize(made, own.close).atexit = False
        return made

    def make_module(device: str) -> Any:
        made = RunComponents(components).build(
            model_choice, attrs.evolve(context, training=True, requested_device=device)
        )
        load_weights(made, model_choice, model.tensors())
        return made

    return Generator(
        tokenizer=context.tokenizer,
        model=model,
        chain=build_chain(samplers, model_choice.offer, context, components, source),
        make_chain=make_chain,
        make_module=make_module,
        seed=context.seed,
    )


def load_weights(
    model: Any,
    choice: ConfiguredComponent,
    tensors: Mapping[str, np.ndarray],
    run: Path | None = None,
) -> None:
    """Load weights into a model; `run` is where they are from.

    Raises ContractError if it refuses them.
    """
    try:
        model.load_tensors(dict(tensors))
    except (ValueError, RuntimeError) as error:  # torch raises the latter for other shapes
        cause = f"refuses the weights of {run or 'the run'}: {' '.join(str(error).split())}"
        raise ContractError(choice.offer, cause) from error


def compare_loss(generator: Generator, model: RegisteredComponent, tokens: Ids) -> None:
    """Warn if the model of a run that was read back predicts the held-out text far worse than
    training said.
    """
    expected = generator.record.get("best_loss")
    if expected is None:
        return
    most = _WORSE * expected + _NOISE
    with generator.chain.components.blaming():
        loss = windows_loss(generator.model, tokens)
        if loss is not None and loss > most:
            # Training may have read the text in one stream, and a model may learn from it.
            loss = min(loss, stream_loss(generator.model, tokens))
    if loss is not None and loss > most:
        warnings.warn(
            f"{model} predicts held-out text with {loss:.2f} nats a token, and training said "
            f"{expected:.2f}: it does not generate as it was trained; `textgen plugins check` "
            "looks for the cause",
            PluginWarning,
            stacklevel=2,
        )


def _training_tokens(
    path: Path,
    tables: Table,
    record: Table,
    tokenizer: Tokenizer,
    reader: ConfigReader,
) -> Ids:
    """The tokens (N,) that the model was trained on. Raises CorpusError where the text has changed,
    and the cache has those of before no more.
    """
    choices = _choice("corpus", tables, reader), _choice("tokenizer", tables, reader)
    data = reader.at("data").table(DataOptions, tables.get("data", {}))
    then = CorpusDigest(**record["fingerprint"]["corpus"])
    tokens = kept_tokens(then, tokenizer)
    if tokens is None:
        context = BuildContext(
            folder=reader.folder, seed=record["seed"], training=False, plugins=reader.plugins
        )
        with Components() as components:
            corpus = components.build(choices[0], context)
            text = EncodedText(corpus, tokenizer, *choices, tokenizer.to_dict())
            if text.find():  # the files hold another text, else the cache had this one
                raise CorpusError(_CHANGED)
            text.digest = then
            tokens = text.tokens(_CHANGED)
    held_out = record["data"].get("held_out", ())
    return split_tokens(tokens, data, tokenizer, held_out).training
