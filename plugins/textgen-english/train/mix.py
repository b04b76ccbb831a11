"""Writes pieces.txt, the text of the third training, from two folders of books.

    python mix.py FOLDER TYPOGRAPHIC

FOLDER has the books of prepare.py, with plain marks; TYPOGRAPHIC has others, with curly quotation
marks, dashes, _italics_ and empty lines between paragraphs. The last hundredth of each book is held
out: held-out-1.txt has those of the first, held-out-2.txt those of the others, and held-out-3.txt
the same with plain marks. The text ends with the first of them and a quarter of the second, which a
run holds out. kinds.txt has a digit for each piece: 0 if it is of the first books, else 1.

The books are cut into pieces of 20,000 characters, each after a form feed, in random order. Half of
those with typographic marks are made plain, and half of these lose their underscores. Half of all
pieces have their lines wrapped, and half of these single quotation marks. A piece begins as a text
of its own does: after nothing, after a sentence that ends a line, or after an empty line.
"""

import collections
import random
import re
import sys
import textwrap
from pathlib import Path

from prepare import plain, split

PIECE = 20_000  # characters
RARE = 600  # occurrences in 176 million characters
STARTS = ("", ".\n", "\n\n")
MARKS = {
    "\u201c": '"',
    "\u201d": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\u2026": "...",
    "\u2012": "-",
    "\u2013": "-",
    "\u2014": "--",
    "\u2e3a": "--",
    "\u2e3b": "---",
}
PLAIN = str.maketrans(MARKS)
SINGLE = str.maketrans('"\u201c\u201d', "'\u2018\u2019")


def main() -> None:
    """Write the files, and print how long they and the held-out part are."""
    folders = [sorted(Path(each).glob("*.txt.gz")) for each in sys.argv[1:3]]
    books = [[split(path) for path in paths] for paths in folders]
    whole = "".join(text for texts in books for book in texts for text in book)
    counts = collections.Counter(re.sub(r"[\x00-\x7f]+", "", whole))
    rare = {each for each, count in counts.items() if count < RARE and each not in MARKS}
    table = {ord(each): plain(each, rare) for each in rare}
    chance = random.Random(0)
    pieces = [
        (kind, "\f" + chance.choice(STARTS) + varied(piece.translate(table), chance, bool(kind)))
        for kind, texts in enumerate(books)
        for training, _ in texts
        for piece in cut(training)
    ]
    chance.shuffle(pieces)
    first, second = ("".join(held for _, held in texts).translate(table) for texts in books)
    quarter = "".join(held[: held.rfind("\n", 0, len(held) // 4) + 1] for _, held in books[1])
    held_out = f"\n{first}{quarter.translate(table)}"
    training = "".join(piece for _, piece in pieces)
    parts = (first, second, second.translate(PLAIN))
    for number, text in enumerate(parts, 1):
        Path(f"held-out-{number}.txt").write_text(text, encoding="utf-8")
    Path("kinds.txt").write_text("".join(str(kind) for kind, _ in pieces), encoding="ascii")
    Path("pieces.txt").write_text(training + held_out, encoding="utf-8")
    size = len(training) + len(held_out)
    print(f"{len(pieces):,} pieces, {size:,} characters, {len(held_out):,} held out:")
    print(f"until = {len(training)}\nvalidation = {len(held_out) / size:.6f}")


def cut(text: str) -> list[str]:
    """A text in pieces of whole paragraphs."""
    cuts = [0]
    while len(text) - cuts[-1] > PIECE * 3 // 2:
        found = re.compile(r"\n+").search(text, cuts[-1] + PIECE)
        if found is None:
            break
        cuts.append(found.end())
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True) if a < b]


def varied(piece: str, chance: random.Random, typographic: bool) -> str:
    """A piece in one of the ways that texts are written, its paragraphs maybe apart."""
    blocks = piece.strip("\n").split("\n\n" if typographic else "\n")
    if typographic and chance.random() < 0.5:
        blocks = [each.translate(PLAIN) for each in blocks]
        if chance.random() < 0.5:
            blocks = [each.replace("_", "") for each in blocks]
    if chance.random() < 0.5:
        width = chance.randint(60, 76)
        blocks = ["\n".join(wrapped(line, width) for line in each.split("\n")) for each in blocks]
        if chance.random() < 0.5:
            blocks = [each.translate(SINGLE) for each in blocks]
        return "\n\n".join(blocks) + "\n\n"
    between = chance.choice(["\n", "\n\n"])
    return between.join(blocks) + between


def wrapped(line: str, width: int) -> str:
    """A paragraph in lines of a width."""
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
