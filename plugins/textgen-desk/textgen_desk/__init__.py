"""A page to write with runs, and a desk that takes texts, trains models on them and keeps what is
written, as a command of textgen, with a sampler for the page.

`textgen_desk.app.create_app` makes the ASGI application for other servers. Starlette and uvicorn
are imported when the command runs, never by listing the plugins.
"""

from __future__ import annotations

import attrs
import click
from attrs.validators import and_, deep_iterable, max_len

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Sampler


@attrs.frozen
class DeskConfig:
    """Opens a desk, which takes texts, trains models on them and keeps what is written with them;
    or a page to write with runs.
    """


def build(config: DeskConfig, context: BuildContext) -> click.Command:
    """The command, for the plugins of this engine."""
    from textgen_desk.command import make_command

    return make_command(context)


@hookimpl
def textgen_commands() -> list[Component]:
    """Offer `desk`."""
    return [Component("desk", DeskConfig, build)]


@attrs.frozen
class LikelyNamesConfig:
    """Makes names of people and places more likely: where a word begins, and once one has begun."""

    names: tuple[str, ...] = option(
        help="names to make likelier: at most 100, of up to 60 characters",
        validator=and_(max_len(100), deep_iterable(max_len(60))),
        argument="likely_names",
    )


def build_sampler(config: LikelyNamesConfig, context: BuildContext) -> Sampler:
    """The sampler, for a vocabulary."""
    from textgen_desk.likely import LikelyNames

    assert context.tokenizer is not None
    return LikelyNames.of(config.names, context.tokenizer)


@hookimpl
def textgen_samplers() -> list[Component]:
    """Offer `likely-names`."""
    return [Component("likely-names", LikelyNamesConfig, build_sampler, order=20)]
