"""Component records that plugins give to the engine, the options of their tables, and the identity
of a plugin.
"""

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
"""Stands for the distribution of plugins that a program registered, or that are a single file."""
OBJECT: Final = "object"
"""Stands for the distribution of components that a program gave as objects."""
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
"""Names that requests take themselves; their other options are those of samplers."""


class Address(str):
    """The type of an option that is a web address, http:// or https://, or one of several types:
    `Address | Path`.
    """

    __slots__ = ()

    @staticmethod
    def matches(value: object) -> bool:
        """Whether a value of a table is one, and not a path."""
        return (
            isinstance(value, str)
            and value.isprintable()
            and re.match("(?i)https?://[^/]", value) is not None
        )

    @classmethod
    def of_option(cls, value: Any, folder: Path) -> Self | None:
        """A value of a table in `folder` as this type; None for one of another. A type of options
        that has this may be of any package.
        """
        return cls(value) if cls.matches(value) else None


@runtime_checkable
class RemoteName(Protocol):
    """The value of an option that names something on a network, such as a model. The type that an
    option declares for it has `of_option`, as Address has.

    `run` and `init` write its `address` and take what `fetched` returns as the option. Nothing else
    fetches: `build` reads what was fetched, and raises PipelineError where that is missing.
    """

    @property
    def address(self) -> Address:
        """The address, which is written before it is fetched."""

    def fetched(self, before: Any) -> Self:
        """This name with its version, such as a commit, once it has been fetched.

        before  the option in the pipeline of the run that is there already, to stay with its
                version; None if there is none

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
    """A field of a config class, which is a key of the component's TOML table.

    `help` is a phrase that says what the key does, with its unit; `textgen show`, `textgen plugins`
    and the reference pages print it. Without `default` or `factory` (for a mutable default) the key
    is required. `validator` is an attrs validator. `argument` is the name of a sampler's option in
    requests for text: lower-case words joined by underscores, and not a name in RequestOptions;
    other samplers may have the same. It is a keyword in Python and an option of the command line.

    With `kind`, such as "model", the option is itself a component: a table with a `type`, like
    `[model.first]` in a pipeline. `default` is then a table too, or None. The value is a
    ConfiguredComponent, for `BuildContext.build`. With the kind "run" it is a finished run, by its
    path or the name that a plugin offers it under, and `BuildContext.build` gives its Generator.

    With `extends_training`, a larger value of a trainer's option continues a finished run, from the
    newest checkpoint within the StepDone.steps_before_decay of its trainer. It is a function, such
    as `float`, that maps a value to a key for `>`.
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
    """Facts that a component may use when it is built.

    folder      relative paths in the pipeline are relative to it (`Path` options arrive resolved)
    seed        the pipeline's seed
    tokenizer   the fitted tokenizer; None while corpus and tokenizer are being built
    model       the model that generates, for samplers and strategies, and None for others. Its
                weights change while a run trains, so read them in each call
    training    False when the component will only generate: a model then needs no gradients, and no
                torch on a CPU
    directory   the run directory, for observers; None outside a run
    console     where progress may be written; None if nowhere
    cancelled   asked during work that takes seconds: once it is true, raise Interrupted
    plugins     the components of this engine
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
        """Build a component that is an option of another (a ConfiguredComponent); of a run that is,
        the Generator, which the engine closes, and loads once for all who ask; None of None.

        `changes` replace attributes of this context.

        Raises ContractError, which names the plugin of that component, and RunError, which names
        the key of a run that cannot be loaded.
        """
        if choice is None:
            return None
        assert self.builder is not None, "a context that no engine made builds nothing"
        return self.builder(choice, attrs.evolve(self, **changes))

    @property
    def device(self) -> str:
        """The device to use, as torch names it.

        Only reading it may import torch. Raises DeviceError.
        """
        return devices.resolve(self.requested_device)

    @property
    def vocab_size(self) -> int:
        """The number of tokens of the fitted tokenizer."""
        assert self.tokenizer is not None, "there is no fitted tokenizer yet"
        return self.tokenizer.vocab_size


@attrs.frozen
class Component:
    """A component that a plugin offers, under the name that a pipeline selects as `type`.

    name             lower case, words joined by hyphens
    config           a frozen attrs class; its fields (see `option`) are the keys of the TOML table,
                     its docstring's first paragraph is the summary
    build            `build(config, context)` makes the object; heavy imports belong inside it
    default          True for a built-in observer of every run, and for the built-in tokenizer that
                     `textgen.train` uses if none is given
    order            where a sampler joins a chain that lacks it, for an option of a request: before
                     those with a higher order, or at the end without one
    replaced_by      options of requests: if one is given, the sampler leaves the chain
    """

    name: str
    config: type
    build: Callable[[Any, BuildContext], Any]
    default: bool = False
    order: int | None = None
    replaced_by: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first paragraph of the config class's docstring, as one line."""
        return " ".join(inspect.cleandoc(self.config.__doc__ or "").partition("\n\n")[0].split())

    def options(self) -> Mapping[str, attrs.Attribute[Any]]:
        """The keys of the TOML table, in order."""
        return attrs.fields_dict(self.config)

    def arguments(self) -> dict[str, str]:
        """The keys that a request for text may set, by their names in requests."""
        fields = self.options().items()
        return {name: key for key, field in fields if (name := field.metadata.get("argument"))}


