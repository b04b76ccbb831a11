"""A config class whose annotation means nothing."""

import attrs

from textgen import Component, hookimpl, option


@attrs.frozen
class Config:
    """Its type cannot be resolved."""

    size: "Sise" = option(1, help="how large")  # noqa: F821


@hookimpl
def textgen_samplers():
    """Offer `unreadable`."""
    return [Component("unreadable", Config, lambda config, context: None)]
