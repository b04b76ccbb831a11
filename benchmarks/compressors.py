"""How well a compressor that learns while it reads predicts the last tenth of a text: the column of
zpaq in docs/benchmarks.md.

    pip install zpaq
    python benchmarks/compressors.py TEXT... [--letters]

Prints for each text, in nats per character, what its last tenth adds to the compressed size of the
rest: by zpaq at its strongest level, in one block. It chooses its memory by the size of what it is
given, so zeros bring both parts to one size. With --letters a text is first reduced to the letters
a to z and the space.
"""

import math
import re
from pathlib import Path

from shared import parser
from textgen_builtins.corpora.wrapped_lines import joined, width_of


def main():
    """Print a row for each text."""
    options = parser(__doc__)
    options.add_argument("texts", nargs="+", type=Path)
    options.add_argument("--letters", action="store_true")
    given = options.parse_args()
    print("text | zpaq\n--- | ---")
    for path in given.texts:
        text = content(path, letters=given.letters)
        print(f"{path.stem} | {last_tenth(text):.3f}", flush=True)


def content(path, *, letters):
    """A text as `textgen init` trains on it: with joined lines."""
    text = path.read_text(encoding="utf-8-sig")
    if letters:
        return re.sub("[^a-z]+", " ", text.lower())
    width = width_of(text)
    return "".join(joined(iter(text.split("\n")), width)) if width else text


def last_tenth(text):
    """Nats per character of the last tenth."""
    import zpaq

    cut, padded = int(len(text) * 0.9), 1 << len(text.encode()).bit_length()
    most, least = (
        len(zpaq.compress(part.encode().ljust(padded, b"\0"), level=5, threads=1))
        for part in (text, text[:cut])
    )
    return (most - least) * 8 * math.log(2) / (len(text) - cut)


if __name__ == "__main__":
    main()
