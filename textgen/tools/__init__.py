"""Implementations of single commands."""
