"""Plugins: found, imported and checked."""

from textgen.lazy import names_of as _names_of

__all__, __getattr__ = _names_of(__name__)
