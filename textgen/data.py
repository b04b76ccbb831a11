"""Text to a memory-mapped token array, its split, and windows over it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.errors import CorpusError
from textgen.pipeline.pipeline import DataOptions
from textgen.protocols import Ids, Tokenizer

_RATIO_SAMPLE: Final = 1 << 20  # tokens decoded to measure how many characters a token stands for
_ROUNDS: Final = 6
_ORDERED_AT_ONCE: Final = 1 << 16


@attrs.frozen
class Survey:
    """What identifies a text: the SHA-256 of its UTF-8 form, and how many characters it has."""

    sha256: str
    characters: int


class Surveyor:
    """Passes pieces of text through and surveys them on the way."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._characters = 0

    def watch(self, pieces: Iterable[str]) -> Iterator[str]:
        """The same pieces, counted and hashed as they are taken."""
        for piece in pieces:
            # surrogatepass: a lone surrogate is no valid text, but that is for the tokenizer to judge
            self._hash.update(piece.encode("utf-8", "surrogatepass"))
            self._characters += len(piece)
            yield piece

    def result(self) -> Survey:
        """The survey of all that has passed."""
        return Survey(self._hash.hexdigest(), self._characters)


@attrs.frozen(eq=False)
class Windows:
    """Windows of `length` tokens at every `stride`, each with the token that follows every position."""

    tokens: Ids
    length: int
    stride: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.length - 1) // self.stride + 1)

    def take(self, indices: Ids) -> npt.NDArray[np.int64]:
        """(len(indices), length + 1) int64: columns 0 to length - 1 are the inputs, 1 to length the targets."""
        view = np.lib.stride_tricks.sliding_window_view(self.tokens, self.length + 1)
        return view[np.asarray(indices) * self.stride].astype(np.int64)


@attrs.frozen(eq=False, kw_only=True)
class Dataset:
    """A corpus ready to train on.

    training, validation    (N,) token ids, memory-mapped; validation may be empty
    window_length, window_stride   as the pipeline's `[data]` table says
    characters_per_token    measured; 1.0 for a character tokenizer
    """

    training: Ids
    validation: Ids
    vocab_size: int
    window_length: int
    window_stride: int
    characters_per_token: float = 1.0

    def training_windows(self) -> Windows:
        """The windows to train on."""
        return Windows(self.training, self.window_length, self.window_stride)

    def validation_windows(self) -> Windows:
        """The windows to validate on."""
        return Windows(self.validation, self.window_length, self.window_stride)


def encode_corpus(pieces: Iterable[str], tokenizer: Tokenizer, path: Path) -> Ids:
    """Write the token ids of a corpus to the file `path` and map it into memory, (N,), read-only."""
    dtype = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0))
    count = 0
    with path.open("wb") as file:
        for ids in tokenizer.encode_pieces(pieces):
            file.write(np.ascontiguousarray(ids, dtype).tobytes())
            count += len(ids)
    if not count:
        raise CorpusError("the corpus is empty: no token to train on; give it some text")
    return np.memmap(path, dtype, "r", shape=(count,))


def split_tokens(tokens: Ids, options: DataOptions, tokenizer: Tokenizer) -> Dataset:
    """Split as the `[data]` table says. Raises CorpusError when there is not a window to train on."""
    length = options.window_length
    stride = options.window_stride or length
    available = len(Windows(tokens, length, stride))
    if options.training_windows is None and options.validation_windows is None:
        held_out = int(len(tokens) * options.validation_fraction)
        training, validation = tokens[: len(tokens) - held_out], tokens[len(tokens) - held_out :]
    else:
        held = _held_out_windows(options, available)
        count = options.training_windows or available - held
        training = tokens[: max(count - 1, 0) * stride + length + 1] if count > 0 else tokens[:0]
        start = count * stride
        validation = tokens[start : start + (held - 1) * stride + length + 1] if held else tokens[:0]
        if count + held > available or count < 1:
            raise CorpusError(
                f"the corpus has {available:,} windows of {length} tokens at stride {stride}, and the pipeline wants "
                f"{max(count, 1):,} to train on and {held:,} to validate on; lower data.training_windows, "
                "data.validation_windows or data.window_stride, or use a longer text"
            )
    if not len(Windows(training, length, stride)):
        raise CorpusError(
            f"the corpus is too short: {len(training):,} training tokens, and one window of "
            f"data.window_length = {length} needs {length + 1}; shorten the window or use a longer text"
        )
    if len(validation) and not len(Windows(validation, length, stride)):
        raise CorpusError(
            f"the held-out part is too short: {len(validation):,} tokens, and one window of "
            f"data.window_length = {length} needs {length + 1}; raise data.validation_fraction, set it to 0, "
            "shorten the window or use a longer text"
        )
    sample = validation[:_RATIO_SAMPLE] if len(validation) else training[:_RATIO_SAMPLE]
    return Dataset(
        training=training,
        validation=validation,
        vocab_size=tokenizer.vocab_size,
        window_length=length,
        window_stride=stride,
        characters_per_token=len(tokenizer.decode(sample)) / len(sample),
    )


def shuffled(size: int, *key: int) -> Callable[[int, int], npt.NDArray[np.int64]]:
    """A random order of 0 to size - 1 that costs no memory: `order(start, stop)` gives a slice of it.

    A Feistel network over the next power of four, keyed by `key`, with cycle walking: values that fall outside are
    sent through again until they fall inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The
    same key gives the same order, so a position in it is all that a resumed run has to know.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half_bits) - 1), np.uint64(half_bits)
    round_keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64)

    def permute(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> shift, values & mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        return (left << shift) | right

    def compute(start: int, stop: int) -> npt.NDArray[np.int64]:
        values = permute(np.arange(start, stop, dtype=np.uint64))
        outside = np.flatnonzero(values >= size)
        while len(outside):
            values[outside] = permute(values[outside])
            outside = outside[values[outside] >= size]
        return values.astype(np.int64)

    first, block = 0, np.empty(0, np.int64)

    def order(start: int, stop: int) -> npt.NDArray[np.int64]:
        nonlocal first, block
        stop = min(stop, size)
        if start < first or stop > first + len(block):  # a block ahead costs little more than a batch
            first, block = start, compute(start, min(max(stop, start + _ORDERED_AT_ONCE), size))
        return block[start - first : stop - first]

    return order


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _held_out_windows(options: DataOptions, available: int) -> int:
    if options.validation_windows is not None:
        return options.validation_windows
    rest = available - (options.training_windows or 0)
    return max(0, int(rest * options.validation_fraction))
