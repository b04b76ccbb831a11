"""The split of a text into what is trained on and what is held out, and measures of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from textgen.data import Dataset, Windows, sample_spans
from textgen.documents import end_id
from textgen.errors import CorpusError
from textgen.pipeline.options import DataOptions
from textgen.protocols import Ids, Table, Tokenizer
from textgen.tokenizers import unknown_id

_SPANS: Final = 16  # of a held-out part that is too large to be read whole
_SAMPLE: Final = 1 << 20  # tokens of which something is measured
_LOST: Final = 1 << 16, 256  # tokens, and their spans, of which is estimated what is lost


def last_tokens(sizes: Table, options: DataOptions) -> tuple[int, ...]:
    """Begin and end of the tokens that were held out as the last ones, by the DataSizes of a run;
    () where windows or no tokens were.
    """
    first, count = sizes["training_tokens"], sizes["validation_tokens"]
    if options.windows is not None or not count:
        return ()
    return first, first + (count if options.validation < 1 else first // 9)  # a tenth of all


def split_tokens(
    tokens: Ids, options: DataOptions, tokenizer: Tokenizer, held_out: Sequence[int] = ()
) -> Dataset:
    """Split as the `[data]` table says, or with the tokens from one position to another held out.

    Raises CorpusError when there is not a window to train on.
    """
    length = options.window_length
    stride = options.window_stride or length
    if options.windows is not None:
        training, validation = _split_windows(tokens, options.windows, length, stride)
    else:
        share = options.validation if options.validation < 1 else 0.1
        if held_out:
            begin, stop = held_out
            shared = int(tokens[begin - 1] == end_id(tokenizer))  # see _split_share
            training = np.concatenate([tokens[:begin], tokens[stop - shared :]])
            validation = tokens[begin - shared : stop - shared]
        else:
            training, validation = _split_share(tokens, share, end_id(tokenizer), length)
        if options.validation >= 1:
            validation = sample_spans(validation, int(options.validation), _SPANS)
    window = f"one window of data.window_length = {length} needs {length + 1}"
    if len(training) <= length:
        cause = f"the corpus is too short: {len(training):,} training tokens, and {window}"
        raise CorpusError(f"{cause}; shorten the window or use a longer text")
    if 0 < len(validation) <= length:
        cause = f"the held-out part is too short: {len(validation):,} tokens, and {window}"
        advice = "raise data.validation, set it to 0, shorten the window or use a longer text"
        raise CorpusError(f"{cause}; {advice}")
    sample = (validation if len(validation) else training)[:_SAMPLE]
    return Dataset(
        training=training,
        validation=validation,
        vocab_size=tokenizer.vocab_size,
        window_length=length,
        window_stride=stride,
        characters_per_token=len(tokenizer.decode(sample)) / len(sample),
    )


def unknown_share(data: Dataset, tokenizer: Tokenizer) -> float:
    """The share of tokens that stand for text outside the vocabulary, of those that the loss is
    measured on.
    """
    if (unknown := unknown_id(tokenizer)) is None:
        return 0.0
    sample = (data.validation if len(data.validation) else data.training)[:_SAMPLE]
    return float(np.mean(sample == unknown))


def lost_share(tokens: Ids, tokenizer: Tokenizer, characters: int) -> float:
    """The share of the characters of a text that its tokens (N,) do not give again; of a long text
    an estimate.
    """
    sample = sample_spans(tokens, *_LOST)
    kept = len(tokenizer.decode(sample)) * len(tokens) / len(sample)
    return max(0.0, 1 - kept / characters)


def _split_share(tokens: Ids, share: float, end: int | None, length: int) -> tuple[Ids, Ids]:
    """All but the last part, and the last part: between two documents, if one ends within a million
    tokens, not before half of the first part, and before a last window of `length` tokens.

    The id between them belongs to both parts: it ends the one, and the other starts from it.
    """
    position = len(tokens) - int(len(tokens) * share)
    if end is None or position == len(tokens):
        return tokens[:position], tokens[position:]
    low, high = max(1, position - _SAMPLE), min(len(tokens) - 1, position + _SAMPLE)
    borders = np.flatnonzero(tokens[low:high] == end) + low
    borders = borders[borders < len(tokens) - length]
    if not len(borders):
        return tokens[:position], tokens[position:]
    border = int(borders[np.abs(borders - position).argmin()])
    if border < position // 2:  # most of the text would be held out
        return tokens[:position], tokens[position:]
    return tokens[: border + 1], tokens[border:]


def _split_windows(
    tokens: Ids, wanted: tuple[int, ...], length: int, stride: int
) -> tuple[Ids, Ids]:
    """The tokens of the first windows, and of those after them; `wanted` has both numbers."""
    count, held_out = wanted
    available = len(Windows(tokens, length, stride))
    if count + held_out > available:
        raise CorpusError(
            f"the corpus has {available:,} windows of {length} tokens at stride {stride}, and the "
            f"pipeline wants {count:,} to train on and {held_out:,} to validate on; lower "
            "data.windows or data.window_stride, or use a longer text"
        )

    def windows(first: int, count: int) -> Ids:
        return tokens[
            first * stride : (first + count - 1) * stride + length + 1 if count else first * stride
        ]

    return windows(0, count), windows(count, held_out)
