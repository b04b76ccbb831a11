"""Returns something other than a list."""

from textgen import hookimpl


@hookimpl
def textgen_models():
    """A string is no list."""
    return "rnn"
