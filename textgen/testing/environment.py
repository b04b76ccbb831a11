"""The surroundings of a component under test: an isolated set of plugins, contexts, small texts.

Loads no NumPy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.errors import TextgenError
from textgen.files.vocabularies import read_tokenizer
from textgen.pipeline.raw_pipeline import RawPipeline
from textgen.plugin import discovery
from textgen.plugin.component import (
    OWN_DISTRIBUTION,
    UNPACKAGED,
    BuildContext,
    Component,
    Plugin,
    RegisteredComponent,
)
from textgen.plugin.config_reader import ConfigReader
from textgen.plugin.registry import PluginSet
from textgen.protocols import Table
from textgen.testing.outcomes import Skip
from textgen.testing.partners import CHARACTERS
from textgen.testing.process import TIME_LIMIT

__tracebackhide__ = True  # pytest shows the test and the code of the component

TEXT: Final = (
    "The ferry left at nine. On the far bank somebody had lit a lamp, and the river "
    "carried its light away in pieces.\n"
    "“Wait,” said the boy – but there was nobody to wait for, only 3 crates of apples and "  # noqa: RUF001
    "the café’s old piano.\n"  # noqa: RUF001
) * 8
"""What tokenizers are fitted on unless told otherwise: about 1,800 characters, some of them not
ASCII.
"""
_SAMPLE: Final = 20_000  # characters that are read of a corpus
_BEFORE_TOKENIZER: Final = ("corpus", "tokenizer", "command", "run")  # kinds that are built first


def isolated_plugins(*modules: object) -> PluginSet:
    """The built-in set and the given plugins (modules, or anything with hooks); what else is
    installed is left out.
    """
    plugins = PluginSet()
    for plugin, entry_point in discovery.installed().items():
        if plugin.distribution == OWN_DISTRIBUTION:
            facts = {"distribution": plugin.distribution, "version": plugin.version}
            plugins.register(entry_point.load(), plugin.name, **facts)
    for module in modules:
        plugins.register(module, getattr(module, "__name__", type(module).__name__))
    return plugins


@attrs.frozen(kw_only=True)
class Subject:
    """A component under test.

    options      its TOML table, without `type`
    pipeline     tables of what it meets: corpus, tokenizer, model and trainer
    neighbours   tables of the other components of its package by kind, which it may meet too
    module       the name of the module that is imported for it; None where that is not known
    label        what failures call it
    plugins      what it may find in its context
    folder       an empty folder, its own
    tolerance    of logits that are computed in another order, relative to the largest
    time_limit   seconds for each check
    """

    kind: str
    component: Component
    plugins: PluginSet
    folder: Path
    options: Table = attrs.field(factory=dict)
    pipeline: Table = attrs.field(factory=dict)
    neighbours: Mapping[str, Sequence[Table]] = attrs.field(factory=dict)
    module: str | None = None
    label: str = ""
    tolerance: float = 1e-4
    time_limit: float = TIME_LIMIT

    @property
    def offer(self) -> RegisteredComponent:
        """The component as the engine has it."""
        return RegisteredComponent(
            self.kind, self.component, Plugin(self.module or "", UNPACKAGED, "")
        )

    def config(self) -> Any:
        """The options as the component's config.

        Raises PipelineError where the caller gave the wrong ones.
        """
        reader = ConfigReader(Path.cwd(), self.plugins, f"options of {self.label}")
        return reader.table(self.component.config, self.options)

    def new(self, **context: Any) -> Any:
        """The component, newly built, in a context with these changes. Raises Skip where it refuses
        that.
        """
        if self.kind not in _BEFORE_TOKENIZER:
            context = {"tokenizer": self.tokenizer, **context}
        config, given = self.config(), self.context(**context)
        try:
            made = self.component.build(config, given)
        except TextgenError as error:
            raise Skip(f"it cannot be built here: {error}") from error
        return made

    def context(self, **changes: Any) -> BuildContext:
        """A context on the CPU."""
        bare = BuildContext(
            folder=self.folder,
            requested_device="cpu",
            plugins=self.plugins,
            builder=self.components.build,
        )
        return attrs.evolve(bare, **changes)

    @cached_property
    def components(self) -> Any:
        """The builder of components' parts, which loads each run among their options once."""
        # Here and below, since they load NumPy.
        from textgen.runs.loading import RunComponents
        from textgen.runs.starting import load_start

        made = RunComponents()
        made.load_start = partial(load_start, source="a check")
        return made

    def tables(self, kind: str, default: Table | None) -> list[Table | None]:
        """Components of a kind that it may meet: the given one, or else the default and those of
        its package.
        """
        given = self.pipeline.get(kind)
        return [default, *self.neighbours.get(kind, ())] if given is None else [given]

    def other(self, kind: str, table: Table, **context: Any) -> Any:
        """Build another component from its table, as a pipeline has it.

        Raises PipelineError and ContractError.
        """
        choice = ConfigReader(Path.cwd(), self.plugins, f"{kind} for a check", kind).choice(
            kind, table
        )
        return self.components.build(choice, self.context(**context))

    def sample(self, corpus: Table | None) -> list[CorpusPiece]:
        """The beginning of a corpus, up to the end of a document if it has any; TEXT without a
        corpus.
        """
        if corpus is None:
            return [TEXT]
        pieces: list[CorpusPiece] = []
        for piece in self.other("corpus", corpus).read():
            pieces.append(piece if piece is DOCUMENT_END else piece[:_SAMPLE])
            is_over = sum(len(each) for each in pieces if isinstance(each, str)) >= _SAMPLE
            if is_over and (piece is DOCUMENT_END or DOCUMENT_END not in pieces):
                break
        return pieces

    @cached_property
    def pieces(self) -> list[CorpusPiece]:
        """The beginning of the corpus that was given, or TEXT."""
        return self.sample(self.pipeline.get("corpus"))

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that was given, or that of characters, fitted on the pieces; or that of a
        run.
        """
        table = self.pipeline.get("tokenizer", CHARACTERS)
        made = self.other("tokenizer", table)
        if (start := table.get("start")) is not None:
            return read_tokenizer(made, start.path, start.tokenizer)
        made.fit(iter(self.pieces))
        return made


def required_options(component: Component) -> list[str]:
    """The options that have no default."""
    return [name for name, field in component.options().items() if field.default is attrs.NOTHING]


def started(tables: Table, plugins: PluginSet) -> Table:
    """The tables with what the run has that the model starts from. Raises PipelineError."""
    from textgen.runs.starting import with_start

    return with_start(RawPipeline(tables, "a check", Path.cwd(), "check"), plugins).tables


def close(made: Any) -> None:
    """Close what was built, if it can be closed."""
    if callable(ending := getattr(made, "close", None)):
        ending()


def module_name(component: Component, plugin: object | str | None) -> str | None:
    """The module that gives the component in a fresh interpreter; None where that cannot be
    known.
    """
    if isinstance(plugin, str):
        return plugin
    name = getattr(plugin, "__name__", None) or getattr(component.build, "__module__", None)
    is_importable = plugin or getattr(sys.modules.get(str(name)), "__spec__", None)
    return name if is_importable else None
