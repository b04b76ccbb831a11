"""Writes fiction.txt, the text for the training, from folders of books.

    python books.py FOLDER...

A folder holds a file AUTHOR_TITLE.txt.gz for each book. From each come pieces of some 8,000
characters, from all over it: more of a longer one, but less than in proportion. They are
shuffled. Four books of five lose the underscores of their italics.
"""

import gzip
import random
import sys
from pathlib import Path

PIECE = 8000  # characters
CHARACTERS = 14_000_000  # in all, about; each book has a piece at least
LONGEST = 600_000  # characters of a book that count
ITALICS = 0.8  # share of the books whose italics are made plain
SINGLE = "\u2018\u2019"
PLAIN = {"…": "...", "—": "--", SINGLE[0]: "'", SINGLE[1]: "'"}


def main() -> None:
    """Write the file, and print how much is in it."""
    paths = sorted(each for folder in sys.argv[1:] for each in Path(folder).glob("*.txt.gz"))
    books = [gzip.decompress(path.read_bytes()).decode() for path in paths]
    weights = [min(len(book), LONGEST) ** 0.7 for book in books]
    chance, made = random.Random(1), []
    for book, weight in zip(books, weights, strict=True):
        made += pieces(book, CHARACTERS * weight / sum(weights), chance)
    chance.shuffle(made)
    text = "\n\n\n".join(made)
    Path("fiction.txt").write_text(text, encoding="utf-8")
    print(f"{len(books)} books, {len(made):,} pieces, {len(text):,} characters")


def pieces(book: str, characters: float, chance: random.Random) -> list[str]:
    """Pieces of so many characters together, each of whole paragraphs with empty lines between."""
    book = book.replace("_", "") if chance.random() < ITALICS else book
    if "\n\n" not in book[:5000]:
        book = book.replace("\n", "\n\n")
    number, made = max(1, round(characters / PIECE)), []
    span = len(book) / number
    for i in range(number):
        start = int(i * span + chance.random() * max(0, span - PIECE))
        start = book.find("\n\n", start) + 2 if start else 0
        end = book.find("\n\n", start + PIECE)
        piece = book[start : end if end >= 0 else len(book)].strip()
        if len(piece) >= PIECE / 8:
            made.append(marked(piece, chance.random()))
    return made


def marked(text: str, chance: float) -> str:
    """The text as it is, in two of five; in plain marks, double or single; or in single ones."""
    if chance < 0.4:
        return text
    if chance >= 0.9:
        return text.replace("“", SINGLE[0]).replace("”", SINGLE[1])
    for mark, plain in {**PLAIN, **dict.fromkeys("“”", '"' if chance < 0.7 else "'")}.items():
        text = text.replace(mark, plain)
    return text


if __name__ == "__main__":
    main()
