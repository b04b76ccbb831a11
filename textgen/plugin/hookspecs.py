"""The hooks that a plugin may implement. They take no arguments and return Component records.

A plugin is a module named by an entry point of the group `textgen`:

    @hookimpl
    def textgen_samplers():
        return [Component("shout", ShoutConfig, build)]

No hook is called while a model trains or a text is generated, and the order across plugins is
undefined.
"""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

from textgen.plugin.component import Component

hookspec = pluggy.HookspecMarker("textgen")
hookimpl = pluggy.HookimplMarker("textgen")
"""Marks a function of a plugin as the implementation of the hook of the same name."""


@hookspec
def textgen_corpora() -> list[Component]:
    """Offer sources of text: `build` returns a `textgen.protocols.Corpus`."""
    raise NotImplementedError


@hookspec
def textgen_tokenizers() -> list[Component]:
    """Offer tokenizers: `build` returns an unfitted `textgen.protocols.Tokenizer`."""
    raise NotImplementedError


@hookspec
def textgen_models() -> list[Component]:
    """Offer language models: `build` returns a `textgen.protocols.Model`.

    Import torch inside `build`.
    """
    raise NotImplementedError


@hookspec
def textgen_trainers() -> list[Component]:
    """Offer trainers: `build` returns a `textgen.protocols.Trainer`."""
    raise NotImplementedError


@hookspec
def textgen_objectives() -> list[Component]:
    """Offer training objectives: `build` returns a `textgen.protocols.Objective`.

    Import torch inside `build`.
    """
    raise NotImplementedError


@hookspec
def textgen_samplers() -> list[Component]:
    """Offer samplers: `build` returns a `textgen.protocols.Sampler`."""
    raise NotImplementedError


@hookspec
def textgen_strategies() -> list[Component]:
    """Offer decoding strategies: `build` returns a `textgen.protocols.Strategy`."""
    raise NotImplementedError


@hookspec
def textgen_observers() -> list[Component]:
    """Offer observers of a run: `build` returns a `textgen.protocols.Observer`."""
    raise NotImplementedError


@hookspec
def textgen_commands() -> list[Component]:
    """Offer subcommands of `textgen`: `build` returns a `click.Command`.

    The config class has no required fields.
    """
    raise NotImplementedError


@hookspec
def textgen_runs() -> list[Component]:
    """Offer finished runs by name, to load or to start from.

    `build` returns the `Path` of a run directory. For components that load themselves it may return
    a mapping with the tables `tokenizer` and `model`, as in a pipeline but without `start`. The
    config class has no required fields.
    """
    raise NotImplementedError


@hookspec
def textgen_kinds() -> Mapping[str, list[Component]]:
    """Offer components of kinds that packages define, as lists by kind.

    The package that defines a kind finds them with `plugins.offers(kind)` and says what `build`
    returns.
    """
    raise NotImplementedError
