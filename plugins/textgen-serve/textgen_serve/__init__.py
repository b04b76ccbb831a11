"""Serves runs over HTTP with OpenAI's completions API, as a command of textgen, with a sampler for
its page.

`textgen_serve.app.create_app` makes the ASGI application for other servers. Starlette and uvicorn
are imported when the command runs, never by listing the plugins.
"""

from __future__ import annotations

import attrs
import click
from attrs.validators import and_, deep_iterable, max_len

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Sampler


@attrs.frozen
class ServeConfig:
    """Serves runs over HTTP: OpenAI's completions API, and a page to write with them."""


def build(config: ServeConfig, context: BuildContext) -> click.Command:
    """The command, for the plugins of this engine."""
    from textgen_serve.command import make_command

    return make_command(context)


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `serve`."""
    return [Component("serve", ServeConfig, build)]


@attrs.frozen
class LikelyNamesConfig:
    """Makes names of people and places more likely: where a word begins, and once one has begun."""

    names: tuple[str, ...] = option(
        help="the names, 100 at most of 60 characters",
        validator=and_(max_len(100), deep_iterable(max_len(60))),
        argument="likely_names",
    )


def build_sampler(config: LikelyNamesConfig, context: BuildContext) -> Sampler:
    """The sampler, for a vocabulary."""
    from textgen_serve.likely import LikelyNames

    assert context.tokenizer is not None
    return LikelyNames.of(config.names, context.tokenizer)


@hookimpl
def textgen_samplers() -> list[Component]:
    """Offer `likely-names`."""
    return [Component("likely-names", LikelyNamesConfig, build_sampler, order=20)]
