"""The network for a text and a time: a table for new ones, and passes for those that know the
language.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen import devices
from textgen.data import Dataset
from textgen.gradient import GradientOptions
from textgen.protocols import Ids, Table
from textgen.speed import operations_per_second

TRAINING: Final = 0.9  # share of the characters of a text that are not held out
USED: Final = 0.8  # share of the time that is training: not starting, counting, validation
_COUNTED_CHARACTERS: Final = 100_000  # characters that may be counted for each second of the time
_MOST_COUNTED: Final = 10_000_000
_COUNT_BYTES: Final = 20  # of a character that is counted, in English
CHECKPOINT: Final = 4  # times the weights: a checkpoint has them again, and two means of each
AVERAGED: Final = 2  # times more where a run has a mean of them, which its checkpoint has twice
_HELD_OUT: Final = 100_000  # characters at most: more take time, and tell little more
_PROBABILITIES: Final = 10_000_000  # of the held-out characters, one for each of the vocabulary
_PASSES: Final = 20  # over a text by a new network: more learn it by heart
_TUNING: Final = 4  # passes over a text by a model that knows its language: more learn it by heart
ALL_PASSES: Final = f"{_TUNING} epochs"
_TUNING_USED: Final = 0.65  # share of the time that is left for them
_TUNING_DROPOUT: Final = 0.2  # in so many passes; fewer need less
_TUNING_STEPS: Final = 16  # of training in a pass, at least
_SHORT_TEXT: Final = 50_000  # characters, which are learnt by heart in a pass at a higher rate
_TUNING_HELD_OUT: Final = 40_000  # tokens
_EVALUATION_SHARE: Final = 0.3  # of the tokens that training would read: a tenth of the time
ADAPTING_STEPS: Final = 24  # in a pass over a text by adapters, at least
LEAST: Final = 1 / 3  # of a pass over a text by adapters: less is not planned
_LONG_TOKENS: Final = 4.5  # characters
_OPERATIONS: Final = 4  # of a weight and a token: a product forward, and one back to the adapters
_LOADED_WEIGHTS: Final = 30e6  # a second, at best
_LOADINGS: Final = 2  # of a model: to train, and again to write
_TRIED_TOKENS: Final = 3 * 1024  # that adapters read in a trial
_TRIAL_SHARE: Final = 0.6  # of the best speed, as a rule
_EVALUATIONS: Final = (4, 8)  # of adapters, at least and at most: a short text is soon overfitted
_EVALUATION_SPEED: Final = 1.2  # of that of training
_SAMPLE_TEXT: Final = 500.0  # tokens that training would read while a text is written
_TRIAL_SECONDS: Final = 0.4
_TRIAL_TOKENS: Final = 2048  # at least, for their loss
_SAMPLE: Final = 300_000  # characters that are counted for the expected loss
_PAGES: Final = 6000  # characters of a text in which repetitions are noticed
_REPEATED_SHARE: Final = 0.04  # share of sequences of words that a text may repeat in them
_MAX_REPEATED_WORDS: Final = 20  # words that a text may be allowed to repeat
_KNOWN_FACTOR, _UNKNOWN_FACTOR = 0.82, 0.36  # of that loss, which a model of the language leaves
_COUNTS_FACTOR: Final = 0.95  # of the loss of n-grams alone, which words and the text so far leave


@attrs.frozen
class Pretrained:
    """A run to start from.

    name       for the key `start`
    seconds    in which it trains on the text once
    loss       of a sample of the text before training, in nats per character
    length     characters of a token of the sample, on average
    reads_all  whether its tokens make up every text
    strategy   by which it writes; as a rule none
    """

    name: str
    seconds: float
    loss: float
    length: float
    reads_all: bool
    strategy: Table = attrs.field(factory=dict)


def choose(characters: int, vocabulary: int, seconds: float) -> dict[str, Any]:
    """The numbers of the template, by name, for a text of so many characters, of which so many are
    different.
    """
    table = tomllib.loads(Path(__file__).with_name("networks.toml").read_text(encoding="utf-8"))
    minutes = table.pop("minutes")
    row = table[_nearest(characters, table)]
    # The thousands of characters of Chinese, say, take time.
    column = minutes.index(_nearest(seconds / 60 / (1 + vocabulary / 1000), minutes))
    width, dropout = row["hidden_size"][column], row["dropout"][column]
    return {
        "hidden_size": width,
        "dropout": dropout,
        "embedding_dropout": round(0.3 * dropout, 2),
        "length": f"{_PASSES} epochs or {seconds:.10g}s",
        "batch_size": row["batch_size"],
        "learning_rate": 0.012 if width <= 384 else 0.010 if width <= 640 else 0.006,
        "max_tokens": _one_digit(min(seconds * _COUNTED_CHARACTERS, _MOST_COUNTED)),
        "held_out": _one_digit(min(_HELD_OUT, _PROBABILITIES / vocabulary)),
    }


def _nearest(number: float, others: Iterable[Any]) -> Any:
    """The one of others, numbers or texts of numbers, that is nearest in its ratio to a number."""
    return min(others, key=lambda other: abs(math.log(float(other) / number)))


def run_bytes(characters: int, vocabulary: int, chosen: Table) -> float:
    """Bytes on the disk, about, of a run with the numbers of `choose`."""
    width = int(chosen["hidden_size"])
    weights = (4 * width + vocabulary) * (width + 128)
    counted = min(characters * TRAINING, float(chosen["max_tokens"]))
    return 4 * CHECKPOINT * weights + 2 * _COUNT_BYTES * counted


def tune(characters: int, seconds: float, start: Pretrained) -> dict[str, int | float | str]:
    """The same for a network that knows the language, which a few passes over a text are enough
    for. Their number, unlike a time, gives the same model on a machine that is busy.
    """
    training = max(1.0, characters * TRAINING / start.length)  # tokens
    passes = seconds * _TUNING_USED / start.seconds
    epochs = min(_TUNING, round(passes))
    whole = {"length": f"{epochs} epoch{'s' * (epochs > 1)}"} if epochs else {}
    streams = 64
    while streams > 1 and training / streams < 64 * _TUNING_STEPS:
        streams //= 2
    return {
        "dropout": round(_TUNING_DROPOUT * min(1.0, passes / _TUNING), 2),
        "batch_size": streams,
        "learning_rate": 0.001 if characters < _SHORT_TEXT else 0.002,
        "held_out": _TUNING_HELD_OUT,
        **whole,
    }


def adapting_speed() -> float:
    """Weights times tokens a second that adapters may train here, at best."""
    if devices.resolve("auto") != "cpu":
        return math.inf
    return operations_per_second() / _OPERATIONS


def least_seconds(characters: int, weights: int, speed: float) -> float:
    """Seconds in which adapters to so many weights may read a third of a text at best, and load the
    model.
    """
    tokens = characters * TRAINING / _LONG_TOKENS
    return tokens * weights / speed * LEAST / USED + _LOADINGS * weights / _LOADED_WEIGHTS


def trial_seconds(weights: int, speed: float) -> int:
    """Seconds that a trial of adapters to so many weights takes, about."""
    at_best = _TRIED_TOKENS * weights / speed + _LOADINGS * weights / _LOADED_WEIGHTS
    return math.ceil(at_best / _TRIAL_SHARE)


def evaluated(seconds: float, speed: float) -> int:
    """Tokens that are held out at most, where training reads so many of them a second."""
    return _one_digit(max(1.0, min(_TUNING_HELD_OUT, _EVALUATION_SHARE * seconds * speed)))


def evaluate_every(steps: int, tokens: int, held_out: float) -> int:
    """Steps, of so many tokens, between evaluations of a training with so many steps, so that they
    and the texts along the way take an eighth of its time, or more where there are few.
    """
    evaluation = held_out / _EVALUATION_SPEED + _SAMPLE_TEXT
    most = int(steps * tokens / evaluation / 8)
    fewest, limit = _EVALUATIONS
    return math.ceil(steps / max(fewest, min(limit, most)))


def _one_digit(number: float) -> int:
    return int(float(f"{number:.0e}"))


def expected_loss(text: str) -> float:
    """Nats per character of the last tenth of a text that a run falls below, by n-grams counted
    before it.
    """
    from textgen.protocols import TrainingContext
    from textgen_builtins.models.loss import mean_loss
    from textgen_builtins.models.ngram.counting import CountTrainer
    from textgen_builtins.models.ngram.model import NgramModel

    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    characters, tokens = np.unique(points, return_inverse=True)
    cut, size = len(tokens) * 9 // 10, len(characters)
    training, held_out = tokens[max(0, cut - _SAMPLE) : cut], tokens[cut:]
    data = windows(training, size, 1)
    model = NgramModel(None, size)
    for _ in CountTrainer().train(model, data, TrainingContext(seed=0, device="cpu")):
        pass
    most = max(2, min(_SAMPLE // 10, _PROBABILITIES // size))
    return _COUNTS_FACTOR * (mean_loss(model, held_out[:most], size) or 0.0)


def tuned_loss(loss: float, without: float) -> float:
    """Nats per character of held-out text that a run falls below which starts from a model, by the
    loss of that before it is trained, and what to expect without it.

    Of textgen-english, tuned novels had 0.79 of what was expected without, verse 0.78 and plays,
    which have 1.2 times as much before, 0.74; a text in another language has 3 times as much.
    """
    return without * (_KNOWN_FACTOR + _UNKNOWN_FACTOR * max(0.0, loss / without - 1.0))


def allowed_length(text: str) -> int:
    """Words of a sequence that may come again in a generated text: of two words more, the text
    seldom repeats one.
    """
    parts = [text[i : i + _PAGES] for i in range(0, min(len(text), _SAMPLE), _PAGES)]
    words = [re.findall(r"\w+", part) for part in parts]
    for length in range(1, _MAX_REPEATED_WORDS):
        sequences = [[*zip(*(part[i:] for i in range(length + 2)), strict=False)] for part in words]
        repeated = sum(len(part) - len(set(part)) for part in sequences)
        if repeated <= _REPEATED_SHARE * sum(map(len, sequences)):
            return length
    return _MAX_REPEATED_WORDS


class Stopwatch:
    """Seconds since it was made, without what other programs use."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def seconds(self, threads: int = 1) -> float:
        """Seconds of so many threads, which work side by side."""
        passed, used = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        return min(passed, used / threads)


