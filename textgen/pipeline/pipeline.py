"""Checks a raw pipeline and makes a frozen Pipeline of it. All faults are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen.pipeline.options import CheckpointOptions, DataOptions, GeneralOptions, GenerateOptions
from textgen.pipeline.raw_pipeline import RawPipeline
from textgen.plugin.component import ComponentSource
from textgen.plugin.config_reader import ConfigReader
from textgen.plugin.configured import ConfiguredComponent, plain

CHOICES = ("corpus", "tokenizer", "model", "trainer")
CHAINS = ("sampler", "observer")


def _component(kind: str, **default: Any) -> Any:
    return attrs.field(metadata={"kind": kind}, **default)


@attrs.frozen(kw_only=True)
class PipelineTables(GeneralOptions):
    """Everything that a pipeline file may have."""

    corpus: ConfiguredComponent = _component("corpus")
    tokenizer: ConfiguredComponent = _component("tokenizer")
    model: ConfiguredComponent = _component("model")
    trainer: ConfiguredComponent = _component("trainer")
    data: DataOptions = attrs.field(factory=DataOptions)
    checkpoint: CheckpointOptions = attrs.field(factory=CheckpointOptions)
    generate: GenerateOptions = attrs.field(factory=GenerateOptions)
    sampler: tuple[ConfiguredComponent, ...] = _component("sampler", default=())
    observer: tuple[ConfiguredComponent, ...] = _component("observer", default=())


@attrs.frozen(kw_only=True)
class Pipeline(PipelineTables):
    """A checked pipeline, made by Engine.pipeline.

    name     the name of its file without `.toml`
    folder   relative paths in it are relative to this folder
    output   the run directory
    plugins  the components that it was checked against
    """

    name: str
    folder: Path
    output: Path
    plugins: ComponentSource = attrs.field(repr=False, eq=False)

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as TOML tables, with all defaults filled in and absolute paths."""
        return dict(plain(self.tables()))

    def tables(self) -> dict[str, Any]:
        """`to_dict` with ConfiguredComponents instead of the tables of components."""
        values = {field: getattr(self, field.name) for field in attrs.fields(PipelineTables)}
        return {
            field.name: value if field.metadata.get("kind") else plain(value)
            for field, value in values.items()
        }

    @property
    def decoding(self) -> tuple[ConfiguredComponent, ...]:
        """The sampler chain, then the strategy if there is one."""
        strategy: Any = self.generate.strategy
        return self.sampler if strategy is None else (*self.sampler, strategy)

    def choices(self) -> tuple[ConfiguredComponent, ...]:
        """All components that it uses, including those that are options of others."""
        top = (self.corpus, self.tokenizer, self.model, self.trainer)
        all_choices = (*top, *self.decoding, *self.observer)
        return tuple(part for choice in all_choices for part in choice.flattened())


def make_pipeline(raw: RawPipeline, plugins: ComponentSource) -> Pipeline:
    """Check a pipeline against the available components. Raises PipelineError with every fault."""
    tables = ConfigReader(raw.folder, plugins, raw.source).table(PipelineTables, raw.tables)
    own = attrs.asdict(tables, recurse=False)
    if raw.tables.get("observer") not in ([], ()):
        listed = [choice.offer for choice in tables.observer]
        defaults = (
            ConfiguredComponent(offer.canonical_name, offer, offer.component.config())
            for offer in plugins.offers("observer")
            if offer.is_default and offer not in listed
        )
        own["observer"] = (*defaults, *tables.observer)
    own["output"] = (tables.output or Path.cwd() / "runs" / raw.name).absolute()
    return Pipeline(**own, name=raw.name, folder=raw.folder, plugins=plugins)


def without_starts(table: Any) -> Any:
    """The table of a model or tokenizer without the key `start`, its own and those of its parts."""
    if not isinstance(table, Mapping) or "type" not in table:
        return table
    return {key: without_starts(value) for key, value in table.items() if key != "start"}
