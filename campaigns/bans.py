"""Banned phrases that overlap: how many texts have one all the same.

    python -m campaigns.bans [--texts N] [--tokens T]

An n-gram model of the built-in story by characters writes texts with 1, 2, 10 and 100 banned
phrases, pieces of the story of which each begins within the one before; at once, and in parts of
six tokens from saved states.
"""

import argparse
import random
import sys

import textgen

from .features import overlapping, text_of_story

PART = 6  # tokens


def written(generator, phrases, texts, tokens):
    """The numbers of texts with a banned phrase: not banned, at once and in parts."""
    options = {"ban_phrase": phrases}
    numbers = [{"prompt": "", "index": index} for index in range(texts)]
    plain = generator.generate_many(numbers, max_new_tokens=tokens)
    whole = generator.generate_many(numbers, max_new_tokens=tokens, **options)
    shown, asked = [""] * texts, numbers
    for _ in range(0, tokens, PART):
        parts = [*generator.generate_many(asked, max_new_tokens=PART, keep_state=True, **options)]
        shown = [text + part.text for text, part in zip(shown, parts, strict=True)]
        asked = [{"state": part.state} for part in parts]
    return [
        sum(any(phrase in text for phrase in phrases) for text in ways)
        for ways in ([made.text for made in plain], [made.text for made in whole], shown)
    ]


def phrases_of(count):
    """Banned phrases, without their capitals, of two characters and more."""
    chance, text, made = random.Random(count), text_of_story().lower(), []
    while len(made) < count:
        begin = chance.randrange(len(text) - 60)
        found = overlapping(min(5, count), chance, lambda *_, at=begin: text[at : at + 60])
        made += [phrase for phrase in found if len(phrase) > 1]
    return made[:count]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=60)
    given = parser.parse_args()
    generator = textgen.train(corpus={"type": "story"}, model="ngram", trainer="count").generator
    wrong = 0
    for count in (1, 2, 10, 100):
        plain, whole, parts = written(generator, phrases_of(count), given.texts, given.tokens)
        print(
            f"{count} phrases, in {plain} of {given.texts} texts if not banned: "
            f"in {whole} at once, in {parts} in parts of {PART} tokens",
            flush=True,
        )
        wrong += whole + parts
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
