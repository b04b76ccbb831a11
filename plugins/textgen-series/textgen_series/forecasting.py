"""Forecasts from a trained run: the mean fed back, and sampled continuations."""

from __future__ import annotations

from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen import Generator
from textgen.protocols import Array, Decoder, Floats
from textgen_series.bins import BinsTokenizer

Values = Floats
Indices = npt.NDArray[np.int64]

_ROWS: Final = (
    8192  # sequences decoded side by side: bounds memory, and keeps the arrays in the cache
)


@attrs.frozen(eq=False)
class Forecast:
    """Predictions from each of O origins, 1 to K steps ahead, each (O, K).

    fed_back    the mean of the next value's distribution, with each mean fed back as if it had been
                observed
    sampled     the mean over sampled continuations
    low, high   quantiles of the sampled continuations
    """

    fed_back: Values
    sampled: Values
    low: Values
    high: Values


def forecast(
    generator: Generator,
    tokenizer: BinsTokenizer,
    values: Values,
    origins: Indices,
    *,
    steps: int,
    context: int,
    samples: int,
    band: float,
    seed: int,
) -> Forecast:
    """Forecast from `values` (N,) up to and with each origin.

    context   how many values before a forecast the model is warmed up on
    samples   continuations drawn from each origin, from the model's own distribution: no sampler
              takes part
    band      probability between `low` and `high`
    seed      of the draws; those of an origin depend on it and the origin alone
    """
    ids = tokenizer.ids_of(values)
    size = max(1, _ROWS // samples)
    parts = []
    for start in range(0, len(origins), size):
        some = origins[start : start + size]
        warm_up = ids[some[:, None] + np.arange(1 - context, 1)]
        uniforms = np.stack(
            [
                np.random.Generator(np.random.Philox(key=np.array([seed, o], np.uint64))).random(
                    (steps, samples)
                )
                for o in some
            ]
        )
        decoder = generator.model.decoder(len(some))
        probabilities = _probabilities(decoder.extend(warm_up))
        state = decoder.read_state()
        fed_back = _feed_back(decoder, tokenizer, probabilities, steps)
        decoder.write_state(
            {name: np.repeat(array, samples, axis=0) for name, array in state.items()}
        )
        parts.append((fed_back, *_sample(decoder, tokenizer, probabilities, uniforms, band)))
    return Forecast(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _feed_back(
    decoder: Decoder, tokenizer: BinsTokenizer, probabilities: Values, steps: int
) -> Values:
    """(B, K) means; `probabilities` (B, V) are of the first step."""
    means = np.empty((len(probabilities), steps))
    for step in range(steps):
        if step:
            probabilities = _probabilities(
                decoder.extend(tokenizer.ids_of(means[:, step - 1 : step]))
            )
        means[:, step] = probabilities @ tokenizer.centres
    return means


def _sample(
    decoder: Decoder, tokenizer: BinsTokenizer, probabilities: Values, uniforms: Values, band: float
) -> tuple[Values, Values, Values]:
    """(B, K) mean, lower and upper quantile of S continuations; `uniforms` (B, K, S), the decoder's
    batch B * S.
    """
    batch, steps, _ = uniforms.shape
    mean, low, high = np.empty((3, batch, steps))
    tokens: Indices = np.empty(0, np.int64)
    for step in range(steps):
        if step:
            probabilities = _probabilities(decoder.extend(tokens.reshape(-1, 1)))
        # The mean of the expected values has less noise than that of the drawn ones.
        mean[:, step] = (probabilities @ tokenizer.centres).reshape(batch, -1).mean(axis=1)
        cdf = probabilities.cumsum(axis=1).reshape(
            batch, -1, probabilities.shape[1]
        )  # (B, 1 or S, V)
        threshold = (
            uniforms[:, step, :, None] * cdf[:, :, -1:] * (1 - 2**-52)
        )  # (B, S, 1), below the total
        tokens = (cdf <= threshold).sum(axis=2)  # (B, S)
        quantiles = np.quantile(tokenizer.centres[tokens], [(1 - band) / 2, (1 + band) / 2], axis=1)
        low[:, step], high[:, step] = quantiles
    return mean, low, high


def _probabilities(logits: Array) -> Values:
    """Softmax of logits (B, V), in float64, wherever they lie."""
    array: Any = logits.cpu() if hasattr(logits, "cpu") else logits
    rows = np.asarray(array).astype(np.float64)
    weights: Values = np.exp(rows - rows.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
