"""Components that plugins offer, the options of their tables, and the identity of a plugin."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, Self, TextIO, runtime_checkable

import attrs

from textgen import devices
from textgen.errors import Fault
from textgen.protocols import Model, Tokenizer

OWN_DISTRIBUTION: Final = "textgen-engine"
UNPACKAGED: Final = "unpackaged"
"""The distribution of plugins that a program registered, or that are a single file."""
OBJECT: Final = "object"
"""The distribution of components that a program passed as objects."""
HOOKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "textgen_corpora": "corpus",
        "textgen_tokenizers": "tokenizer",
        "textgen_models": "model",
        "textgen_trainers": "trainer",
        "textgen_objectives": "objective",
        "textgen_samplers": "sampler",
        "textgen_strategies": "strategy",
        "textgen_observers": "observer",
        "textgen_commands": "command",
        "textgen_runs": "run",
    }
)
"""The kind of component that each hook offers."""
KINDS: Final = tuple(HOOKS.values())
KINDS_HOOK: Final = "textgen_kinds"
COMMANDS: Final = ("run", "generate", "plugins")
NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
REQUEST_OPTIONS: Final = (
    "prompt",
    "prompts",
    "n",
    "distinct",
    "index",
    "batch_size",
    "state",
    "keep_state",
    "seed",
    "logprobs",
    "echo",
    "max_new_tokens",
    "min_new_tokens",
    "stop",
    "stop_tokens",
    "ignore_end",
    "time_limit",
    "cancelled",
    "unknown_characters",
    "cache_salt",
    "strategy",
)
"""The options of requests that are not options of samplers and strategies."""


class Address(str):
    """The type of an option that is an http:// or https:// address, as in `Address | Path`."""

    __slots__ = ()

    @staticmethod
    def matches(value: object) -> bool:
        """Whether a value of a table is an address, not a path."""
        return (
            isinstance(value, str)
            and value.isprintable()
            and re.match("(?i)https?://[^/]", value) is not None
        )

    @classmethod
    def of_option(cls, value: Any, folder: Path) -> Self | None:
        """Convert a value of a table in `folder`; None for a value of another type.

        Any class with this method can be the type of an option.
        """
        return cls(value) if cls.matches(value) else None


@runtime_checkable
class RemoteName(Protocol):
    """The value of an option that names something on a network, such as a model.

    Its class has `of_option`, as Address does. `run` and `init` print `address` and replace the
    value by what `fetched` returns. Nothing else uses the network: `build` reads what was fetched,
    and raises PipelineError if it is missing.
    """

    @property
    def address(self) -> Address:
        """The address, which is printed before it is fetched."""

    def fetched(self, before: Any) -> Self:
        """Fetch it, and return the name with its version, such as a commit.

        before  the value in the pipeline of the run directory, whose version should be kept; None
                if there is none

        Raises PipelineError without a key.
        """


