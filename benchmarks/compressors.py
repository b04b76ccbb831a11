"""How well compressors that learn while they read predict the last tenth of a text: rows for
docs/benchmarks.md.

    pip install zpaq pyppmd
    python benchmarks/compressors.py TEXT... [--letters]

Prints for each text, in nats per character, what its last tenth adds to the compressed size of the
rest: by zpaq at its strongest level, in one block, and by PPMd (variant H with 64 MiB of memory, by
the best of three orders). zpaq chooses its memory by the size of what it is given, so zeros bring
both parts to one size. With --letters a text is first reduced to the letters a to z and the space.
"""

import math
import re
from pathlib import Path

from shared import parser
from textgen_builtins.corpora.wrapped_lines import joined, width_of

_ORDERS = (5, 6, 8)
_MEMORY = 1 << 26


def main():
    """Print a row for each text."""
    options = parser(__doc__)
    options.add_argument("texts", nargs="+", type=Path)
    options.add_argument("--letters", action="store_true")
    given = options.parse_args()
    print("text | zpaq | PPMd\n--- | --- | ---")
    for path in given.texts:
        text = content(path, letters=given.letters)
        ppmd = min(last_tenth(text, ppmd_size(order)) for order in _ORDERS)
        print(f"{path.stem} | {last_tenth(text, zpaq_size(text)):.3f} | {ppmd:.3f}", flush=True)


def content(path, *, letters):
    """A text as `textgen init` trains on it: with joined lines."""
    text = path.read_text(encoding="utf-8-sig")
    if letters:
        return re.sub("[^a-z]+", " ", text.lower())
    width = width_of(text)
    return "".join(joined(iter(text.split("\n")), width)) if width else text


def last_tenth(text, size):
    """Nats per character of the last tenth, by the `size` in bytes of what is compressed."""
    cut = int(len(text) * 0.9)
    added = size(text.encode()) - size(text[:cut].encode())
    return added * 8 * math.log(2) / (len(text) - cut)


def zpaq_size(text):
    """Compresses a part of the text."""
    import zpaq

    padded = 1 << len(text.encode()).bit_length()
    return lambda part: len(zpaq.compress(part.ljust(padded, b"\0"), level=5, threads=1))


def ppmd_size(order):
    """Compresses with contexts of so many bytes."""
    import pyppmd

    options = {"max_order": order, "mem_size": _MEMORY, "variant": "H"}
    return lambda part: len(pyppmd.compress(part, **options))


if __name__ == "__main__":
    main()
