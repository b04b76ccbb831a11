"""Mixtures of two models."""
