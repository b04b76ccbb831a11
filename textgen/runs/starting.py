"""The runs that a pipeline names: to start from, `start` in the tables of models and tokenizers, or
as options; at a path, or offered by a plugin.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias

import attrs

from textgen.contracts.components import Components
from textgen.errors import ContractError, Fault, PipelineError, RunError, UsageError
from textgen.files.opening import inside
from textgen.files.tensors import WEIGHTS, read_weights
from textgen.files.vocabularies import VOCABULARY, read_tokenizer
from textgen.pipeline.pipeline import Pipeline, make_pipeline, without_starts
from textgen.pipeline.raw_pipeline import Overrides, RawPipeline, read_raw_pipeline
from textgen.plugin.component import BuildContext, ComponentSource, RegisteredComponent
from textgen.plugin.config_reader import ConfigReader
from textgen.plugin.configured import BaseRun, ConfiguredComponent, RunOption, plain
from textgen.plugin.nested_tables import merged
from textgen.protocols import Table, Tokenizer
from textgen.runs.directory import RunDirectory, finished_run, run_directory
from textgen.runs.given_objects import with_choices
from textgen.runs.outside import Fetcher

Source: TypeAlias = str | Path | Table | Pipeline
"""A pipeline: the path of a TOML file, a mapping of the same shape, or a checked Pipeline."""


Offered: TypeAlias = Path | Table
"""A run directory; or the tables of a pipeline, whose tokenizer and model load what they need
themselves.
"""
_NAME: Final = re.compile(r"([\w.-]{2,}:)?[a-z0-9]+(-[a-z0-9]+)*")  # a drive has one letter


def resolve(
    source: Source,
    overrides: Overrides,
    plugins: ComponentSource,
    output: str | Path | None = None,
) -> Pipeline:
    """Read and check a pipeline, as `Engine.pipeline` describes."""
    own: dict[str, Any] = {} if output is None else {"output": run_directory(output, "output").path}
    if isinstance(source, Pipeline):
        if list(overrides):
            cause = "a checked Pipeline takes none; give what it was made from"
            raise UsageError(cause, argument="overrides")
        return attrs.evolve(source, **own) if own else source
    raw = read_raw_pipeline(source, overrides)
    tables = {**raw.tables, **own}
    if isinstance(source, Mapping):  # a file is data, and has no objects
        tables = with_choices(tables)
    return make_pipeline(with_start(attrs.evolve(raw, tables=tables), plugins), plugins)


def with_start(raw: RawPipeline, plugins: ComponentSource) -> RawPipeline:
    """A pipeline with the options of the runs that its models start from, and a BaseRun in place of
    each key `start`.

    Without a table [tokenizer] it is that of the first of these runs, with its vocabulary. Raises
    PipelineError.
    """
    finder = _Finder(raw, plugins)
    tables = dict(raw.tables)
    if "model" in tables:
        tables["model"] = finder.model(tables["model"], "model")
    if "tokenizer" not in tables and finder.found:
        first = finder.found[0]
        tables["tokenizer"] = _with(first, first.tables["tokenizer"])
    elif "tokenizer" in tables:
        tables["tokenizer"] = finder.tokenizer(tables["tokenizer"])
    return attrs.evolve(raw, tables=tables)


def start_tokenizer(tokenizer: Tokenizer, start: BaseRun, record: Table, own: Path) -> Tokenizer:
    """The tokenizer of the run that this one starts from; once this one has a record, from its own
    directory.
    """
    if record:
        return read_tokenizer(tokenizer, own, record["files"][VOCABULARY])
    return read_tokenizer(tokenizer, start.path, start.tokenizer)


def load_start(
    model: Any, choice: ConfiguredComponent, context: BuildContext, *, source: str
) -> None:
    """Load the weights of the run that a model starts from, for the vocabulary of the context's
    tokenizer.

    Raises PipelineError, of the pipeline `source`, if they do not fit.
    """
    from textgen.runs.vocabulary import for_vocabulary

    start, now = choice.start, context.tokenizer
    assert start is not None
    assert now is not None
    tensors = read_weights(inside(start.path, WEIGHTS), start.weights)
    own, plugins = start.tables["tokenizer"], context.plugins
    table = ConfigReader(start.path, plugins, source, "tokenizer").choice("tokenizer", own)
    unfitted = context.build(table, tokenizer=None)
    before = read_tokenizer(unfitted, start.path, start.tokenizer)

    def shapes_of(tokenizer: Any) -> dict[str, tuple[int, ...]]:
        other = context.build(attrs.evolve(choice, start=None), tokenizer=tokenizer)
        return {name: array.shape for name, array in other.tensors().items()}

    try:
        model.load_tensors(for_vocabulary(tensors, before, now, model.tensors(), shapes_of))
    except ValueError as error:
        cause = f"the weights of {start.name} do not fit: {error}"
        hint = f"leave out of [{start.table_key}] what is to be as in that run"
        raise PipelineError([Fault(f"{start.table_key}.start", cause, "", hint)], source) from error


def located(run: RunOption, plugins: ComponentSource | None = None) -> RunDirectory | Table:
    """The directory of a run that is an option of a component, or the tables that are offered in
    its place. Raises RunError unless it is finished.
    """
    found = Path(run.name) if run.offer is None else run_of(run.offer, plugins)
    return found if isinstance(found, Mapping) else finished_run(found)


@contextlib.contextmanager
def naming(run: RunOption) -> Iterator[None]:
    """Say which option a run is that cannot be used. Raises RunError."""
    try:
        yield
    except (RunError, UsageError) as error:
        raise RunError(f"{run.key}: {error}", Path(run.name)) from error


def offered_run(name: Any, plugins: ComponentSource) -> Offered | Fault | None:
    """The run that a plugin offers under a name, as `english` or `package:english`.

    None for what is not such a name, but a path; a Fault if no plugin offers it, or several do.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    offer = plugins.find("run", name)
    return offer if isinstance(offer, Fault) else run_of(offer, plugins)