@attrs.frozen
class Plugin:
    """A plugin: the name of its entry point, and the distribution that it is part of; or the file
    that it is.
    """

    name: str
    distribution: str
    version: str
    path: str = ""

    def __str__(self) -> str:
        return (
            f"plugin {self.name!r} ({self.path or f'{self.distribution} {self.version}'.rstrip()})"
        )

    def facts(self) -> dict[str, str]:
        """Facts for errors, reports and run records. The version of a file is its SHA-256."""
        facts = {"plugin": self.name, "distribution": self.distribution, "version": self.version}
        return {**facts, "path": self.path} if self.path else facts

    def is_called(self, name: str) -> bool:
        """Whether a name is that of its entry point, its distribution, or
        `distribution:entry-point`.
        """
        own = (self.name, self.distribution, f"{self.distribution}:{self.name}")
        return name in own or normalized(name) in own


@attrs.frozen
class RegisteredComponent:
    """A component, its kind, and the plugin that offers it."""

    kind: str
    component: Component
    plugin: Plugin

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.plugin}"

    @property
    def name(self) -> str:
        """The component's name."""
        return self.component.name

    @property
    def distribution(self) -> str:
        """The distribution that the component is part of."""
        return self.plugin.distribution

    @property
    def is_built_in(self) -> bool:
        """Whether it comes with textgen."""
        return self.distribution == OWN_DISTRIBUTION

    @property
    def is_default(self) -> bool:
        """Whether it is used where none of its kind is named."""
        return self.component.default and self.is_built_in

    @property
    def qualified_name(self) -> str:
        """`package:name`, which is unambiguous."""
        return f"{self.distribution}:{self.name}"

    @property
    def canonical_name(self) -> str:
        """The same whichever way a pipeline names it: `name` of the built-in set, `package:name` of
        others.
        """
        return self.name if self.is_built_in else self.qualified_name


def normalized(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


class ComponentSource(Protocol):
    """Looks up components: the part of a PluginSet that a component made of others needs."""

    def offers(self, kind: str | None = None) -> list[RegisteredComponent]:
        """All components, or those of one kind."""

    def find(self, kind: str, name: str) -> RegisteredComponent | Fault:
        """The component that `name` (or `package:name`) means, or what is wrong with the name."""

    def sampling_option(self, name: str) -> RegisteredComponent | Fault:
        """The sampler or strategy that takes an option of a request, or what is wrong with the
        name.
        """
