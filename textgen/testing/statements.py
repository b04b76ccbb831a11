"""What the contracts ask, a sentence each with what helps, read from contracts.md, which is a part of the docs too."""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

import attrs

_SECTION: Final = re.compile(r"^\((.+)\)=\n### .+\n\n\*\*(.+)\*\*\n\n((?:(?!\(|## ).*\n)+)", re.MULTILINE)


@attrs.frozen
class Statement:
    """One thing that a contract asks.

    anchor     its name, and its section's in the docs
    sentence   what is asked
    advice     what helps where it is not so
    """

    anchor: str
    sentence: str
    advice: str


_STATEMENTS: Final = {
    anchor: Statement(anchor, sentence, " ".join(advice.split()))
    for anchor, sentence, advice in _SECTION.findall(
        (resources.files("textgen.testing") / "contracts.md").read_text(encoding="utf-8")
    )
}

COMPONENT_RECORD = _STATEMENTS["component-record"]
COMPONENT_IMPORT = _STATEMENTS["component-import"]
COMPONENT_OPTIONS = _STATEMENTS["component-options"]
COMPONENT_BUILD = _STATEMENTS["component-build"]
COMPONENT_CALLS = _STATEMENTS["component-calls"]
COMPONENT_LEAKS = _STATEMENTS["component-leaks"]
COMPONENT_PROCESS = _STATEMENTS["component-process"]
COMPONENT_ENDS = _STATEMENTS["component-ends"]
COMPONENT_METHODS = _STATEMENTS["component-methods"]
COMPONENT_RAISES = _STATEMENTS["component-raises"]
COMPONENT_QUIET = _STATEMENTS["component-quiet"]

CORPUS_PIECES = _STATEMENTS["corpus-pieces"]
CORPUS_TEXT = _STATEMENTS["corpus-text"]
CORPUS_AGAIN = _STATEMENTS["corpus-again"]
CORPUS_SOURCES = _STATEMENTS["corpus-sources"]
CORPUS_ENDS = _STATEMENTS["corpus-ends"]
CORPUS_READERS = _STATEMENTS["corpus-readers"]
CORPUS_ERRORS = _STATEMENTS["corpus-errors"]

TOKENIZER_FIT = _STATEMENTS["tokenizer-fit"]
TOKENIZER_VOCABULARY = _STATEMENTS["tokenizer-vocabulary"]
TOKENIZER_DETERMINISTIC = _STATEMENTS["tokenizer-deterministic"]
TOKENIZER_IDS = _STATEMENTS["tokenizer-ids"]
TOKENIZER_ANY_TEXT = _STATEMENTS["tokenizer-any-text"]
TOKENIZER_UNKNOWN = _STATEMENTS["tokenizer-unknown"]
TOKENIZER_ROUND_TRIP = _STATEMENTS["tokenizer-round-trip"]
TOKENIZER_DECODE = _STATEMENTS["tokenizer-decode"]
TOKENIZER_PIECES = _STATEMENTS["tokenizer-pieces"]
TOKENIZER_STREAM = _STATEMENTS["tokenizer-stream"]
TOKENIZER_END = _STATEMENTS["tokenizer-end"]
TOKENIZER_SAVED = _STATEMENTS["tokenizer-saved"]
TOKENIZER_THREADS = _STATEMENTS["tokenizer-threads"]
TOKENIZER_APART = _STATEMENTS["tokenizer-apart"]

MODEL_SHAPE = _STATEMENTS["model-shape"]
MODEL_DTYPE = _STATEMENTS["model-dtype"]
MODEL_FINITE = _STATEMENTS["model-finite"]
MODEL_DETERMINISTIC = _STATEMENTS["model-deterministic"]
MODEL_INPUT = _STATEMENTS["model-input"]
MODEL_CAUSAL = _STATEMENTS["model-causal"]
MODEL_OUTPUT = _STATEMENTS["model-output"]
MODEL_STEPWISE = _STATEMENTS["model-stepwise"]
MODEL_GREEDY = _STATEMENTS["model-greedy"]
MODEL_ROWS = _STATEMENTS["model-rows"]
MODEL_STATE_FORM = _STATEMENTS["model-state-form"]
MODEL_STATE = _STATEMENTS["model-state"]
MODEL_STATE_ROWS = _STATEMENTS["model-state-rows"]
MODEL_STATE_COPY = _STATEMENTS["model-state-copy"]
MODEL_TAKE_JOIN = _STATEMENTS["model-take-join"]
MODEL_DECODERS = _STATEMENTS["model-decoders"]
MODEL_LENGTH = _STATEMENTS["model-length"]
MODEL_SAVED = _STATEMENTS["model-saved"]
MODEL_REFUSES = _STATEMENTS["model-refuses"]
MODEL_SEED = _STATEMENTS["model-seed"]
MODEL_FORWARD = _STATEMENTS["model-forward"]
MODEL_DROPOUT = _STATEMENTS["model-dropout"]

