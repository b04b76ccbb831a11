"""A document to a frozen Pipeline: strict, every fault reported at once, by dotted path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs
from attrs.validators import and_, ge, le, lt, optional

from textgen import devices
from textgen.errors import Fault, PipelineError, UsageError
from textgen.pipeline.document import NAME, Document
from textgen.pipeline.structure import plain, show, structure_table
from textgen.plugin.component import option
from textgen.plugin.registry import Offer, PluginSet
from textgen.suggest import nearest

CHOICES = ("corpus", "tokenizer", "model", "trainer")
CHAINS = ("sampler", "observer")
UnknownCharacters: TypeAlias = Literal["error", "skip", "unknown"]
MAX_SEED = 2**64
MAX_NEW_TOKENS = 10**9
MAX_N = 10**6
MAX_STOPS = 1000
MAX_STOP_LENGTH = 10_000


def _check_length(_instance: Any, _attribute: Any, value: Sequence[Any]) -> None:
    if len(value) > MAX_STOPS:
        raise ValueError(f"must be at most {MAX_STOPS} items long")


def _check_stop(instance: Any, attribute: Any, value: str | tuple[str, ...]) -> None:
    texts = (value,) if isinstance(value, str) else value
    _check_length(instance, attribute, texts)
    if not all(0 < len(text) <= MAX_STOP_LENGTH for text in texts):
        raise ValueError(f"must hold texts of 1 to {MAX_STOP_LENGTH:,} characters")


@attrs.frozen
class DataOptions:
    """How the tokens are split and cut into windows."""

    window_length: int = option(64, help="tokens that a window feeds to the model", validator=ge(1))
    window_stride: int | None = option(
        None,
        help="tokens from one window's start to the next; the window length if not set",
        validator=optional(ge(1)),
    )
    validation_fraction: float = option(
        0.1, help="the last part of the corpus, held out for validation", validator=and_(ge(0), lt(1))
    )
    training_windows: int | None = option(
        None, help="number of windows to train on, from the start", validator=optional(ge(1))
    )
    validation_windows: int | None = option(
        None,
        help="number of windows to hold out after the training windows, in place of the fraction",
        validator=optional(ge(0)),
    )


@attrs.frozen(kw_only=True)
class DecodingOptions:
    """How long a text gets, where it ends, and what it depends on. Also keyword arguments of Generator.generate."""

    max_new_tokens: int | None = option(
        400, help="how many tokens to add at most", validator=optional(and_(ge(0), le(MAX_NEW_TOKENS)))
    )
    min_new_tokens: int = option(
        0, help="how many tokens to add before a stop counts", validator=and_(ge(0), le(MAX_NEW_TOKENS))
    )
    stop: tuple[str, ...] | str = option((), help="texts that end it, themselves left out", validator=_check_stop)
    stop_tokens: tuple[int, ...] = option(
        (), help="ids of tokens that end it, themselves kept", validator=_check_length
    )
    time_limit: float | None = option(None, help="seconds after which it ends", validator=optional(ge(0)))
    seed: int | None = option(
        None,
        help="seed of the random draws; the run's seed if not set",
        validator=optional(and_(ge(0), lt(MAX_SEED))),
    )
    echo: bool = option(False, help="put the prompt before its continuation")
    unknown_characters: UnknownCharacters = option(
        "error", help="what to do about prompt characters outside the vocabulary: refuse, drop, or feed as <unk>"
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop


@attrs.frozen(kw_only=True)
class GenerateOptions(DecodingOptions):
    """What is written once the model is trained."""

    prompt: str = option("", help="the text to continue; empty starts from the model's start state")
    max_new_tokens: int = option(400, help="how many tokens to add at most", validator=and_(ge(0), le(MAX_NEW_TOKENS)))
    n: int = option(1, help="how many continuations", validator=and_(ge(1), le(MAX_N)))
    echo: bool = option(True, help="put the prompt before its continuation")


@attrs.frozen
class CheckpointOptions:
    """How often a checkpoint is written."""

    seconds: float = option(
        30.0, help="the most work that a crash can cost; 0 writes a checkpoint after every step", validator=ge(0)
    )


@attrs.frozen
class PluginOptions:
    """Which plugins take part."""

    disable: tuple[str, ...] = option((), help="plugins to leave alone, by entry point, package or package:entry-point")


def _folder_name(instance: Any, attribute: Any, value: str) -> None:
    reserved = re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", value)
    if not NAME.fullmatch(value) or ".." in value or reserved or len(value) > 100:
        raise ValueError("must be a plain folder name (letters, digits, spaces, . _ - +)")


def _device(instance: Any, attribute: Any, value: str) -> None:
    if not devices.NAMES.fullmatch(value):
        raise ValueError('must be "auto", "cpu", "cuda", "cuda:N" or "mps"')


@attrs.frozen
class GeneralOptions:
    """The keys outside any table."""

    name: str | None = option(
        None, help="the run's name; the pipeline file's own if not set", validator=optional(_folder_name)
    )
    seed: int = option(0, help="all randomness derives from it", validator=and_(ge(0), lt(MAX_SEED)))
    device: str = option("auto", help='where to compute: "auto", "cpu", "cuda", "cuda:N" or "mps"', validator=_device)
    threads: int | None = option(
        None, help="CPU threads that train; as many as torch takes if not set", validator=optional(ge(1))
    )
    output: Path | None = option(None, help="the run directory; runs/NAME under the current folder if not set")
    default_observers: bool = option(True, help="whether the usual observers watch beside those listed here")


TABLES: Mapping[str, type] = {
    "data": DataOptions,
    "checkpoint": CheckpointOptions,
    "generate": GenerateOptions,
    "plugins": PluginOptions,
}


@attrs.frozen
class Choice:
    """A component that a pipeline chose, under the name it used, with its checked options."""

    name: str
    offer: Offer
    options: Any

    def table(self) -> dict[str, Any]:
        """The TOML table that makes this choice again, defaults filled in."""
        return {"type": self.name, **plain(self.options)}


@attrs.frozen(kw_only=True)
class Pipeline:
    """A checked pipeline: only what lies outside it, such as a file, can still be wrong. Made by Engine.pipeline."""

    name: str
    seed: int
    device: str
    threads: int | None
    output: Path
    folder: Path
    corpus: Choice
    tokenizer: Choice
    model: Choice
    trainer: Choice
    samplers: tuple[Choice, ...]
    observers: tuple[Choice, ...]
    data: DataOptions
    checkpoint: CheckpointOptions
    generate: GenerateOptions
    disabled_plugins: tuple[str, ...] = ()
    plugins: PluginSet = attrs.field(repr=False, eq=False)

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as TOML would hold it, every default filled in. Paths are absolute."""
        return {
            "name": self.name,
            "seed": self.seed,
            "device": self.device,
            **({} if self.threads is None else {"threads": self.threads}),
            "output": str(self.output),
            "default_observers": False,  # they are listed with all others
            "corpus": self.corpus.table(),
            "tokenizer": self.tokenizer.table(),
            "data": plain(self.data),
            "model": self.model.table(),
            "trainer": self.trainer.table(),
            "sampler": [choice.table() for choice in self.samplers],
            "observer": [choice.table() for choice in self.observers],
            "checkpoint": plain(self.checkpoint),
            "generate": plain(self.generate),
            "plugins": {"disable": list(self.disabled_plugins)},
        }

    def choices(self) -> tuple[Choice, ...]:
        """Every component it uses."""
        return (self.corpus, self.tokenizer, self.model, self.trainer, *self.samplers, *self.observers)


