"""Prompts of different lengths, empty ones among them, for the model of `finished_run`, and options
of samplers that have states and draw numbers.
"""

PROMPTS = ("the ", "", "the time traveller smiled, and ", "t", "", "hour of the clock", "struck")
STATES_AND_CHANCE = {
    "temperature": 0.9,
    "regex": r"[\s\S]*",
    "xtc_probability": 0.5,
    "xtc_threshold": 0.05,
    "dry_multiplier": 0.5,
}
