"""Checks a raw pipeline and makes a frozen Pipeline of it. All faults are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen.errors import Fault, UsageError
from textgen.pipeline.chain_options import changed
from textgen.pipeline.options import (
    TABLES,
    CheckpointOptions,
    DataOptions,
    GeneralOptions,
    GenerateOptions,
)
from textgen.pipeline.raw_pipeline import CHAINS, RawPipeline
from textgen.plugin.component import ComponentSource
from textgen.plugin.structure import ConfigReader, ConfiguredComponent, plain, show
from textgen.protocols import Table

CHOICES = ("corpus", "tokenizer", "model", "trainer")
_GENERAL = attrs.fields_dict(GeneralOptions)


@attrs.frozen(kw_only=True)
class Pipeline:
    """A checked pipeline, made by Engine.pipeline."""

    name: str
    seed: int
    device: str
    threads: int | None
    output: Path
    folder: Path
    corpus: ConfiguredComponent
    tokenizer: ConfiguredComponent
    model: ConfiguredComponent
    trainer: ConfiguredComponent
    samplers: tuple[ConfiguredComponent, ...]
    observers: tuple[ConfiguredComponent, ...]
    data: DataOptions
    checkpoint: CheckpointOptions
    generate: GenerateOptions
    plugins: ComponentSource = attrs.field(repr=False, eq=False)

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as TOML tables with every default filled in. Paths are absolute."""
        return dict(plain(self.tables()))

    def tables(self) -> dict[str, Any]:
        """`to_dict`, with each component as it is in the place of its table."""
        general, own = ({key: getattr(self, key) for key in keys} for keys in (_GENERAL, TABLES))
        choices = {key: getattr(self, key) for key in CHOICES}
        chains = {"sampler": [*self.samplers], "observer": [*self.observers]}
        return {**plain(general), **choices, **plain(own), **chains}

    @property
    def decoding(self) -> tuple[ConfiguredComponent, ...]:
        """The sampler chain, then the strategy if there is one."""
        strategy: Any = self.generate.strategy
        return self.samplers if strategy is None else (*self.samplers, strategy)

    def choices(self) -> tuple[ConfiguredComponent, ...]:
        """Every component it uses, those that others are made of included."""
        top = (self.corpus, self.tokenizer, self.model, self.trainer)
        all_choices = (*top, *self.decoding, *self.observers)
        return tuple(part for choice in all_choices for part in choice.flattened())


def make_pipeline(raw: RawPipeline, plugins: ComponentSource) -> Pipeline:
    """Check a pipeline against the available components. Raises PipelineError with every fault."""
    reader = ConfigReader(raw.folder, plugins)
    tables = raw.tables
    choices = {kind: reader.choice(kind, tables.get(kind), kind) for kind in CHOICES}
    chains = {kind: read_chain(kind, tables.get(kind, ()), reader) for kind in CHAINS}
    if None not in chains["sampler"]:
        try:
            chains["sampler"] = tuple(changed(chains["sampler"], raw.sampling, plugins))
        except UsageError as error:
            reader.faults.extend(fault.below("sampler") for fault in error.faults)
    general, made = read_own_tables(tables, reader)
    if choices["model"] and choices["trainer"]:
        _check_pair(choices["model"], choices["trainer"], reader.faults)
    reader.check(raw.source)
    if tables.get("observer") not in ([], ()):
        listed = [choice.offer for choice in chains["observer"]]
        usual = [offer for offer in plugins.defaults("observer") if offer not in listed]
        defaults = (
            ConfiguredComponent(offer.canonical_name, offer, offer.component.config())
            for offer in usual
        )
        chains["observer"] = (*defaults, *chains["observer"])
    output = general.output or Path.cwd() / "runs" / raw.name
    return Pipeline(
        **{**attrs.asdict(general), "output": output.absolute()},
        name=raw.name,
        folder=raw.folder,
        **choices,
        samplers=chains["sampler"],
        observers=chains["observer"],
        **made,
        plugins=plugins,
    )


def read_own_tables(tables: Table, reader: ConfigReader) -> tuple[Any, dict[str, Any]]:
    """The general keys, and the engine's own tables by name; what is wrong with them, and unknown
    keys, in `faults`.
    """
    own = {key: reader.table(cls, tables.get(key, {}), key) for key, cls in TABLES.items()}
    reader.check_keys(tables, [*_GENERAL, *CHOICES, *CHAINS, *TABLES], "")
    general = {key: tables[key] for key in _GENERAL.keys() & tables.keys()}
    return reader.table(GeneralOptions, general, ""), own


def without_starts(table: Any) -> Any:
    """The table of a model or tokenizer without the key `start`, its own and those of its parts."""
    if not isinstance(table, Mapping) or "type" not in table:
        return table
    return {key: without_starts(value) for key, value in table.items() if key != "start"}


def _check_pair(
    model: ConfiguredComponent, trainer: ConfiguredComponent, faults: list[Fault], place: str = ""
) -> None:
    """Check that the trainer fits the model, and its parts those of the model that have their
    names.
    """
    for one, other in ((model, trainer), (trainer, model)):
        names = one.offer.component.compatible_with
        if names and other.offer.name not in names:
            wanted = " or ".join(f'"{name}"' for name in names)
            expected = f"{one.offer.kind} {one.name!r} goes with {other.offer.kind} {wanted}"
            faults.append(Fault(f"{other.offer.kind}.{place}type", expected, f'"{other.name}"'))
            return
    parts = trainer.parts()
    for name, part in model.parts().items():
        if name in parts:
            _check_pair(part, parts[name], faults, f"{place}{name}.")


def make_choice(
    kind: str, table: Any, folder: Path, plugins: ComponentSource | None, *, source: str
) -> ConfiguredComponent:
    """One component from its table. Raises PipelineError."""
    reader = ConfigReader(folder, plugins)
    choice: ConfiguredComponent = reader.choice(kind, table, kind)
    reader.check(source)
    return choice


def read_chain(kind: str, tables: Any, reader: ConfigReader) -> tuple[Any, ...]:
    """The components of an array of tables; None for one that is refused, with the reasons in the
    reader's faults.
    """
    if not isinstance(tables, list | tuple):
        expected = f"expected an array of tables, [[{kind}]]"
        reader.faults.append(Fault(kind, expected, show(tables)))
        return ()
    return tuple(reader.choice(kind, table, f"{kind}.{i}") for i, table in enumerate(tables))
