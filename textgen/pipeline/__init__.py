"""Pipelines: TOML becomes a frozen, checked Pipeline."""

from textgen.lazy import names_of as _names_of

__all__, __getattr__ = _names_of(__name__)
