"""Writes books.txt and wrapped.txt, the texts for the training, from a folder of books.

    python prepare.py FOLDER

FOLDER holds a file AUTHOR_TITLE.txt.gz for each book. The last hundredth of each is put at the end,
to be held out. Characters that are rarer than one in 300,000 are written plainly, as e for an e
with an accent, or left out.

In wrapped.txt every second stretch has its lines broken as plain-text editions of books have them,
at some 60 to 76 columns, with empty lines between paragraphs, and half of these have single
quotation marks. Its held-out part is the same.
"""

import collections
import gzip
import random
import sys
import textwrap
import unicodedata
from pathlib import Path

HELD_OUT = 0.01
RARE = 100  # occurrences in 31.6 million characters
STRETCH = 20_000  # characters


def main() -> None:
    """Write the files, and print how long they and their held-out parts are."""
    parts = [split(path) for path in sorted(Path(sys.argv[1]).glob("*.txt.gz"))]
    training, held_out = ("".join(texts) for texts in zip(*parts, strict=True))
    counts = collections.Counter(training + held_out)
    rare = {each for each, count in counts.items() if count < RARE}
    table = {ord(each): plain(each, rare) for each in rare}
    training, held_out = training.translate(table), held_out.translate(table)
    for name, text in (("books.txt", training), ("wrapped.txt", wrapped(training))):
        Path(name).write_text(text + held_out, encoding="utf-8")
        size = len(text) + len(held_out)
        print(f"{name}: {len(parts)} books, {size:,} characters, {len(held_out):,} held out:")
        print(f"validation = {len(held_out) / size:.6f}")


def split(path: Path) -> tuple[str, str]:
    """A book, and its last hundredth from the beginning of a line on."""
    text = gzip.decompress(path.read_bytes()).decode()
    cut = text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
    return text[:cut], text[cut:]


def wrapped(text: str) -> str:
    """The text with every second stretch wrapped, each at a width of its own."""
    chance, made, lines, size = random.Random(0), [], [], 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size < STRETCH * (1 + len(made)):
            continue
        if len(made) % 2:
            width, single = chance.randint(60, 76), chance.random() < 0.5
            lines = [
                textwrap.fill(each, width, break_long_words=False, break_on_hyphens=False) + "\n\n"
                for each in lines
                if each.strip()
            ]
            lines = [each.replace('"', "'") for each in lines] if single else lines
        made.append("".join(lines))
        lines = []
    return "".join([*made, *lines])


def plain(character: str, rare: set[str]) -> str:
    """The character in ASCII; nothing where that is rare too."""
    made = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "" if rare & set(made) else made


if __name__ == "__main__":
    main()