def run_of(
    offer: RegisteredComponent,
    plugins: ComponentSource | None,
    options: Table | None = None,
    console: TextIO | None = None,
) -> Offered:
    """The run that a plugin offers; with options as of a table, what they name on a network is
    fetched, and its address is written to the console before.

    Raises PipelineError for wrong ones, and ContractError where it gives no run.
    """
    reader = ConfigReader(Path.cwd(), plugins, offer.name, "run")
    config = reader.table(offer.component.config, options or {})
    choice = ConfiguredComponent(offer.name, offer, config)
    if options:
        choice = Fetcher(console).choice(choice)
    with Components() as components:
        context = BuildContext(folder=reader.folder, training=False, plugins=plugins)
        made = components.build(choice, context)
    if isinstance(made, Path):
        return made.absolute()
    if isinstance(made, Mapping) and {"tokenizer", "model"} <= made.keys():
        for kind in ("tokenizer", "model"):
            if without_starts(made[kind]) != made[kind]:
                cause = f"gave a table {kind!r} with `start` from build, where it means nothing"
                advice = "let the component load the files itself, or give the Path of a run"
                raise ContractError(offer, f"{cause}; {advice}")
        return made
    cause = f"gave {type(made).__name__} from build, and must give the Path of a run directory"
    raise ContractError(offer, f"{cause}, or tables with tokenizer and model")


def identity(choice: ConfiguredComponent) -> Table:
    """The options of a component that determine what it makes.

    A config class may define `fingerprint() -> dict` to choose which of its options count.
    """
    own: dict[str, Any] = {"type": choice.offer.canonical_name}
    if choice.start is not None:
        weights = {"weights": choice.start.weights} if choice.offer.kind == "model" else {}
        own["start"] = {**weights, "tokenizer": choice.start.tokenizer}
    if hasattr(choice.options, "fingerprint"):
        return {**own, **plain(choice.options.fingerprint())}
    parts = {key: identity(part) for key, part in choice.parts().items()}
    runs = {key: _contents(run) for key, run in choice.runs().items()}
    return {**choice.table(), **own, **parts, **runs}


