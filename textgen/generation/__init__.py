"""Generates text from a prompt."""