def make_pipeline(document: Document, plugins: PluginSet) -> Pipeline:
    """Check a document against the components there are. Raises PipelineError with every fault."""
    faults: list[Fault] = []
    tables = dict(document.tables)
    folder = document.folder
    known = [*attrs.fields_dict(GeneralOptions), *CHOICES, *CHAINS, *TABLES]
    for key in (str(key) for key in tables if key not in known):
        faults.append(Fault(key, "unknown table or key", "", nearest(key, known) or f"there are {', '.join(known)}"))
    general_keys = attrs.fields_dict(GeneralOptions).keys() & tables.keys()
    general = structure_table(GeneralOptions, {k: tables[k] for k in general_keys}, "", folder, faults)
    if tables.get("name") is None:  # the file's name was not made for this, so it is checked like one that was given
        structure_table(GeneralOptions, {"name": document.default_name}, "", folder, faults)
    made = {key: structure_table(cls, tables.get(key, {}), key, folder, faults) for key, cls in TABLES.items()}
    choices = {kind: _choice(kind, tables.get(kind), kind, plugins, folder, faults) for kind in CHOICES}
    chains = {kind: _chain(kind, tables.get(kind, ()), plugins, folder, faults) for kind in CHAINS}
    if faults:
        raise PipelineError(faults, document.source)
    name = document.default_name if general.name is None else general.name
    if general.default_observers and tables.get("observer") not in ([], ()):
        chains["observer"] = _with_defaults(chains["observer"], plugins)
    return Pipeline(
        name=name,
        seed=general.seed,
        device=general.device,
        threads=general.threads,
        output=(general.output or Path.cwd() / "runs" / name).absolute(),
        folder=folder,
        corpus=choices["corpus"],
        tokenizer=choices["tokenizer"],
        model=choices["model"],
        trainer=choices["trainer"],
        samplers=chains["sampler"],
        observers=chains["observer"],
        data=made["data"],
        checkpoint=made["checkpoint"],
        generate=made["generate"],
        disabled_plugins=made["plugins"].disable,
        plugins=plugins,
    )


