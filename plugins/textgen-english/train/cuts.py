"""A plugin for the second and third training: a tokenizer that cuts the text where no word ends.

    textgen --plugin cuts.py run second.toml

A prompt may end anywhere, in a word or after a space, and the text after it is encoded without it.
A model that has seen such places knows how to go on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from textgen import BuildContext, Component, hookimpl, option
from textgen.protocols import Ids
from textgen_builtins.tokenizers.bpe import BPETokenizer
from textgen_builtins.tokenizers.config import BPEConfig


@attrs.frozen
class CutConfig(BPEConfig):
    """The vocabulary of a run, and where its text is cut."""

    run: Path = option(Path("runs/first"), help="whose vocabulary it is")
    apart: int = option(800, help="characters between cuts, on average")
    until: int = option(31_340_000, help="characters of the text that may be cut")
    adds: bool = option(False, help="add the characters that the vocabulary lacks")


class Cutting(BPETokenizer):
    """A fitted tokenizer."""

    def fit(self, pieces: Iterable[Any]) -> None:
        """Read the vocabulary, and add to it."""
        state = json.loads((self.config.run / "tokenizer.json").read_text(encoding="utf-8"))
        self._index(self.from_dict(state).merges)
        if self.config.adds:
            self.extend(pieces)

    def from_dict(self, state: Mapping[str, Any]) -> Cutting:
        """A tokenizer of what `to_dict` gave."""
        return Cutting(self.config, super().from_dict(state).merges)

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """(T,) for each part of the text, encoded by itself."""
        draw, done = random.Random(0), 0
        text = "".join(pieces)
        while done < len(text):
            far = done + 1 + int(draw.expovariate(1 / self.config.apart))
            end = far if far < self.config.until else len(text)
            yield from super().encode_pieces([text[done:end]])
            done = end


def build(config: CutConfig, context: BuildContext) -> Cutting:
    """An unfitted tokenizer."""
    return Cutting(attrs.evolve(config, run=context.folder / config.run))


@hookimpl
def textgen_tokenizers() -> list[Component]:
    """Offer `cutting`."""
    return [Component("cutting", CutConfig, build)]