def windows(tokens: Ids, vocabulary: int, length: int) -> Dataset:
    """Tokens to train on in windows, with none held out."""
    return Dataset(
        training=tokens,
        validation=tokens[:0],
        vocab_size=vocabulary,
        window_length=length,
        window_stride=length,
    )


def tried(
    model: Any,
    tokens: Ids,
    vocabulary: int,
    window: int,
    options: GradientOptions,
    device: str,
    threads: int = 1,
) -> tuple[float, float]:
    """Tokens a second that training reads here in batches of windows, and the mean loss of `tokens`
    before it.

    threads   that share a step, to count the time of other programs out
    """
    import torch

    from textgen.events import StepDone
    from textgen.gradient import GradientTrainer
    from textgen.protocols import TrainingContext

    least = 3 * options.batch_size * window + 1  # batches of all rows
    data = windows(np.resize(tokens, max(len(tokens), least)), vocabulary, window)
    trainer = GradientTrainer(options, lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    watch, read, total, losses = Stopwatch(), 0, 0, 0.0
    events: Any = trainer.train(model, data, TrainingContext(seed=0, device=device))
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, StepDone):
                losses += float(event.loss) * event.tokens  # waits for the device
                total += event.tokens
                if total == event.tokens:  # the first step allocates memory, and is not timed
                    watch = Stopwatch()
                    continue
                read += event.tokens
                if watch.seconds() > _TRIAL_SECONDS and total >= _TRIAL_TOKENS:
                    break
    return read / watch.seconds(threads), losses / total
