"""Prompts of different lengths, empty ones among them, for the model of `finished_run`."""

PROMPTS = ("the ", "", "the time traveller smiled, and ", "t", "", "hour of the clock", "struck")