def _contents(run: RunOption) -> Table:
    """The checksums of a finished run, or the tables that a plugin offers in its place; nothing of
    one that is gone.
    """
    if run.offer is None and not Path(run.name).exists():
        return {}
    with naming(run):
        found = located(run)
        if isinstance(found, Mapping):
            return dict(plain(found))
        sums = found.read_run()["files"]
        return {name: sums[name] for name in (WEIGHTS, VOCABULARY)}


@attrs.define
class _Finder:
    """Finds the runs that a pipeline names. Raises PipelineError."""

    raw: RawPipeline
    plugins: ComponentSource
    found: list[BaseRun] = attrs.field(factory=list, init=False)

    def model(self, table: Any, key: str) -> Any:
        """The table of a model with the options of the run that it starts from, or that its parts
        start from.
        """
        if not isinstance(table, Mapping):
            return table
        if "start" in table:
            start = self._find(table["start"], key)
            theirs = start.tables["model"]
            return _with(start, merged(theirs, _own(table, theirs["type"])))
        given = table.get("type")
        offer = self.plugins.find("model", given) if isinstance(given, str) else None
        options = offer.component.options() if isinstance(offer, RegisteredComponent) else {}
        parts = [part for part, field in options.items() if field.metadata.get("kind") == "model"]
        changed = {
            part: self.model(table[part], f"{key}.{part}") for part in parts if part in table
        }
        return {**table, **changed}

    def tokenizer(self, table: Any) -> Any:
        """The table of a tokenizer, with the options of the run whose vocabulary it keeps, if there
        is one.
        """
        if not isinstance(table, Mapping) or "start" not in table:
            return table
        start = self._find(table["start"], "tokenizer")
        theirs = start.tables["tokenizer"]
        for key, value in _own(table, theirs["type"]).items():
            if theirs.get(key) != value:
                cause = f"the tokenizer of {start.name}, whose vocabulary it keeps, has another"
                raise self._refused(f"tokenizer.{key}", cause, "leave it out, or leave out start")
        return _with(start, theirs)

    def _find(self, given: Any, table_key: str) -> BaseRun:
        """The run that a key `start` means: one that a plugin offers under this name, or else the
        one at this path.
        """
        reader = ConfigReader(self.raw.folder, self.plugins, self.raw.source, f"{table_key}.start")
        run = reader.choice("run", given)
        try:
            found = located(run, self.plugins)
            if isinstance(found, RunDirectory):
                start = attrs.evolve(start_in(found, table_key), name=run.name)
            else:  # the tables name no weights of a run
                tables = merged(found, found.get("start", {}))
                start = BaseRun(run.name, table_key, Path(), "", "", tables)
        except RunError as error:
            unknown = offered_run(given, self.plugins)
            also = f"{unknown.expected}; {unknown.hint}" if isinstance(unknown, Fault) else ""
            raise self._refused(run.key, str(error), also) from error
        self.found.append(start)
        return start

    def _refused(self, key: str, cause: str, hint: str = "") -> PipelineError:
        return PipelineError([Fault(key, cause, "", hint)], self.raw.source)


def _own(table: Table, theirs: str) -> Table:
    """The options beside `start`, without the type if it is theirs, with or without the package."""
    names = theirs, theirs.rpartition(":")[2]
    return {
        key: value
        for key, value in table.items()
        if key != "start" and (key != "type" or value not in names)
    }


def _with(start: BaseRun, table: Table) -> Table:
    """A table with the run that it starts from, unless plugins offer tables in place of a run."""
    return {**table, "start": start} if start.tokenizer else table


def start_in(directory: RunDirectory, table_key: str) -> BaseRun:
    """The finished run in a directory, for a table."""
    sums, tables = directory.read_run()["files"], directory.read_pipeline().tables
    own = {kind: without_starts(tables[kind]) for kind in ("tokenizer", "model")}
    path = directory.path
    return BaseRun(str(path), table_key, path, sums[WEIGHTS], sums[VOCABULARY], own)
