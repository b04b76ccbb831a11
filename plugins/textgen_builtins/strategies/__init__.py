"""Strategies: how a text is made of steps."""
