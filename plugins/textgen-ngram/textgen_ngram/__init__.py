"""Plugins for textgen: n-gram models by counting, and mixtures of two trained models. No torch."""
