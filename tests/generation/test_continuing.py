"""Text that depends on the tokens before it: a tokenizer of words, which puts a space between
two.
"""

import html
import re

import attrs
import numpy as np
import pytest
from components import Utf8

import textgen


@attrs.define(eq=False)
class Words:
    """Words between spaces.

    Its incremental decoder may hold back the last word until the next one comes.
    """

    hold_back: bool
    words: list[str] = attrs.field(factory=list)

    @property
    def vocab_size(self):
        return len(self.words)

    def fit(self, pieces):
        self.words = sorted(set("".join(pieces).split()))

    def encode(self, text):
        return np.array([self.words.index(word) for word in text.split()], np.int64)

    def decode(self, ids):
        return " ".join(self.words[int(token)] for token in ids)

    def incremental_decoder(self):
        return Stream(self)

    def to_dict(self):
        return {"words": self.words}

    def from_dict(self, state):
        return Words(self.hold_back, list(state["words"]))


@attrs.define(eq=False)
class Stream:
    tokenizer: Words
    ids: list[int] = attrs.field(factory=list)
    shown: int = 0

    def decode(self, ids, final=False):
        self.ids += [*ids]
        ready = self.ids[:-1] if self.tokenizer.hold_back and not final else self.ids
        text = self.tokenizer.decode(ready)
        piece, self.shown = text[self.shown :], len(text)
        return piece


def trained(tokenizer, text):
    """A generator with that tokenizer, trained a little on a text."""
    return textgen.train(
        corpus=text,
        tokenizer=tokenizer,
        model={"type": "rnn", "hidden_size": 24},
        trainer={
            "type": "adamw",
            "learning_rate": 0.01,
            "length": "1 epoch",
            "batch_size": 8,
        },
        data={"window_length": 8},
        device="cpu",
    ).generator


@pytest.fixture(scope="module", params=[False, True], ids=["at-once", "held-back"])
def generator(request):
    text = "the clock struck and the traveller smiled at the clock " * 40
    return trained(Words(request.param), text)


@pytest.mark.parametrize("prompt", ["the clock", "clock", "the clock struck and " * 20, ""])
def test_a_continuation_begins_with_the_space_that_parts_it_from_the_prompt(generator, prompt):
    prompt = prompt.strip()
    options = {"max_new_tokens": 6, "seed": 3}
    made = generator.generate(prompt, **options)
    whole = generator.tokenizer.decode(np.array([*generator.prepare(prompt).ids, *made.tokens]))
    assert str(made) == prompt + "".join(generator.stream(prompt, **options)) == whole
    first = whole[len(prompt) :].split()[0]
    for stop in (f" {first}", first):  # a stop text may begin with that space
        if (place := whole.find(stop, len(prompt))) >= 0:
            assert str(generator.generate(prompt, stop=stop, **options)) == whole[:place]


def test_a_state_resumes_with_the_space_too(generator):
    whole = generator.generate("the clock", max_new_tokens=8, seed=4)
    first = generator.generate("the clock", max_new_tokens=3, seed=4, keep_state=True)
    rest = generator.generate(max_new_tokens=5, state=first.state)
    assert first.text + rest.text == whole.text
    assert "".join(generator.stream(max_new_tokens=5, state=first.state)) == rest.text


@pytest.mark.parametrize(
    "tokenizer", [Utf8(), Words(False), Words(True)], ids=["bytes", "words", "held"]
)
def test_a_page_of_surprise_shows_the_text_whole(tokenizer):
    """Its colours change in the middle of characters, and between words that a space parts."""
    text = "čas ďas <b> €uro 😀😀 " * 20 + "\ufffd"  # as bytes, it is held back to the end
    generator = trained(tokenizer, text)
    page = generator.score(text)._repr_html_()
    shown = html.unescape(re.sub(r"<[^>]+>", "", page[page.index("<pre>") : page.index("</pre>")]))
    assert shown == generator.tokenizer.decode(generator.prepare(text).ids)
