"""Writes books.txt, the text that the model is trained on, from a folder of books.

    python prepare.py FOLDER

FOLDER holds a file AUTHOR_TITLE.txt.gz for each book. The last hundredth of each is put at the end, to be held out.
Characters that are rarer than one in 300,000 are written plainly, as e for an e with an accent, or left out.
"""

import collections
import gzip
import sys
import unicodedata
from pathlib import Path

HELD_OUT = 0.01
RARE = 100  # occurrences in 31.6 million characters


def main() -> None:
    """Write the file, and print how long it and its held-out part are."""
    parts = [split(path) for path in sorted(Path(sys.argv[1]).glob("*.txt.gz"))]
    training, held_out = ("".join(texts) for texts in zip(*parts, strict=True))
    counts = collections.Counter(training + held_out)
    rare = {each for each, count in counts.items() if count < RARE}
    table = {ord(each): plain(each, rare) for each in rare}
    training, held_out = training.translate(table), held_out.translate(table)
    Path("books.txt").write_text(training + held_out, encoding="utf-8")
    size = len(training) + len(held_out)
    print(f"{len(parts)} books, {size:,} characters, of which {len(held_out):,} are held out:")
    print(f"validation = {len(held_out) / size:.5f}")


def split(path: Path) -> tuple[str, str]:
    """A book, and its last hundredth from the beginning of a line on."""
    text = gzip.decompress(path.read_bytes()).decode()
    cut = text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
    return text[:cut], text[cut:]


def plain(character: str, rare: set[str]) -> str:
    """The character in ASCII; nothing where that is rare too."""
    made = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "" if rare & set(made) else made


if __name__ == "__main__":
    main()
