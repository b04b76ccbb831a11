"""Prints the losses of texts, in nats per character, by the model without the adapter and with it:
python losses.py TEXT...

Of a text the last tenth is read, 12,000 characters at most, and of a folder all files as one text;
the lines of a paragraph are joined.
"""

import math
import re
import sys
from pathlib import Path

from textgen_smollm2 import model_file

import textgen

PLAIN = {"type": "huggingface", "path": str(model_file())}
CHARACTERS = 12_000


def main():
    """Print a line for each text."""
    ways = [textgen.load("smollm2", sampler=[], **given) for given in ({"model": PLAIN}, {})]
    for name in sys.argv[1:]:
        path = Path(name)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        text = "\n\n\n".join(file.read_text(encoding="utf-8-sig") for file in files)
        if not path.is_dir():
            text = "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
        held_out = text[len(text) * 9 // 10 :][:CHARACTERS]
        losses = (way.score(held_out).bits_per_character * math.log(2) for way in ways)
        print(name, *(f"{loss:.3f}" for loss in losses))


if __name__ == "__main__":
    main()