TRAINER_EVENTS = _STATEMENTS["trainer-events"]
TRAINER_STEPS = _STATEMENTS["trainer-steps"]
TRAINER_EVALUATES = _STATEMENTS["trainer-evaluates"]
TRAINER_LOSSES = _STATEMENTS["trainer-losses"]
TRAINER_VALIDATION = _STATEMENTS["trainer-validation"]
TRAINER_DEVICE = _STATEMENTS["trainer-device"]
TRAINER_LEARNS = _STATEMENTS["trainer-learns"]
TRAINER_DETERMINISTIC = _STATEMENTS["trainer-deterministic"]
TRAINER_STATE_FORM = _STATEMENTS["trainer-state-form"]
TRAINER_RESUMES = _STATEMENTS["trainer-resumes"]
TRAINER_STABLE = _STATEMENTS["trainer-stable"]
TRAINER_FINISHED = _STATEMENTS["trainer-finished"]
TRAINER_DATA = _STATEMENTS["trainer-data"]
TRAINER_QUIET = _STATEMENTS["trainer-quiet"]
TRAINER_REFUSES = _STATEMENTS["trainer-refuses"]

SAMPLER_SHAPE = _STATEMENTS["sampler-shape"]
SAMPLER_DTYPE = _STATEMENTS["sampler-dtype"]
SAMPLER_FINITE = _STATEMENTS["sampler-finite"]
SAMPLER_POSSIBLE = _STATEMENTS["sampler-possible"]
SAMPLER_FORBIDDEN = _STATEMENTS["sampler-forbidden"]
SAMPLER_INPUT = _STATEMENTS["sampler-input"]
SAMPLER_ROWS = _STATEMENTS["sampler-rows"]
SAMPLER_DETERMINISTIC = _STATEMENTS["sampler-deterministic"]
SAMPLER_HISTORY = _STATEMENTS["sampler-history"]
SAMPLER_PROMISE = _STATEMENTS["sampler-promise"]
SAMPLER_STATE_FORM = _STATEMENTS["sampler-state-form"]
SAMPLER_STATE = _STATEMENTS["sampler-state"]
SAMPLER_RANDOM = _STATEMENTS["sampler-random"]
SAMPLER_TORCH = _STATEMENTS["sampler-torch"]
SAMPLER_DEVICE = _STATEMENTS["sampler-device"]
SAMPLER_THREADS = _STATEMENTS["sampler-threads"]

OBSERVER_RUN = _STATEMENTS["observer-run"]
OBSERVER_UNKNOWN = _STATEMENTS["observer-unknown"]
OBSERVER_RESUMED = _STATEMENTS["observer-resumed"]
OBSERVER_FAILED = _STATEMENTS["observer-failed"]
OBSERVER_CONSOLE = _STATEMENTS["observer-console"]
OBSERVER_FILES = _STATEMENTS["observer-files"]
OBSERVER_APART = _STATEMENTS["observer-apart"]

COMMAND_BUILD = _STATEMENTS["command-build"]
COMMAND_HELP = _STATEMENTS["command-help"]
COMMAND_LIGHT = _STATEMENTS["command-light"]
COMMAND_USAGE = _STATEMENTS["command-usage"]
COMMAND_FILES = _STATEMENTS["command-files"]
COMMAND_AGAIN = _STATEMENTS["command-again"]
COMMAND_RUNS = _STATEMENTS["command-runs"]

STATEMENTS: Final = tuple(_STATEMENTS.values())
