"""Banned phrases: several that overlap, in parts of a text, of any characters."""

import numpy as np
import pytest

import textgen


@pytest.fixture(scope="module")
def story():
    """A generator of the built-in story, by characters."""
    return textgen.train(corpus={"type": "story"}, model="ngram", trainer="count").generator


def in_parts(generator, length, **options):
    """A text in parts of six tokens, each from the saved state of the one before."""
    text, asked = "", {"index": options.pop("index")}
    for _ in range(0, length, 6):
        made = generator.generate(**asked, max_new_tokens=6, keep_state=True, **options)
        assert len(made.tokens) == 6
        text, asked = text + made.text, {"state": made.state}
    return text


def test_phrases_that_overlap_never_come_at_once_or_in_parts(story):
    phrases = ["the", "said ", "e s", " a"]
    many = [{"prompt": "", "index": i} for i in range(10)]
    plain, banned = (
        [made.text for made in story.generate_many(many, max_new_tokens=60, ban_phrase=ban)]
        for ban in (["zzz"], phrases)
    )
    parts = [in_parts(story, 60, index=i, ban_phrase=phrases) for i in range(5)]
    assert any(phrase in text for text in plain for phrase in phrases)
    assert not [text for text in banned + parts if any(phrase in text for phrase in phrases)]


def test_a_phrase_is_seen_that_begins_where_another_was_taken_back():
    """After "x ", going back from "so" leads to "the", which began before that."""
    text = "x so. x the. x so. x so! x a. " * 25
    generator = textgen.train(corpus=text, model="ngram", trainer="count").generator
    made = generator.generate("", temperature=0.7, max_new_tokens=300, ban_phrase=[" the", "so"])
    assert "so" not in made.text
    assert " the" not in made.text
    assert " a" in made.text


def test_a_text_goes_back_to_where_a_phrase_began_after_a_character_of_two_cases():
    """In lower case, "İ" is two characters."""
    text = "İabc İacc İabd İcb " * 40
    generator = textgen.train(corpus=text, model="ngram", trainer="count").generator
    for index in range(6):
        plain, made = (
            generator.generate(" ", index=index, max_new_tokens=9, ban_phrase=phrases).text
            for phrases in (["zzz"], ["İABCX", "bc"])
        )
        if (begin := plain.find("bc")) >= 0:
            assert made[:begin] == plain[:begin]
            assert made[begin] != "b"


class Spaced:
    """A tokenizer with a token for each of many letters, and for each with a space before it."""

    letters = 2100
    vocab_size = 2 * letters

    def fit(self, pieces):
        pass

    def encode(self, text):
        ids, is_spaced = [], False
        for char in text:
            if char != " ":
                ids.append((ord(char) - 0x4E00) % self.letters + self.letters * is_spaced)
            is_spaced = char == " "
        return np.array(ids, np.int64)

    def decode(self, ids):
        return "".join(
            " " * (token >= self.letters) + chr(0x4E00 + token % self.letters)
            for token in np.asarray(ids).tolist()
        )

    def to_dict(self):
        return {}

    def from_dict(self, state):
        return self


@pytest.mark.slow
def test_a_phrase_that_most_tokens_complete_takes_no_step_for_each():
    text = "".join(f" {chr(0x4E00 + i)}" for i in range(2090)) * 2 + "一丁"
    generator = textgen.train(
        corpus=text, tokenizer=Spaced(), model="ngram", trainer="count"
    ).generator
    made = generator.generate("一", temperature=0, max_new_tokens=6, ban_phrase=[" "])
    assert len(made.text) == 6
    assert " " not in made.text