def option(
    default: Any = attrs.NOTHING,
    *,
    factory: Any = None,
    help: str,
    validator: Any = None,
    argument: str = "",
    kind: str = "",
    extends_training: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare a field of a config class: a key of the component's TOML table.

    default    the default; without it and `factory`, the key is required
    factory    makes a mutable default
    help       a phrase that says what the key does, with its unit, for `textgen show`,
               `textgen plugins` and the reference
    validator  an attrs validator
    argument   makes an option of a sampler or strategy available to requests under this name, as a
               keyword in Python and an option of the command line: lower-case words joined by
               underscores, and no name of RequestOptions. Several samplers may have the same
    kind       makes the option a component of this kind, such as "model": a table with a `type`,
               like `[model.first]`. `default` is then a table or None, and the value is a
               ConfiguredComponent, for `BuildContext.build`. With "run" the option is a finished
               run, given by its path or by the name under which a plugin offers it, and
               `BuildContext.build` returns its Generator
    extends_training  for an option of a trainer: with a larger value, a finished run is trained
               further, from the newest checkpoint within StepDone.steps_before_decay. A function,
               such as `float`, that maps a value to what is compared
    """
    metadata = {
        "help": help,
        "argument": argument,
        "extends_training": extends_training,
        "kind": kind,
    }
    if factory is not None:
        default = factory() if kind else attrs.Factory(factory)
    return attrs.field(default=default, validator=validator, metadata=metadata)


@attrs.frozen
class NoOptions:
    """Takes no options."""


@attrs.frozen(kw_only=True)
class BuildContext:
    """What a component may use when it is built.

    folder      relative paths in the pipeline are relative to it; options of type `Path` are
                resolved already
    requested_device   the pipeline's device, such as "auto"; see `device`
    seed        the pipeline's seed
    tokenizer   the fitted tokenizer; None while corpus and tokenizer are built
    model       the model that generates, for samplers and strategies; None for others. Its weights
                change while a run trains, so read them in each call
    training    False if the component will only generate. A model then needs no gradients, and no
                torch on a CPU
    directory   the run directory, for observers; None outside a run
    console     where progress may be written; None for no progress
    cancelled   to be called during work that takes seconds; when it returns true, raise Interrupted
    plugins     the components of the engine
    builder     the function behind `build`
    """

    folder: Path
    requested_device: str = "auto"
    seed: int = 0
    tokenizer: Tokenizer | None = None
    model: Model | None = None
    training: bool = True
    directory: Path | None = None
    console: TextIO | None = None
    cancelled: Callable[[], bool] = attrs.field(default=lambda: False, repr=False, eq=False)
    plugins: ComponentSource | None = None
    builder: Callable[[Any, BuildContext], Any] | None = attrs.field(
        default=None, repr=False, eq=False
    )

    def build(self, choice: Any, **changes: Any) -> Any:
        """Build a component that is an option of another.

        choice   the value of the option. For a run, its Generator is returned, which the engine
                 loads once and closes; for None, None
        changes  attributes of this context to replace

        Raises ContractError for a fault of that component's plugin, and RunError, with the key, for
        a run that cannot be loaded.
        """
        if choice is None:
            return None
        assert self.builder is not None, "a context that no engine made builds nothing"
        return self.builder(choice, attrs.evolve(self, **changes))

    @property
    def device(self) -> str:
        """The device to use, as torch names it. Reading it may import torch. Raises DeviceError."""
        return devices.resolve(self.requested_device)

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the fitted tokenizer."""
        assert self.tokenizer is not None, "there is no fitted tokenizer yet"
        return self.tokenizer.vocab_size


@attrs.frozen
class Component:
    """A component that a plugin offers.

    name             the `type` in a pipeline: lower-case words joined by hyphens
    config           a frozen attrs class. Its fields (see `option`) are the keys of the TOML table,
                     and the first paragraph of its docstring is the summary
    build            `build(config, context)` makes the object; slow imports belong inside it
    default          True for built-in observers that every run has, and for the built-in tokenizer
                     that `textgen.train` uses by default
    order            where a sampler joins a chain that lacks it, for an option of a request: before
                     those with a higher order, or at the end without one
    replaced_by      options of requests that remove the sampler from the chain
    """

    name: str
    config: type
    build: Callable[[Any, BuildContext], Any]
    default: bool = False
    order: int | None = None
    replaced_by: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring of `config`, as one line."""
        return " ".join(inspect.cleandoc(self.config.__doc__ or "").partition("\n\n")[0].split())

    def options(self) -> Mapping[str, attrs.Attribute[Any]]:
        """The keys of the TOML table, in order."""
        return attrs.fields_dict(self.config)

    def arguments(self) -> dict[str, str]:
        """The keys that a request may set, by their names in requests."""
        fields = self.options().items()
        return {name: key for key, field in fields if (name := field.metadata.get("argument"))}


@attrs.frozen
class Plugin:
    """The identity of a plugin: its entry point and distribution, or its file."""

    name: str
    distribution: str
    version: str
    path: str = ""

    def __str__(self) -> str:
        return (
            f"plugin {self.name!r} ({self.path or f'{self.distribution} {self.version}'.rstrip()})"
        )

    def facts(self) -> dict[str, str]:
        """The identity as a table, for errors, reports and run records.

        The version of a file is its SHA-256.
        """
        facts = {"plugin": self.name, "distribution": self.distribution, "version": self.version}
        return {**facts, "path": self.path} if self.path else facts

    def is_called(self, name: str) -> bool:
        """Whether a name is its entry point, its distribution or `distribution:entry-point`."""
        own = (self.name, self.distribution, f"{self.distribution}:{self.name}")
        return name in own or normalized(name) in own


@attrs.frozen
class RegisteredComponent:
    """A component with its kind and its plugin."""

    kind: str
    component: Component
    plugin: Plugin

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.plugin}"

    @property
    def name(self) -> str:
        """The name of the component."""
        return self.component.name

    @property
    def distribution(self) -> str:
        """The distribution of its plugin."""
        return self.plugin.distribution

    @property
    def is_built_in(self) -> bool:
        """Whether it is part of textgen."""
        return self.distribution == OWN_DISTRIBUTION

    @property
    def is_default(self) -> bool:
        """Whether it is used if no component of its kind is named."""
        return self.component.default and self.is_built_in

    @property
    def qualified_name(self) -> str:
        """`package:name`, which is unambiguous."""
        return f"{self.distribution}:{self.name}"

    @property
    def canonical_name(self) -> str:
        """`name` for a built-in component, `package:name` for others."""
        return self.name if self.is_built_in else self.qualified_name


def normalized(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


class ComponentSource(Protocol):
    """Looks up components: the part of a PluginSet that a component made of others needs."""

    def offers(self, kind: str | None = None) -> list[RegisteredComponent]:
        """The components of a kind, or of all kinds."""

    def find(self, kind: str, name: str) -> RegisteredComponent | Fault:
        """Find a component by `name` or `package:name`; a Fault if there is none, or several."""

    def sampling_option(self, name: str) -> RegisteredComponent | Fault:
        """Find the sampler or strategy of an option of requests; a Fault if there is none."""
