"""Plugins that must be left out, each for a reason of its own."""
