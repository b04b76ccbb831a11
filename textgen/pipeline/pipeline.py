"""Checks a document and makes a frozen Pipeline of it; all faults are reported at once, by dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen.errors import Fault, PipelineError
from textgen.pipeline.document import Document
from textgen.pipeline.options import TABLES, CheckpointOptions, DataOptions, GeneralOptions, GenerateOptions
from textgen.pipeline.structure import plain, show, structure_table
from textgen.plugin.component import ComponentSource, Offer
from textgen.suggest import nearest

CHOICES = ("corpus", "tokenizer", "model", "trainer")
CHAINS = ("sampler", "observer")


@attrs.frozen
class Choice:
    """A component that a pipeline uses, under the name given there, with its checked options."""

    name: str
    offer: Offer
    options: Any

    def table(self) -> dict[str, Any]:
        """The TOML table of this choice, with defaults filled in."""
        return {"type": self.name, **plain(self.options)}


@attrs.frozen(kw_only=True)
class Pipeline:
    """A checked pipeline, made by Engine.pipeline."""

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
    plugins: ComponentSource = attrs.field(repr=False, eq=False)

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as TOML tables with every default filled in. Paths are absolute."""
        return {
            "name": self.name,
            "seed": self.seed,
            "device": self.device,
            **({} if self.threads is None else {"threads": self.threads}),
            "output": str(self.output),
            "default_observers": False,  # they are among those listed
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


def make_pipeline(document: Document, plugins: ComponentSource) -> Pipeline:
    """Check a document against the available components. Raises PipelineError with every fault."""
    faults: list[Fault] = []
    tables = dict(document.tables)
    folder = document.folder
    known = [*attrs.fields_dict(GeneralOptions), *CHOICES, *CHAINS, *TABLES]
    for key in (str(key) for key in tables if key not in known):
        faults.append(Fault(key, "unknown table or key", "", nearest(key, known) or f"there are {', '.join(known)}"))
    general_keys = attrs.fields_dict(GeneralOptions).keys() & tables.keys()
    general = structure_table(GeneralOptions, {k: tables[k] for k in general_keys}, "", folder, faults)
    if tables.get("name") is None:  # the file's name may not be valid for a run, so it is checked like a given one
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
        **choices,
        samplers=chains["sampler"],
        observers=chains["observer"],
        disabled_plugins=made.pop("plugins").disable,
        **made,
        plugins=plugins,
    )


def make_choice(kind: str, table: Any, plugins: ComponentSource, folder: Path, *, source: str) -> Choice:
    """One component from its table. Raises PipelineError."""
    faults: list[Fault] = []
    choice: Choice = _choice(kind, table, kind, plugins, folder, faults)
    if faults:
        raise PipelineError(faults, source)
    return choice


def _choice(kind: str, table: Any, path: str, plugins: ComponentSource, folder: Path, faults: list[Fault]) -> Any:
    """A Choice, or None with the reasons in `faults`."""
    if not isinstance(table, Mapping) or not isinstance(table.get("type"), str):
        names = ", ".join(sorted({offer.name for offer in plugins.offers(kind)}))
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


def _chain(kind: str, tables: Any, plugins: ComponentSource, folder: Path, faults: list[Fault]) -> tuple[Any, ...]:
    if not isinstance(tables, list | tuple):
        faults.append(Fault(kind, f"expected an array of tables, [[{kind}]]", show(tables)))
        return ()
    return tuple(_choice(kind, t, f"{kind}[{i}]", plugins, folder, faults) for i, t in enumerate(tables))


def _with_defaults(observers: tuple[Choice, ...], plugins: ComponentSource) -> tuple[Choice, ...]:
    """The default observers that are not listed, then the listed ones."""
    listed = [choice.offer for choice in observers]
    defaults = [offer for offer in plugins.defaults("observer") if offer not in listed]
    return (*(Choice(offer.name, offer, offer.component.config()) for offer in defaults), *observers)
