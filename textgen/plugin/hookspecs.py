"""The hooks a plugin may implement. Each takes nothing and returns a list of Component records.

A plugin is a module named by an entry point of the group `textgen`:

    @hookimpl
    def textgen_samplers():
        return [Component("shout", ShoutConfig, build)]

No hook is called while a model trains or a token is drawn, and the order across plugins is
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
    """Offer ways to turn text into token ids and back: `build` returns an unfitted
    `textgen.protocols.Tokenizer`.
    """
    raise NotImplementedError


@hookspec
def textgen_models() -> list[Component]:
    """Offer language models: `build` returns a `textgen.protocols.Model`. Torch is imported inside
    `build`.
    """
    raise NotImplementedError


@hookspec
def textgen_trainers() -> list[Component]:
    """Offer ways to fit a model to a corpus: `build` returns a `textgen.protocols.Trainer`."""
    raise NotImplementedError


@hookspec
def textgen_objectives() -> list[Component]:
    """Offer what a step of training sums: `build` returns a `textgen.protocols.Objective`. Torch is
    imported inside `build`.
    """
    raise NotImplementedError


@hookspec
def textgen_samplers() -> list[Component]:
    """Offer links of the sampler chain: `build` returns a `textgen.protocols.Sampler`."""
    raise NotImplementedError


@hookspec
def textgen_strategies() -> list[Component]:
    """Offer ways to make a text of steps: `build` returns a `textgen.protocols.Strategy`."""
    raise NotImplementedError


@hookspec
def textgen_observers() -> list[Component]:
    """Offer observers of a run: `build` returns a `textgen.protocols.Observer`."""
    raise NotImplementedError


@hookspec
def textgen_commands() -> list[Component]:
    """Offer subcommands of `textgen`: `build` returns a `click.Command`. Its config class has no
    required fields.
    """
    raise NotImplementedError


@hookspec
def textgen_runs() -> list[Component]:
    """Offer runs to start from, by name: `build` returns the `Path` of a run directory, or tables
    `tokenizer` and `model`, as of a pipeline but without `start`, of components that load
    themselves.

    Its config class has no required fields.
    """
    raise NotImplementedError


@hookspec
def textgen_kinds() -> Mapping[str, list[Component]]:
    """Offer components of kinds that packages define, by kind: what `build` returns is for the
    package to say that asks for `plugins.offers(kind)`.
    """
    raise NotImplementedError
