"""What a component is checked in: an isolated set of plugins, contexts, small texts.

Loads no NumPy.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs

from textgen.contracts.tokenizers import complete
from textgen.documents import DOCUMENT_END, CorpusPiece
from textgen.files.reading import read_tokenizer
from textgen.pipeline.pipeline import make_choice
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
from textgen.plugin.registry import PluginSet
from textgen.plugin.structure import ConfigReader
from textgen.plugin.tracebacks import packages_of
from textgen.protocols import Table
from textgen.testing.time_limit import TIME_LIMIT

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


def isolated_plugins(*modules: object) -> PluginSet:
    """The built-in set and the given plugins (modules, or anything with hooks); what else is
    installed is left out.
    """
    plugins = PluginSet()
    for name, (module, version) in built_in_modules().items():
        plugins.register(module, name, distribution=OWN_DISTRIBUTION, version=version)
    for module in modules:
        plugins.register(module, getattr(module, "__name__", type(module).__name__))
    return plugins


def built_in_modules() -> dict[str, tuple[Any, str]]:
    """The modules of the built-in set and their version, by the names of their entry points."""
    return {
        plugin.name: (entry_point.load(), plugin.version)
        for plugin, entry_point in discovery.installed().items()
        if plugin.distribution == OWN_DISTRIBUTION
    }


@attrs.frozen(kw_only=True)
class Subject:
    """A component under test.

    options         its TOML table, without `type`
    module          the name of the module that is imported for it; None where that is not known
    label           what failures call it
    plugins         what it may find in its context
    folder          an empty folder, its own
    time_limit      seconds for each check
    tables          the tokenizer and the corpus that it meets, and the model to train, if given
    """

    kind: str
    component: Component
    options: Mapping[str, Any]
    module: str | None
    label: str
    plugins: PluginSet
    folder: Path
    time_limit: float = TIME_LIMIT
    tables: Table = attrs.field(factory=dict)

    @property
    def offer(self) -> RegisteredComponent:
        """The component as the engine has it."""
        return RegisteredComponent(
            self.kind, self.component, Plugin(self.module or "", UNPACKAGED, "")
        )

    @property
    def packages(self) -> set[str]:
        """The top-level modules that the component's own code is in."""
        return packages_of(self.component, self.module)

    def config(self) -> Any:
        """The options as the component's config.

        Raises PipelineError where the caller gave the wrong ones.
        """
        reader = ConfigReader(Path.cwd(), self.plugins)
        made = reader.table(self.component.config, self.options, "")
        reader.check(f"options of {self.label}")
        return made

    def context(self, **changes: Any) -> BuildContext:
        """A context on the CPU, with nothing fitted."""
        # Here and below, since they load NumPy.
        from textgen.runs.loading import RunComponents
        from textgen.runs.starting import load_start

        components = RunComponents()
        components.load_start = partial(load_start, source="a check")
        bare = BuildContext(
            folder=self.folder,
            requested_device="cpu",
            plugins=self.plugins,
            builder=components.build,
        )
        return attrs.evolve(bare, **changes)

    @cached_property
    def pieces(self) -> list[CorpusPiece]:
        """The beginning of the corpus that was given, up to the end of a document; or TEXT."""
        if "corpus" not in self.tables:
            return [TEXT]
        corpus = build_from_table(self.plugins, "corpus", self.tables["corpus"], self.context())
        pieces, left = [], _SAMPLE
        for piece in corpus.read():
            pieces.append(piece if piece is DOCUMENT_END else piece[: max(0, left)])
            left -= len(piece)
            if left <= 0 and (DOCUMENT_END in pieces or left < -_SAMPLE):
                break
        return pieces

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that was given, or that of characters, fitted on the pieces; or that of a
        run.
        """
        table = self.tables.get("tokenizer", {"type": "char"})
        made = complete(build_from_table(self.plugins, "tokenizer", table, self.context()))
        if (start := table.get("start")) is not None:
            return read_tokenizer(made, start.path, start.tokenizer)
        made.fit(iter(self.pieces))
        return made

    def fitted_context(self, **changes: Any) -> BuildContext:
        """A context on the CPU, with that tokenizer."""
        return self.context(tokenizer=self.tokenizer, **changes)

    def build(self, context: BuildContext | None = None) -> Any:
        """Build the component."""
        made = self.component.build(self.config(), self.context() if context is None else context)
        return complete(made) if self.kind == "tokenizer" else made

    def fresh_folder(self) -> Path:
        """A new folder below its own."""
        return Path(tempfile.mkdtemp(dir=self.folder))


@contextlib.contextmanager
def subject(
    kind: str,
    component: object,
    options: Mapping[str, Any] | None = None,
    plugin: object | str | None = None,
    plugins: PluginSet | None = None,
    label: str = "",
    time_limit: float = TIME_LIMIT,
    tokenizer: Table | None = None,
    corpus: Table | None = None,
    start: str | Path | None = None,
) -> Iterator[Subject]:
    """A Subject whose folder lasts as long as the block.

    Raises TypeError where there is no component, and PipelineError where `options` do not fit, or
    `start` is not a finished run.
    """
    if not isinstance(component, Component):
        kind_of = type(component).__name__
        raise TypeError(f"check_{kind} takes a textgen.Component, and got a {kind_of}")
    with tempfile.TemporaryDirectory(
        prefix="textgen-testing-", ignore_cleanup_errors=True
    ) as folder:
        module = _module_name(component, plugin)
        plugins = isolated_plugins() if plugins is None else plugins
        given = {"tokenizer": tokenizer, "corpus": corpus}
        own = {key: table for key, table in given.items() if table is not None}
        tables: dict[str, Any] = {**own}
        if start is not None:
            tables |= _started({**own, "model": {"start": str(start)}}, plugins)
        values = dict(options or {})
        for key, table in values.items():  # a part of a model may start from a run too
            if isinstance(table, Mapping) and "start" in table:
                began = _started({**own, "model": table}, plugins)
                values[key] = began.pop("model")
                tables = {**began, **tables}
        made = Subject(
            kind=kind,
            component=component,
            options=values,
            module=module,
            label=label or f"{kind} {component.name!r}" + (f" of {module}" if module else ""),
            plugins=plugins,
            folder=Path(folder).resolve(),
            time_limit=time_limit,
            tables=tables,
        )
        if options or (
            kind != "command" and attrs.has(component.config) and required_options(component)
        ):
            made.config()  # options that do not fit, or are missing, are the caller's fault
        yield made


def required_options(component: Component) -> list[str]:
    """The options that have no default."""
    return [name for name, field in component.options().items() if field.default is attrs.NOTHING]


def build_from_table(
    plugins: PluginSet, kind: str, table: Mapping[str, Any], context: BuildContext
) -> Any:
    """Build a component from its table, as a pipeline has it. Raises PipelineError."""
    reader = ConfigReader(Path.cwd(), plugins)
    choice = make_choice(kind, table, reader, source=f"{kind} for a check")
    made = choice.offer.component.build(choice.options, context)
    if kind == "model" and choice.start is not None:
        from textgen.runs.starting import load_start

        load_start(made, choice, context, source="a check")
    return made


def _started(tables: Table, plugins: PluginSet) -> dict[str, Any]:
    """The tables with what the run has that the model starts from. Raises PipelineError."""
    from textgen.runs.starting import with_start

    return {**with_start(RawPipeline(tables, "a check", Path.cwd(), "check"), plugins).tables}


def close(made: Any) -> None:
    """Close what was built, if it can be closed."""
    if callable(ending := getattr(made, "close", None)):
        ending()


def _module_name(component: Component, plugin: object | str | None) -> str | None:
    """What to import in a fresh interpreter to get the component; None where that cannot be
    known.
    """
    if isinstance(plugin, str):
        return plugin
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    for part in (component.build, component.config):
        name = getattr(part, "__module__", None)
        if (
            isinstance(name, str)
            and name != "__main__"
            and getattr(sys.modules.get(name), "__spec__", None)
        ):
            return name
    return None
