"""A config that is no attrs class."""

from textgen import Component, hookimpl


@hookimpl
def textgen_samplers():
    """Offer `untyped`."""
    return [Component("untyped", dict, lambda config, context: None)]
