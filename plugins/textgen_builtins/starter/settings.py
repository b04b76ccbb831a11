"""The tables of `settings.toml` for a text and a time."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from textgen.gradient import Length

KINDS: Final = ("tokenizer", "data", "model", "trainer")
HELD_OUT: Final = 40_000  # tokens at most, of a text that a model is tuned to
_WIDTHS: Final = (128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1536)
_PAGE: Final = 6000  # characters in which a sequence of words may come again
_PAGES: Final = 50
_REPEATED_SHARE: Final = 0.04  # of the sequences of a text
_MOST_REPEATED: Final = 20  # words


def read_settings() -> dict[str, Any]:
    """All tables."""
    return tomllib.loads(Path(__file__).with_name("settings.toml").read_text(encoding="utf-8"))


def new_network(characters: int, vocabulary: int, seconds: float) -> dict[str, Any]:
    """The tables of a new network for a text of so many characters, of which so many differ.

    Its width was tried for texts of 90,000 to 10 million characters and 15 seconds to an hour, and
    this is at most a step from the best.
    """
    known = read_settings()
    row = min(known["networks"], key=lambda row: abs(math.log(row["characters"] / characters)))
    minutes = seconds / 60 / (1 + vocabulary / 1000)  # the thousands of Chinese take time
    pace = minutes**0.55
    most = max(262 * minutes**0.29, 1020 * pace * math.sqrt(100_000 / characters))
    if most < 1700:  # 1,536 units take twice the time of 1,024, and need more of it to be better
        most = min(most, 1024)
    width = max((each for each in _WIDTHS if each <= most), default=_WIDTHS[0])
    width = min(width, row["hidden_size"])
    dropout = 0.5 * min(1.0, 200_000 * pace / characters) ** 1.5
    tables: dict[str, Any] = known["new"]
    # Probabilities for the whole vocabulary take time, and more tokens tell little more.
    tables["data"]["validation"] = _one_digit(min(100_000, 10_000_000 / vocabulary))
    tables["model"]["first"] |= {
        "hidden_size": width,
        "dropout": round(dropout, 2),
        "embedding_dropout": round(0.3 * dropout, 2),
    }
    first = tables["trainer"]["first"]
    first["length"] = with_time(first["length"], seconds)
    first["batch_size"] = row["batch_size"]
    first["learning_rate"] = 0.012 if width <= 384 else 0.010 if width <= 640 else 0.006
    tables["trainer"]["second"]["max_tokens"] = _one_digit(min(100_000 * seconds, 10_000_000))
    return tables


def tuning(characters: int, share: float, seconds: float) -> dict[str, Any]:
    """The tables that tune a network to a text with so many tokens a character."""
    tables: dict[str, Any] = read_settings()["run"]
    # As textgen-english reads on two cores. The number of passes, unlike a time, gives the same
    # model on a machine that is busy.
    passes = 65_000 * seconds / characters
    epochs = min(4, round(passes))
    tables["model"] = {"dropout": round(0.2 * min(1.0, passes / 4), 2)}
    trainer = tables["trainer"]
    if epochs:
        trainer["length"] = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    else:
        trainer["length"] = f"{seconds:.10g}s"
    trainer["batch_size"] = batch_size(64, 0.9 * characters * share / 64, 16)
    # A short text is learnt by heart at a higher rate.
    trainer["learning_rate"] = 0.001 if characters < 50_000 else 0.002
    return tables


def batch_size(most: int, windows: float, steps: int) -> int:
    """The rows of a batch with which a pass over so many windows has so many steps at least."""
    rows = most
    while rows > 1 and windows / rows < steps:
        rows //= 2
    return rows


def with_time(length: str, seconds: float) -> str:
    """A length of training, such as "3 epochs", that ends after so many seconds at the latest."""
    limits = [part for part in length.split(" or ") if math.isinf(Length.of(part).seconds)]
    return " or ".join([*limits, f"{seconds:.10g}s"])


def allowed_length(text: str) -> int:
    """The words that the sampler `dry` may repeat: within a page of the text, sequences that are
    longer by two words seldom come again. It is 1 for prose, and 3 to 6 for code.
    """
    begins = range(0, min(len(text), _PAGES * _PAGE), _PAGE)
    pages = [re.findall(r"\w+", text[begin : begin + _PAGE]) for begin in begins]
    for allowed in range(1, _MOST_REPEATED):
        total = distinct = 0
        for words in pages:
            sequences = [tuple(words[i : i + allowed + 2]) for i in range(len(words) - allowed - 1)]
            total += len(sequences)
            distinct += len(set(sequences))
        if total - distinct <= _REPEATED_SHARE * total:
            return allowed
    return _MOST_REPEATED


def _one_digit(number: float) -> int:
    return int(float(f"{number:.0e}"))
