"""Adds `textgen letters` to the command line."""

import attrs

from textgen import Component, hookimpl


@attrs.frozen
class LettersConfig:
    """Count the letters of a text file."""


def build(config, context):
    """A click command."""
    import click

    @click.command("letters", help="Count the letters of a text file.")
    @click.argument("file", type=click.File())
    def letters(file):
        click.echo(sum(map(str.isalpha, file.read())))

    return letters


@hookimpl
def textgen_commands():
    """Offer `letters`."""
    return [Component("letters", LettersConfig, build)]
