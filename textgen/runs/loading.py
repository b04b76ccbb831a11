"""Loads a generator from a run directory."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen.contracts import checks
from textgen.contracts.components import Components
from textgen.errors import CorruptFileError, Fault, PipelineError, UsageError
from textgen.files.reading import VOCABULARY, load_vocabulary
from textgen.generation.chain import Chain
from textgen.generation.generator import Generator
from textgen.pipeline.options import DataOptions, TextOptions
from textgen.pipeline.pipeline import make_choice, no_chain, without_start
from textgen.pipeline.sampling import changed, named
from textgen.plugin.component import OBJECT, UNPACKAGED, BuildContext, ComponentSource
from textgen.plugin.structure import Choice, Reader, listed, plain
from textgen.protocols import Ids, Tokenizer
from textgen.runs import record as run_record
from textgen.runs.corpus import check_sources
from textgen.runs.directory import RunDirectory
from textgen.runs.encoded_text import EncodedText
from textgen.runs.formats import CorpusDigest
from textgen.runs.objects import with_choices
from textgen.runs.splitting import split_tokens
from textgen.runs.stored import SHOWN, StoredRun, edits_that_break_weights, read_stored
from textgen.windows import quoted

logger = logging.getLogger("textgen")
# Names and versions of distributions (PEP 508 and 440). None that matches means anything to a shell.
_PACKAGE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION: Final = re.compile(
    r"\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?"
)
# Whether the text includes the prompt is for the caller to choose.
_DEFAULTS: Final = {field.name for field in attrs.fields(TextOptions)}


def load_generator(
    directory: RunDirectory,
    plugins: ComponentSource,
    *,
    device: str,
    given: Mapping[str, Any],
) -> Generator:
    """The generator of a run: its model, or while it has none, the weights of its best checkpoint.

    Tables and objects in `given`, by kind, take the place of the run's own.
    """
    with contextlib.ExitStack() as stack:
        components = stack.enter_context(Components())
        stored = read_stored(directory)
        for remark in stored.remarks:
            warnings.warn(remark, stacklevel=3)
        generator = _load(stored, plugins, device, given, components)
        stack.pop_all()  # from here on, Generator.close closes them
    logger.info("loaded the run in %s", generator.path)
    return generator


def _load(
    stored: StoredRun,
    plugins: ComponentSource,
    device: str,
    given: Mapping[str, Any],
    components: Components,
) -> Generator:
    directory, record, document = stored.directory, stored.record, stored.document
    reader = Reader(document.folder, plugins, run_record.origins(record))
    given = _given_choices(given, reader)
    tables = {**document.tables, **given}

    context = BuildContext(
        folder=document.folder,
        requested_device=device,
        seed=record["seed"],
        training=False,
        plugins=plugins,
    )
    wanted = [("tokenizer", tables["tokenizer"]), ("model", without_start(tables["model"])[0])]
    if not isinstance(chain := tables.get("sampler", []), list | tuple):
        raise PipelineError([no_chain("sampler", chain)], str(directory.path / "pipeline.toml"))
    wanted += [("sampler", table) for table in chain]
    tokenizer_choice, model_choice, *chain = _choices(directory, record, wanted, reader)
    _check_edits(stored, given)
    for remark in run_record.changed_plugin_files(record, [tokenizer_choice, model_choice, *chain]):
        warnings.warn(remark, stacklevel=4)
    tokenizer = components.build(tokenizer_choice, context)
    tokenizer = load_vocabulary(tokenizer, stored.vocabulary, directory.path / VOCABULARY)
    components.add(tokenizer, tokenizer_choice.offer)
    context = attrs.evolve(context, tokenizer=tokenizer)
    model = components.build(model_choice, context)
    load_weights(model, model_choice, stored.tensors, directory.path)
    return attrs.evolve(
        make_generator(chain, model_choice, model, context, components),
        path=directory.path,
        model_id=stored.model_id,
        defaults={
            key: value for key, value in tables.get("generate", {}).items() if key in _DEFAULTS
        },
        tables=plain(tables),
        record=record,
        training_tokens=partial(_training_tokens, directory, tables, record, tokenizer, reader),
    )


def _given_choices(given: Mapping[str, Any], reader: Reader) -> dict[str, Any]:
    """The components that a program gives in place of the run's own; paths are relative to the current folder.

    Raises PipelineError, which names the argument.
    """
    made: dict[str, Any] = {}
    reader = attrs.evolve(reader, folder=Path.cwd())
    assert reader.plugins is not None
    for kind, value in with_choices(given, reader.plugins).items():
        if kind != "sampler":
            made[kind] = make_choice(kind, value, reader, source="")
        elif isinstance(value, list | tuple):
            made[kind] = [make_choice(kind, each, reader, source="") for each in value]
        else:
            raise PipelineError([no_chain(kind, value)], "")
    return made


def _choices(
    directory: RunDirectory,
    record: Mapping[str, Any],
    tables: Sequence[tuple[str, Any]],
    reader: Reader,
) -> list[Choice]:
    """The components of tables, by kind. Raises UsageError, and PipelineError with all that is wrong or missing."""
    _check_objects(directory, tables)
    made: list[Choice] = []
    faults: list[Fault] = []
    sources: list[str] = []
    path = directory.path / "pipeline.toml"
    for kind, table in tables:
        try:
            made.append(make_choice(kind, table, reader, source=""))
        except PipelineError as error:
            faults += error.faults
            sources += [each for each in _origins(record, kind, table) if each not in sources]
    if faults:
        raise PipelineError(faults, f"{path} ({'; '.join(sources)})" if sources else str(path))
    return made


def _check_edits(stored: StoredRun, given: Mapping[str, Any]) -> None:
    """Raise CorruptFileError where pipeline.toml was changed in what no longer describes the weights."""
    edits = [
        edit
        for edit in edits_that_break_weights(stored.record, stored.edits)
        if edit.key.partition(".")[0] not in given
    ]
    if edits:
        path = stored.directory.path / "pipeline.toml"
        raise CorruptFileError(
            path, f"it no longer describes the weights: {listed(edits, SHOWN)}", remedy="copy"
        )


def make_generator(
    samplers: Sequence[Choice],
    model_choice: Choice,
    model: Any,
    context: BuildContext,
    components: Components,
) -> Generator:
    """A generator of a model that is already built; what it builds itself, `components` closes."""
    tokenizer = context.tokenizer
    assert tokenizer is not None

    def chain_of(choices: Iterable[Choice]) -> Chain:
        built = [(choice, components.build(choice, context)) for choice in choices]
        return Chain.of(
            built, model_choice.offer, tokenizer.vocab_size, tokenizer.unknown_id, components
        )

    def make_chain(options: Mapping[str, Any]) -> Chain:
        assert context.plugins is not None
        choices = changed(samplers, options, context.plugins)
        try:
            return chain_of(choices)
        except PipelineError as error:
            faults = named(error.faults, [choice.offer for choice in choices])
            raise UsageError(faults=faults) from error

    def make_module(device: str) -> Any:
        made = components.build(
            model_choice, attrs.evolve(context, training=True, requested_device=device)
        )
        load_weights(made, model_choice, model.tensors())
        return made

    return Generator(
        tokenizer=tokenizer,
        model=model,
        chain=chain_of(samplers),
        make_chain=make_chain,
        make_module=make_module,
        seed=context.seed,
    )


def load_weights(
    model: Any, choice: Choice, tensors: Mapping[str, np.ndarray], run: Path | None = None
) -> None:
    """Load weights into a model; `run` is where they are from. Raises ContractError if it refuses its own."""
    try:
        model.load_tensors(dict(tensors))
    except checks.FAILURES as error:
        cause = _unlike(model, tensors) or (str(error) if isinstance(error, ValueError) else "")
        if not cause:
            raise
        files = (
            "pipeline.toml, tokenizer.json and the weights, model.safetensors, do not fit together"
        )
        given = "give a model of the size that was trained"
        where = (
            ""
            if run is None
            else f"; {given if choice.offer.distribution == OBJECT else f'in {run}, {files}'}"
        )
        raise checks.blame(
            choice.offer, f"refuses the weights of the run: {cause}{where}"
        ) from error


def _unlike(model: Any, tensors: Mapping[str, np.ndarray]) -> str:
    """The weights of which a model has other shapes than a run, the first of them; "" if it has the same."""
    try:
        own = {name: array.shape for name, array in model.tensors().items()}
    except checks.FAILURES:
        return ""
    run = {name: array.shape for name, array in tensors.items()}
    names = [name for name in {**own, **run} if run.get(name) != own.get(name)]
    shown = [
        f"{n} is {run.get(n, 'missing')} in the run and {own.get(n, 'missing')} in the model"
        for n in names[:3]
    ]
    return "; ".join(shown) + (f"; and {len(names) - 3} more differ" if len(names) > 3 else "")


def _training_tokens(
    directory: RunDirectory,
    tables: Mapping[str, Any],
    record: Mapping[str, Any],
    tokenizer: Tokenizer,
    reader: Reader,
) -> Ids:
    """The tokens (N,) that the model was trained on. Raises CorpusError when the text changed."""
    wanted = [(kind, tables[kind]) for kind in ("corpus", "tokenizer")]
    corpus_choice, tokenizer_choice = _choices(directory, record, wanted, reader)
    data = reader.table(DataOptions, tables.get("data", {}), "data")
    check_sources(corpus_choice, reader.folder)
    then = CorpusDigest(**record["fingerprint"]["corpus"])
    context = BuildContext(
        folder=reader.folder, seed=record["seed"], training=False, plugins=reader.plugins
    )
    with Components() as components:
        corpus = components.build(corpus_choice, context)
        vocabulary = tokenizer.to_dict()
        starts = without_start(tables["model"])[1] is not None
        choices = corpus_choice, tokenizer_choice
        text = EncodedText(corpus, tokenizer, *choices, vocabulary if starts else None)
        if text.find() and (text.digest, text.tokenizer.to_dict()) != (then, vocabulary):
            text = EncodedText(corpus, tokenizer, *choices, vocabulary)  # without the cache
        text.digest = then
        tokens = text.tokens("the corpus is no longer the one that the model was trained on")
    return split_tokens(tokens, data, tokenizer).training


def _check_objects(directory: RunDirectory, tables: Iterable[tuple[str, Any]]) -> None:
    """Raise UsageError where a program has to give objects again."""
    missing: dict[str, list[str]] = {}
    for kind, table in tables:
        name = str(table.get("type", "")) if isinstance(table, Mapping) else ""
        if name.partition(":")[0] == OBJECT:
            missing.setdefault(kind, []).append(name.partition(":")[2])
    if missing:
        names = ", ".join(f"{kind} {name!r}" for kind, each in missing.items() for name in each)
        cause = f"the run in {directory.path} was made with objects of a program ({names})"
        again = ", ".join(
            f"{kind}=[{kind}]" if kind == "sampler" else f"{kind}={kind}" for kind in missing
        )
        raise UsageError(
            f"{cause}; give them again, as in textgen.load(path, {again})",
            argument=next(iter(missing)),
        )


def _origins(record: Mapping[str, Any], kind: str, table: Any) -> list[str]:
    """Where the component of a table came from, and what to install if its plugin is gone; [] if that is not known."""
    name = str(table.get("type", "")).rpartition(":")[2] if isinstance(table, Mapping) else ""
    entries = record.get("components", ())
    return [
        f"its {kind} {_advice(each)}"
        for each in entries
        if (each["kind"], each["name"]) == (kind, name)
    ][:1]


def _advice(entry: Mapping[str, Any]) -> str:
    """Where a component came from, and what to do if it is missing. A stranger may have written the entry."""
    if path := entry.get("path"):
        command = f"textgen --plugin {quoted(path)} …"
        return f"came from the file {path}; if it is missing: {command}, or PluginSet.register_file in a program"
    if entry["distribution"] == UNPACKAGED:
        return f"came from the plugin {entry['plugin']!r} of a program; if it is missing: PluginSet.register adds it"
    name, version = entry["distribution"], entry["version"]
    if not (_PACKAGE.fullmatch(name) and _VERSION.fullmatch(version)):
        return f"came with {name!r} {version!r}, which no package is called"
    return f"came with {name} {version}; if it is missing: pip install {name}=={version}"