def make_choice(kind: str, table: Any, plugins: PluginSet, folder: Path, *, source: str) -> Choice:
    """One component from its table, as a run directory or a caller gives it. Raises PipelineError."""
    faults: list[Fault] = []
    choice: Choice = _choice(kind, table, kind, plugins, folder, faults)
    if faults:
        raise PipelineError(faults, source)
    return choice


def standard_sampler(options: Mapping[str, Any], plugins: PluginSet) -> Choice:
    """The sampler that takes keyword arguments, given those. Raises UsageError with every fault."""
    standard = plugins.defaults("sampler")
    if len(standard) != 1:
        names = ", ".join(offer.qualified_name for offer in standard) or "none"
        raise UsageError(f"sampling options need one sampler that takes them, and there are: {names}")
    faults: list[Fault] = []
    made = structure_table(standard[0].component.config, options, "", Path.cwd(), faults)
    if faults:
        raise UsageError(faults=faults)
    return Choice(standard[0].component.name, standard[0], made)


def _choice(kind: str, table: Any, path: str, plugins: PluginSet, folder: Path, faults: list[Fault]) -> Any:
    """A Choice, or None with the reasons in `faults`."""
    if not isinstance(table, Mapping) or not isinstance(table.get("type"), str):
        names = ", ".join(sorted({offer.component.name for offer in plugins.offers(kind)}))
        given = "nothing" if table is None else show(table)
        if isinstance(table, Mapping):
            path, given = f"{path}.type", show(table["type"]) if "type" in table else "nothing"
        faults.append(Fault(path, f"expected a table with type = one of {names}", given))
        return None
    offer = plugins.find(kind, table["type"])
    if isinstance(offer, Fault):
        faults.append(attrs.evolve(offer, path=f"{path}.type"))
        return None
    options = {key: value for key, value in table.items() if key != "type"}
    made = structure_table(offer.component.config, options, path, folder, faults)
    return None if made is None else Choice(table["type"], offer, made)


def _chain(kind: str, tables: Any, plugins: PluginSet, folder: Path, faults: list[Fault]) -> tuple[Any, ...]:
    if not isinstance(tables, list | tuple):
        faults.append(Fault(kind, f"expected an array of tables, [[{kind}]]", show(tables)))
        return ()
    return tuple(_choice(kind, t, f"{kind}[{i}]", plugins, folder, faults) for i, t in enumerate(tables))


def _with_defaults(observers: tuple[Choice, ...], plugins: PluginSet) -> tuple[Choice, ...]:
    """The default observers that are not listed, then those that are."""
    listed = [choice.offer for choice in observers]
    defaults = [offer for offer in plugins.defaults("observer") if offer not in listed]
    return (*(Choice(offer.component.name, offer, offer.component.config()) for offer in defaults), *observers)
