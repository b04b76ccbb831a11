"""Which network for which text, time and machine: the widest that has time for the text, and is not too wide for it."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from textgen.gradient.computing import Way

_TRIED: Final = 256  # units of the network whose speed is measured
_WIDTHS: Final = (32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1536)
_PASSES: Final = (
    8.0  # times that it should have time to read the text: then the widest one learns most.
)
_SMALL: Final = (
    250_000  # characters of a text; a smaller one more often, by the square of its cube root
)
_FOR_A_WEIGHT: Final = (
    24  # characters for each of its weights, which is enough of a text that it reads less often
)
_WEIGHTS: Final = (
    45  # of the network, at most, for each character: more only learn a small text by heart
)
_USED: Final = 0.8  # share of the time that is training: not starting, counting, validation
_SLOWER: Final = 1.75  # a network twice as wide takes 2 to the power of this times as long
_OF_USUAL_TEXT: Final = 100  # different characters, which those measurements include
_FOR_ALL: Final = 3.3e-4  # time for each other character, in that of 256 units
_FOR_A_UNIT: Final = 2.5e-6  # and for each unit
_TRIAL_SECONDS: Final = 0.4
_READ: Final = 40e6  # characters a second that are read and encoded the first time
_COUNTED: Final = 100_000  # characters that may be counted at once for each second of the time
_COUNTED_IN_SHARDS: Final = 1_200_000  # and in shards, which the trainer does with more than
_AT_ONCE: Final = 10_000_000
_HELD_OUT: Final = 100_000  # characters at most: more take time, and tell little more
_PROBABILITIES: Final = (
    10_000_000  # of the characters held out, one for each of the vocabulary: they take time, too
)


@attrs.frozen
class Settings:
    """Settings of the template.

    max_tokens   that are counted; 0 for all
    held_out     characters of the last tenth that are read; 0 for all
    passes       of the network over the text that there will be time for
    """

    hidden_size: int
    embedding_size: int
    dropout: float
    input_dropout: float
    batch_size: int
    learning_rate: float
    max_tokens: int
    held_out: int
    passes: float


def choose(characters: int, vocabulary: int, seconds: float, speed: float) -> Settings:
    """Settings for a text of so many characters, of which so many are different.

    speed   characters a second that a step of training with 256 units reads on this machine, of a usual text
    """
    training = max(1.0, characters * 0.85)
    left = max(seconds * _USED - characters / _READ, seconds / 3)
    enough = _PASSES * max(1.0, _SMALL / training) ** (2 / 3)

    def passes(width: int) -> float:
        time: float = (width / _TRIED) ** _SLOWER
        time += max(0, vocabulary - _OF_USUAL_TEXT) * (_FOR_ALL + _FOR_A_UNIT * width)
        return speed * left / time / training

    allowed = (
        width
        for width in _WIDTHS
        if passes(width) >= min(enough, _FOR_A_WEIGHT * weights(width) / training)
        and weights(width) <= _WEIGHTS * characters
    )
    width = max(allowed, default=_WIDTHS[0])
    read = passes(width)
    # How far it could learn the text by heart: by how often it reads it, and by its weights for each character.
    learned = weights(width) / characters
    rote = min(1.0, read * math.sqrt(learned) / 36, read * learned / 60)
    held_out = min(_HELD_OUT, _PROBABILITIES // vocabulary)
    streams = 16 if training < 60_000 else 32
    while streams > 4 and training / streams < 64 * 20:
        streams //= 2
    return Settings(
        hidden_size=width,
        embedding_size=_embedding_size(width),
        dropout=round(0.5 * rote, 2),
        input_dropout=round(0.15 * rote, 2),
        batch_size=streams,
        learning_rate=0.012 if width <= 384 else 0.010 if width <= 640 else 0.006,
        max_tokens=counted if (counted := _counted(characters, seconds)) < training else 0,
        held_out=int(float(f"{held_out:.0e}")) if characters > 10 * held_out else 0,
        passes=read,
    )


def _counted(characters: int, seconds: float) -> int:
    """How many characters there is time to count."""
    in_shards = seconds * _COUNTED_IN_SHARDS
    most = (
        in_shards
        if min(in_shards, characters * 0.85) > _AT_ONCE
        else min(seconds * _COUNTED, _AT_ONCE)
    )
    return int(float(f"{most:.0e}"))  # one digit is enough


def weights(width: int) -> int:
    """The number of weights of the network's cells."""
    return 4 * width * (width + _embedding_size(width))


def _embedding_size(width: int) -> int:
    return min(128, width)


def counted_loss(text: str) -> float:
    """Nats per character of the last tenth of a text by n-grams counted in the rest: above what a run ends with."""
    import numpy as np

    from textgen.data import Dataset
    from textgen.protocols import TrainingContext
    from textgen_builtins.models.loss import mean_loss
    from textgen_builtins.models.ngram.counting import CountTrainer
    from textgen_builtins.models.ngram.model import NgramModel

    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    characters, tokens = np.unique(points, return_inverse=True)
    cut, size = len(tokens) * 9 // 10, len(characters)
    data = Dataset(
        training=tokens[:cut],
        validation=tokens[:0],
        vocab_size=size,
        window_length=1,
        window_stride=1,
    )
    model, held_out = NgramModel(None, size), min(len(tokens) - cut, _PROBABILITIES // size)
    for _ in CountTrainer().train(model, data, TrainingContext(seed=0, device="cpu")):
        pass
    return mean_loss(model, tokens[cut : cut + max(2, held_out)], size) or 0.0


def measured_speed(seed: int = 0) -> float:
    """Characters a second that a step of training with an LSTM of 256 units reads here, tried for a second.

    On a CPU one worker for each core computes: torch's own threads wait for each other, on a busy machine very long.
    """
    import numpy as np
    import torch

    from textgen import devices
    from textgen.gradient import choosing
    from textgen.gradient.computing import Way
    from textgen.protocols import TrainingContext
    from textgen_builtins.models.rnn.config import RNNConfig
    from textgen_builtins.models.rnn.torch_model import TorchRNN

    context = TrainingContext(seed=seed, device=devices.resolve("auto"))
    config = RNNConfig(cell="lstm", hidden_size=_TRIED, embedding_size=128)
    model = TorchRNN.create(config, 64, seed=seed, device=context.device)
    windows = np.random.default_rng(seed).integers(64, size=(32, 65))
    workers = torch.get_num_threads() if context.device == "cpu" else 1
    way = choosing.choose_way(model, windows, context, Way("auto", workers, "auto"), workers)
    return _speed(model, windows, context.device, way)


def _speed(model: Any, windows: npt.NDArray[np.int64], device: str, way: Way) -> float:
    """Characters a second of gradients; an update takes little. Where steps are slow, a single one must do."""
    from textgen.gradient.computing import Computation

    computation = Computation.of(model, device, way)
    steps, begun = -1, 0.0  # the first step allocates memory, and is not timed
    try:
        while steps < 1 or time.perf_counter() - begun < _TRIAL_SECONDS:
            float(computation.run(partial(computation.gradients, windows, None, (0, steps + 1)))[0])
            steps += 1
            begun = begun or time.perf_counter()
        return steps * windows[:, 1:].size / (time.perf_counter() - begun)
    finally:
        computation.close()
