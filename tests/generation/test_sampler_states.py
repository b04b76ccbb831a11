"""What samplers are given and give: states of rows, random numbers, the end of a text; and who is blamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from array_api_compat import array_namespace

from textgen import (
    Component,
    ContractError,
    Engine,
    Generator,
    NoOptions,
    PluginSet,
    UsageError,
    hookimpl,
    load,
)
from textgen.protocols import Array, History, Ids, Tensors

OPTIONS: dict[str, Any] = {
    "temperature": 0.9,
    "mirostat_tau": 2.5,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.05,
    "dry_multiplier": 0.5,
}
PROMPTS = ["the ", "clock", "t", "the hall struck", "smiled, ", ""]


def test_rows_of_one_state_go_their_own_ways(lively: Generator) -> None:
    first = lively.generate("the ", max_new_tokens=30, keep_state=True, **OPTIONS)
    same: dict[str, Any] = {"state": first.state, "max_new_tokens": 30}
    requests = [same, same, {**same, "seed": 9}, same]
    one, *rest = [text.text for text in lively.generate_many(requests, **OPTIONS)]
    assert [one == other for other in rest] == [True, False, True]


def test_options_of_one_sampler_need_each_other(lively: Generator) -> None:
    plain = lively.generate("the ", max_new_tokens=20).text
    off = lively.generate("the ", max_new_tokens=20, xtc_threshold=0.05)
    on = lively.generate("the ", max_new_tokens=20, xtc_threshold=0.05, xtc_probability=0.5)
    assert off.text == plain != on.text


@attrs.define
class Witness:
    """Forbids nothing; records what it is told of each row, by the row's prompt length."""

    seen: list[tuple[int, int, int, tuple[float, ...]]] = attrs.field(factory=list)
    history = "none"
    random = True

    def start(self, prompt: Ids) -> Tensors:
        return {"prompt": np.array(len(prompt)), "sum": np.array([0, 0])}

    def __call__(self, logits: Array, history: History) -> Array:
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

    def accept(self, tokens: Ids, logits: Array, history: History) -> Tensors:
        more = np.stack([np.ones_like(tokens), tokens], axis=1)
        return {"prompt": history.state["prompt"], "sum": history.state["sum"] + more}


@attrs.frozen
class Plugin:
    """Offers one sampler under the name `mine`."""

    sampler: Any

    @hookimpl
    def textgen_samplers(self) -> list[Component]:
        return [Component("mine", NoOptions, lambda config, context: self.sampler)]


def with_sampler(run: Path, sampler: Any) -> Generator:
    """The generator of a run whose chain is this sampler."""
    plugins = PluginSet.discover()
    plugins.register(Plugin(sampler), "plugin")
    return Engine(plugins).load(run, sampler=[{"type": "mine"}])


def test_a_sampler_sees_its_rows_as_they_are(finished_run: Path) -> None:
    """Its own state, the step, the prompt's length, and random numbers that are those of the row alone."""
    seen = {}
    for batch_size in (1, 4):
        witness = Witness()
        generator = with_sampler(finished_run, witness)
        texts = list(
            generator.generate_many(
                ["t", "the", "the hall"], max_new_tokens=20, batch_size=batch_size, n=1
            )
        )
        seen[batch_size] = sorted(witness.seen)
        sums = {len(text.prompt): sum(text.tokens[:19]) for text in texts}
        assert {prompt: total for prompt, step, total, _ in witness.seen if step == 19} == sums
    assert seen[1] == seen[4]
    assert len({numbers for *_, numbers in seen[1]}) == 60


@attrs.frozen
class Counter:
    """Ends a text after so many tokens."""

    most: int
    ends: bool = True
    history = "none"

    def __call__(self, logits: Array, history: History) -> Array:
        over = history.lengths >= self.most
        xp = array_namespace(logits)
        return xp.where(xp.asarray(over)[:, None], -np.inf, logits)


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_sampler_may_end_a_text(finished_run: Path, temperature: float) -> None:
    generator, plain = with_sampler(finished_run, Counter(12)), load(finished_run, sampler=[])
    limited: dict[str, Any] = {"temperature": temperature, "max_new_tokens": 12}
    options: dict[str, Any] = {"temperature": temperature, "max_new_tokens": 40}
    expected = [plain.generate(p, index=i, **limited).text for i, p in enumerate(PROMPTS)]
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


def test_rows_that_end_leave_the_others_as_they_are(lively: Generator) -> None:
    pytest.importorskip("llguidance")
    options: dict[str, Any] = {"max_new_tokens": 80, **OPTIONS}
    alone = [lively.generate(p, index=i, **options).text for i, p in enumerate(PROMPTS)]
    ending = [{"prompt": "the ", "index": 90 + n, "regex": f"[a-e]{{{n}}}"} for n in range(1, 9)]
    mine = [{"prompt": p, "index": i} for i, p in enumerate(PROMPTS)]
    texts = list(lively.generate_many([*ending, *mine], **options))
    assert [made.text for made in texts[8:]] == alone
    assert [(len(made.text), made.finish_reason) for made in texts[:8]] == [
        (n, "end") for n in range(1, 9)
    ]


