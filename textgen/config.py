"""TOML to a frozen Pipeline: strict, every fault reported at once, by dotted path."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import and_, ge, le, lt, optional

from textgen import devices
from textgen.component import option
from textgen.errors import Fault, PipelineError
from textgen.plugins import Offer, PluginSet
from textgen.structure import plain, show, structure_table
from textgen.suggest import nearest

CHOICES = ("corpus", "tokenizer", "model", "trainer")
CHAINS = ("sampler", "observer")
MAX_SEED = 2**64
MAX_NEW_TOKENS = 10**9


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
        None, help="train on the first windows only, so many", validator=optional(ge(1))
    )
    validation_windows: int | None = option(
        None,
        help="hold out so many windows after the training windows, in place of the fraction",
        validator=optional(ge(0)),
    )


@attrs.frozen
class GenerateOptions:
    """What is written once the model is trained."""

    prompt: str = option("", help="the text to continue; empty starts from the model's start state")
    max_new_tokens: int = option(400, help="how many tokens to add", validator=and_(ge(0), le(MAX_NEW_TOKENS)))
    n: int = option(1, help="how many continuations", validator=and_(ge(1), le(1_000_000)))
    seed: int | None = option(
        None,
        help="seed of the random draws; the pipeline's seed if not set",
        validator=optional(and_(ge(0), lt(MAX_SEED))),
    )
    echo: bool = option(True, help="write the prompt before its continuation")
    unknown_characters: Literal["error", "skip", "unknown"] = option(
        "error", help="what to do about prompt characters outside the vocabulary: refuse, drop, or feed as <unk>"
    )


@attrs.frozen
class CheckpointOptions:
    """How often training is made safe."""

    seconds: float = option(
        30.0, help="the most work that a crash can cost; 0 writes a checkpoint after every step", validator=ge(0)
    )


@attrs.frozen
class PluginOptions:
    """Which plugins take part."""

    disable: tuple[str, ...] = option((), help="names of entry points to leave alone")


@attrs.frozen
class GeneralOptions:
    """The keys outside any table."""

    name: str | None = option(None, help="the run's name; the pipeline file's own if not set")
    seed: int = option(0, help="all randomness derives from it", validator=and_(ge(0), lt(MAX_SEED)))
    device: str = option("auto", help='where to compute: "auto", "cpu", "cuda", "cuda:N" or "mps"')
    output: Path | None = option(None, help="the run directory; runs/NAME under the current folder if not set")


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
    """A checked pipeline: nothing about it can still be wrong but the world. Made by Engine.pipeline."""

    name: str
    seed: int
    device: str
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
            "output": str(self.output),
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


@attrs.frozen
class Document:
    """A pipeline as it was written, not yet checked: its tables, where from, and the folder its paths start at."""

    tables: Mapping[str, Any]
    source: str
    folder: Path
    default_name: str

    def disabled_plugins(self) -> tuple[str, ...]:
        """The names in `[plugins] disable`, as far as they can be read; checking comes later."""
        table = self.tables.get("plugins")
        names = table.get("disable") if isinstance(table, Mapping) else None
        return tuple(n for n in names if isinstance(n, str)) if isinstance(names, list | tuple) else ()


def read_document(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Document:
    """Read a pipeline from a TOML file, or take a mapping of the same shape; then apply `KEY=VALUE` overrides."""
    if isinstance(source, Mapping):
        tables, name, folder, stem = _copy(source), "pipeline", Path.cwd(), "pipeline"
    else:
        path = Path(source)
        tables, name, folder, stem = _read_toml(path), str(source), path.absolute().parent, path.stem
    faults: list[Fault] = []
    for override in overrides:
        _override(tables, override, faults)
    if faults:
        raise PipelineError(faults, "--set")
    return Document(tables, name, folder, stem)


def make_pipeline(document: Document, plugins: PluginSet) -> Pipeline:
    """Check a document against the components there are. Raises PipelineError with every fault."""
    faults: list[Fault] = []
    tables = dict(document.tables)
    folder = document.folder
    known = [*attrs.fields_dict(GeneralOptions), *CHOICES, *CHAINS, *TABLES]
    for key in tables.keys() - set(known):
        faults.append(Fault(key, "unknown table or key", "", nearest(key, known) or f"there are {', '.join(known)}"))
    general_keys = attrs.fields_dict(GeneralOptions).keys() & tables.keys()
    general = structure_table(GeneralOptions, {k: tables[k] for k in general_keys}, "", folder, faults)
    name = general.name if general and general.name is not None else document.default_name
    _check_name(name, faults)
    if general and not devices.NAMES.fullmatch(general.device):
        faults.append(Fault("device", 'expected "auto", "cpu", "cuda", "cuda:N" or "mps"', show(general.device)))
    made = {key: structure_table(cls, tables.get(key, {}), key, folder, faults) for key, cls in TABLES.items()}
    choices = {kind: _choice(kind, tables.get(kind), kind, plugins, folder, faults) for kind in CHOICES}
    chains = {kind: _chain(kind, tables.get(kind), plugins, folder, faults) for kind in CHAINS}
    if faults:
        raise PipelineError(faults, document.source)
    return Pipeline(
        name=name,
        seed=general.seed,
        device=general.device,
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
    if tables is None:  # only observers have defaults: a chain of no samplers means something
        offers = [offer for offer in plugins.offers(kind) if offer.component.default]
        return tuple(Choice(o.component.name, o, o.component.config()) for o in offers)
    if not isinstance(tables, list | tuple):
        faults.append(Fault(kind, f"expected an array of tables, [[{kind}]]", show(tables)))
        return ()
    return tuple(_choice(kind, t, f"{kind}[{i}]", plugins, folder, faults) for i, t in enumerate(tables))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise PipelineError([Fault("", f"cannot be read: {error.strerror or error}")], str(path)) from error
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            fault = Fault("", f"not UTF-8 at byte {error.start}; TOML files are UTF-8")
            raise PipelineError([fault], str(path)) from error
        text = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)$", text)
        where = f":{place[1]}:{place[2]}" if place else ""
        text = text.removesuffix(place[0]) if place else text
        raise PipelineError([Fault("", f"not valid TOML: {text}")], f"{path}{where}") from error


def _override(tables: dict[str, Any], override: str, faults: list[Fault]) -> None:
    """Set one dotted key in place. Numbers in the path index arrays of tables."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        faults.append(Fault("", "expected KEY=VALUE, as in trainer.epochs=5", show(override, kind=False)))
        return
    value = _toml_value(text.strip())
    if isinstance(value, Fault):
        faults.append(attrs.evolve(value, path=key))
        return
    place: Any = tables
    for part in parts[:-1]:
        if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            place = None
    last = parts[-1]
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    else:
        faults.append(Fault(key, "there is no such place in the pipeline"))


def _toml_value(text: str) -> Any:
    """`text` as a TOML value; what is none is a string, unless it looks like a broken list, table or string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            return Fault("", f"not a TOML value: {error}", text)
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _check_name(name: str, faults: list[Fault]) -> None:
    reserved = re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    if not re.fullmatch(r"[^\W_][\w. +-]*", name) or ".." in name or reserved or len(name) > 100:
        faults.append(Fault("name", "expected a plain folder name (letters, digits, . _ - +)", show(name, kind=False)))


def _copy(value: Any) -> Any:
    """A deep copy of tables and lists, so that overrides leave the caller's mapping alone."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
