"""Implements a hook that there is not."""

from textgen import hookimpl


@hookimpl
def textgen_sampler():
    """It is textgen_samplers."""
    return []
