"""What samplers are given and give: states of rows, random numbers, the end of a text; and who is
blamed.
"""

from typing import Any

import attrs
import numpy as np
import pytest
from prompts import PROMPTS, STATES_AND_CHANCE
from raising import raises

from textgen import ContractError, PluginWarning, UsageError, load


def test_rows_of_one_state_go_their_own_ways(lively):
    first = lively.generate("the ", max_new_tokens=30, keep_state=True, **STATES_AND_CHANCE)
    same = {"state": first.state, "max_new_tokens": 30}
    requests = [same, same, {**same, "seed": 9}, same]
    one, *rest = [text.text for text in lively.generate_many(requests, **STATES_AND_CHANCE)]
    assert [one == other for other in rest] == [True, False, True]


@attrs.define
class Witness:
    """Forbids nothing; records what it is told of each row, by the row's prompt length."""

    seen: list[Any] = attrs.field(factory=list)
    history = "none"
    random = True

    def start(self, prompt):
        return {"prompt": np.array(len(prompt)), "sum": np.array([0, 0])}

    def __call__(self, logits, history):
        for row, length in enumerate(history.lengths.tolist()):
            state, numbers = history.state, history.random(2)
            assert np.array_equal(numbers, history.random(2))
            assert np.array_equal(numbers[:, :1], history.random())
            assert state["prompt"][row] == history.prompt_lengths[row]
            assert state["sum"][row, 0] == length
            self.seen.append(
                (int(state["prompt"][row]), length, int(state["sum"][row, 1]), tuple(numbers[row]))
            )
        return logits

    def accept(self, tokens, logits, history):
        more = np.stack([np.ones_like(tokens), tokens], axis=1)
        return {"prompt": history.state["prompt"], "sum": history.state["sum"] + more}


def test_a_sampler_sees_its_rows_as_they_are(finished_run):
    """Its own state, the step, the prompt's length, and random numbers that are those of the row
    alone.
    """
    seen = {}
    for batch_size in (1, 4):
        witness = Witness()
        generator = load(finished_run, sampler=witness)
        prompts = ["t", "the", "the hall"]
        texts = generator.generate_many(prompts, max_new_tokens=20, batch_size=batch_size)
        sums = {len(text.prompt): sum(text.tokens[:19]) for text in texts}
        assert {prompt: total for prompt, step, total, _ in witness.seen if step == 19} == sums
        seen[batch_size] = sorted(witness.seen)
    assert seen[1] == seen[4]
    assert len({numbers for *_, numbers in seen[1]}) == 60


@attrs.frozen
class Counter:
    """Ends a text after so many tokens."""

    most: int
    ends: bool = True
    history = "none"

    def __call__(self, logits, history):
        return np.where(history.lengths[:, None] >= self.most, -np.inf, logits)


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_sampler_may_end_a_text(finished_run, temperature):
    generator, plain = load(finished_run, sampler=Counter(12)), load(finished_run, sampler=[])
    options = {"temperature": temperature, "max_new_tokens": 40}
    limited = {**options, "max_new_tokens": 12}
    expected = [made.text for made in plain.generate_many(PROMPTS, **limited)]
    many = list(generator.generate_many(PROMPTS, logprobs=1, **options))
    assert [made.text for made in many] == expected
    assert {(made.finish_reason, len(made.logprobs)) for made in many} == {("end", 12)}
    stream = generator.stream(PROMPTS[0], keep_state=True, **options)
    assert ("".join(stream), stream.finish_reason) == (expected[0], "end")
    again = generator.generate(state=stream.state, keep_state=True, **options)
    assert (again.text, again.finish_reason) == ("", "end"), "a state at the end stays there"
    more = plain.generate(state=again.state, temperature=temperature, max_new_tokens=5)
    whole = plain.generate(PROMPTS[0], temperature=temperature, max_new_tokens=17)
    assert expected[0] + more.text == whole.text


def test_a_sampler_that_does_not_say_that_it_ends_texts_is_to_blame(finished_run):
    generator = load(finished_run, sampler=Counter(3, ends=False))
    with raises(ContractError, component="counter"):
        generator.generate("the ", max_new_tokens=9)


def test_a_model_that_leaves_nothing_is_to_blame_for_it(finished_run):
    generator = load(finished_run, sampler=Counter(3))
    tensors = generator.model.tensors()
    bias = next(
        name for name, array in tensors.items() if array.shape == (generator.tokenizer.vocab_size,)
    )
    generator.model.load_tensors({**tensors, bias: np.full_like(tensors[bias], -np.inf)})
    with raises(ContractError, component="rnn"):
        generator.generate("the ", max_new_tokens=9)


@attrs.frozen
class Stateful:
    """Changes nothing; its states are those given."""

    accepted: Any = dict
    start: Any = lambda prompt: {"n": 0.0}
    history = "none"

    def __call__(self, logits, history):
        return logits

    def accept(self, tokens, logits, history):
        return self.accepted(history.state)


class Unfinished(Stateful):
    accept = None


@pytest.mark.parametrize(
    "sampler",
    [
        Stateful(start=lambda prompt: [1]),
        Stateful(lambda state: {}),
        Stateful(lambda state: {"n": np.float32(state["n"])}),
        Unfinished(),
    ],
    ids=["list", "no-arrays", "dtype", "unfinished"],
)
def test_a_state_of_another_form_is_blamed(finished_run, sampler):
    with raises(ContractError, component=type(sampler).__name__.lower()):
        list(load(finished_run, sampler=sampler).generate_many(["the ", "t"], max_new_tokens=3))


def test_a_sampler_that_fails_with_several_texts_alone_is_named(finished_run):
    def single(logits, history):
        if len(logits) > 1:
            raise KeyError("batch")
        return logits

    with load(finished_run, sampler=single) as generator:
        alone = generator.generate("the ", max_new_tokens=5, index=1).text
        with pytest.warns(PluginWarning, match="KeyError"):
            _, other = generator.generate_many(["the "] * 2, max_new_tokens=5)
    assert other.text == alone


def test_random_numbers_have_to_be_announced(finished_run):
    generator = load(finished_run, sampler=lambda logits, history: logits * history.random())
    with raises(ContractError, kind="sampler"):
        generator.generate("the ")


def test_two_of_one_name_have_states_of_their_own(finished_run):
    sums = [
        Stateful(lambda state, more=more: {"sum": state["sum"] + more}, lambda prompt: {"sum": 0.0})
        for more in (1, 2)
    ]
    generator = load(finished_run, sampler=sums)
    first = generator.generate("the ", max_new_tokens=25, keep_state=True)
    values = [array.item() for name, array in first.state.history.items() if name.endswith(".sum")]
    assert values == [25, 50]
    rest = generator.generate(max_new_tokens=35, state=first.state)
    assert first.text + rest.text == generator.generate("the ", max_new_tokens=60).text


def test_a_saved_state_of_another_shape_says_both(finished_run):
    two, three = (
        load(
            finished_run, sampler=Stateful(start=lambda prompt, size=size: {"last": np.zeros(size)})
        )
        for size in (2, 3)
    )
    first = two.generate("the ", max_new_tokens=3, keep_state=True)
    with raises(UsageError, argument="state"):
        three.generate(max_new_tokens=3, state=first.state)
