"""Returns a list of something other than components."""

from textgen import hookimpl


@hookimpl
def textgen_models():
    """A tuple is no component."""
    return [("rnn", dict)]