def test_a_sampler_that_does_not_say_that_it_ends_texts_is_to_blame(finished_run: Path) -> None:
    generator = with_sampler(finished_run, Counter(3, ends=False))
    with pytest.raises(ContractError, match=r"sampler 'mine' forbade every token; .* ends = True"):
        generator.generate("the ", max_new_tokens=9)


def test_a_model_that_leaves_nothing_is_to_blame_for_it(finished_run: Path) -> None:
    generator = with_sampler(finished_run, Counter(3))
    tensors = generator.model.tensors()
    bias = next(
        name for name, array in tensors.items() if array.shape == (generator.tokenizer.vocab_size,)
    )
    generator.model.load_tensors({**tensors, bias: np.full_like(tensors[bias], -np.inf)})
    with pytest.raises(ContractError, match="model 'rnn' forbade every token"):
        generator.generate("the ", max_new_tokens=9)


class Broken(Witness):
    random = False


def test_random_numbers_have_to_be_announced(finished_run: Path) -> None:
    with pytest.raises(ContractError, match="attribute random"):
        with_sampler(finished_run, Broken()).generate("the ")


class NoAccept:
    history = "none"

    def start(self, prompt: Ids) -> Tensors:
        return {}

    def __call__(self, logits: Array, history: History) -> Array:
        return logits


@pytest.mark.parametrize(
    ("made", "accepted", "method"),
    [
        (lambda n: [n], lambda state: state, "start"),
        (lambda n: {"n": np.zeros(n)}, lambda state: state, "start"),
        (lambda n: {"n": 0.0}, lambda state: None, "accept"),
        (lambda n: {"n": 0.0}, lambda state: {}, "accept"),
        (lambda n: {"n": 0.0}, lambda state: {"n": np.float32(state["n"])}, "accept"),
        (lambda n: {"n": 0.0}, lambda state: {"n": np.zeros(2)}, "accept"),
    ],
    ids=["list", "shape-of-start", "none", "no-arrays", "dtype", "shape"],
)
def test_a_state_of_another_form_is_blamed(
    finished_run: Path, made: Any, accepted: Any, method: str
) -> None:
    class Stateful(NoAccept):
        def start(self, prompt: Ids) -> Tensors:
            return made(len(prompt))  # type: ignore[no-any-return]

        def accept(self, tokens: Ids, logits: Array, history: History) -> Tensors:
            return accepted(history.state)  # type: ignore[no-any-return]

    with pytest.raises(ContractError, match=f"from {method}") as caught:
        list(with_sampler(finished_run, Stateful()).generate_many(["the ", "t"], max_new_tokens=3))
    assert caught.value.component == "mine"


def test_a_state_needs_both_methods(finished_run: Path) -> None:
    with pytest.raises(ContractError, match="has the method 'start' and no 'accept'"):
        with_sampler(finished_run, NoAccept())


def test_two_of_one_name_have_states_of_their_own(lively: Generator, finished_run: Path) -> None:
    tables = [
        {"type": "mirostat", "tau": 2.0},
        {"type": "mirostat", "tau": 4.0},
        {"type": "xtc", "probability": 0.5},
    ]
    generator = load(finished_run, sampler=[*tables, {"type": "xtc", "probability": 0.5}])
    whole = generator.generate("the ", max_new_tokens=60)
    first = generator.generate("the ", max_new_tokens=25, keep_state=True)
    assert first.text + generator.generate(max_new_tokens=35, state=first.state).text == whole.text
    assert first.state is not None
    values = [array.item() for name, array in first.state.history.items() if name.endswith(".mu")]
    assert len(set(values)) == 2


@attrs.frozen
class Window(NoAccept):
    """Its state has the size that it was built with."""

    size: int

    def start(self, prompt: Ids) -> Tensors:
        return {"last": np.zeros(self.size)}

    def accept(self, tokens: Ids, logits: Array, history: History) -> Tensors:
        return dict(history.state)


def test_a_saved_state_of_another_shape_says_both(finished_run: Path) -> None:
    first = with_sampler(finished_run, Window(2)).generate(
        "the ", max_new_tokens=3, keep_state=True
    )
    said = r"does not fit .* mine-0.last has the shape \(2,\), not \(3,\)"
    with pytest.raises(UsageError, match=said):
        with_sampler(finished_run, Window(3)).generate(max_new_tokens=3, state=first.state)
