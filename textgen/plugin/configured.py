"""Components as a pipeline configures them, and the runs that it names; their tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen.plugin.component import RegisteredComponent
from textgen.protocols import Table


@attrs.frozen
class BaseRun:
    """A finished run that a model or a tokenizer of another run starts from.

    name       as the key `start` has it, with an absolute path
    table_key  the table with that key, dotted
    path       its run directory
    weights    the SHA-256 of its weights
    tokenizer  the SHA-256 of its vocabulary
    tables     its tables of model and tokenizer
    """

    name: str
    table_key: str
    path: Path
    weights: str
    tokenizer: str
    tables: Table = attrs.field(repr=False)


@attrs.frozen
class RunOption:
    """A finished run that is an option of a component, for BuildContext.build.

    name   as the key has it, with an absolute path
    key    the key, dotted
    offer  of the plugin that offers a run of this name; None for a path
    """

    name: str
    key: str
    offer: RegisteredComponent | None = None


@attrs.frozen
class ConfiguredComponent:
    """A component that a pipeline uses, with its checked options.

    name   by which any pipeline finds it
    start  the run whose weights a model begins with, or whose vocabulary a tokenizer keeps
    """

    name: str
    offer: RegisteredComponent
    options: Any
    start: BaseRun | None = None

    def table(self) -> dict[str, Any]:
        """The TOML table of this choice, with defaults filled in."""
        start = {} if self.start is None else {"start": self.start.name}
        return {"type": self.name, **start, **plain(self.options)}

    def parts(self) -> dict[str, ConfiguredComponent]:
        """The components among its options, by key."""
        return self._of(ConfiguredComponent)

    def runs(self) -> dict[str, RunOption]:
        """The runs among its options, by key."""
        return self._of(RunOption)

    def _of(self, cls: type) -> dict[str, Any]:
        values = ((name, getattr(self.options, name)) for name in self.offer.component.options())
        return {name: value for name, value in values if isinstance(value, cls)}

    def flattened(self) -> Iterator[ConfiguredComponent]:
        """This choice and all components among its options."""
        yield self
        for part in self.parts().values():
            yield from part.flattened()


def plain(value: Any) -> Any:
    """A config instance or value as TOML and JSON values.

    Keys without a value (None) are left out.
    """
    if isinstance(value, ConfiguredComponent):
        return value.table()
    if isinstance(value, RunOption):
        return value.name
    if attrs.has(type(value)):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
