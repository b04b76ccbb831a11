"""Prompts of a finished run: what the vocabulary lacks, what is empty or long, and what is
echoed.
"""

import itertools

import pytest

from textgen import PromptError


@pytest.mark.fault(18)
def test_a_prompt_outside_the_vocabulary_is_an_error_that_lists_it(generator):
    with pytest.raises(PromptError) as caught:
        generator.generate("thé 😀 é\0")
    assert caught.value.characters == ("é", "😀", "\0")
    assert "'é' (U+00E9), " in str(caught.value)


@pytest.mark.fault(18)
def test_the_policy_skip_continues_what_is_left(generator):
    skipped = generator.generate("thé 😀clock", unknown_characters="skip")
    assert skipped.tokens == generator.generate("th clock").tokens
    assert str(skipped).startswith("thé 😀clock")
    nothing = generator.generate("éé", unknown_characters="skip")
    assert nothing.tokens == generator.generate("").tokens


@pytest.mark.fault(18)
def test_the_policy_unknown_feeds_the_unknown_token(generator):
    ids = generator.prepare("thé", unknown_characters="unknown").ids
    assert ids[-1] == generator.tokenizer.unknown_id
    made = generator.generate("thé", unknown_characters="unknown")
    assert made.prompt_ids.tolist() == ids.tolist()
    assert made.tokens == generator.generate([*generator.record["priming"], *ids]).tokens


def test_a_long_prompt_can_be_cancelled_while_it_is_fed(generator):
    """Asked between blocks of the prompt, which takes more than one token's time."""
    asked = itertools.count()
    prompt = "the time traveller " * 1000
    made = generator.generate(
        prompt, max_new_tokens=20, keep_state=True, cancelled=lambda: next(asked) == 5
    )
    assert (made.tokens, made.finish_reason, next(asked)) == ((), "cancelled", 6)
    rest = generator.generate(state=made.state, max_new_tokens=20)
    assert rest.text == generator.generate(prompt, max_new_tokens=20).text
