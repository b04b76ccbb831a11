"""What fails in a component is blamed on its plugin, as an error of the tree; what is broken harms nothing else."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from commands import run_textgen

import textgen
from textgen import Component, NoOptions, hookimpl
from textgen.events import Evaluated, StepDone
from textgen.plugin.component import Offer
from textgen.protocols import TrainerState
from textgen_builtins.tokenizers.char import CharTokenizer
from textgen_builtins.tokenizers.config import CharConfig


class Forgetful(CharTokenizer):
    """Loads otherwise than it was saved."""

    def from_dict(self, state: Any) -> CharTokenizer:
        return CharTokenizer(self.config, "".join(sorted(state["tokens"][1:], reverse=True)))


class Unwritable(CharTokenizer):
    """Gives what JSON cannot hold."""

    def to_dict(self) -> dict[str, Any]:
        return {"tokens": set("abc")}


class Failing(CharTokenizer):
    """Raises in the middle of the corpus."""

    def fit(self, pieces: Any) -> None:
        raise KeyError("lost")


class Speechless(CharTokenizer):
    """Lacks a method that is called once the corpus is read."""

    to_dict = None  # type: ignore[assignment]


class Narrow(CharTokenizer):
    """Knows one character less than it gives ids to, which the beginning of the corpus does not show."""

    @property
    def vocab_size(self) -> int:
        return super().vocab_size - 1


def engine(tokenizer: Any = CharTokenizer, sampler: Any = None) -> textgen.Engine:
    """The built-in set and a plugin `odd` with a tokenizer and a sampler."""

    class Odd:
        @staticmethod
        @hookimpl
        def textgen_tokenizers() -> list[Component]:
            return [Component("odd", CharConfig, lambda config, context: tokenizer(config))]

        @staticmethod
        @hookimpl
        def textgen_samplers() -> list[Component]:
            return [Component("odd", NoOptions, lambda config, context: sampler)]

    plugins = textgen.PluginSet.discover()
    plugins.register(Odd, "odd", distribution="textgen-odd", version="2.1")
    return textgen.Engine(plugins)


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (Forgetful, "saved and loaded"),
        (Unwritable, "to_dict"),
        (Failing, "failed: KeyError: 'lost' ("),
        (
            Speechless,
            "cannot be used: what `build` made is of type Speechless, which has no method 'to_dict'",
        ),
    ],
)
def test_a_tokenizer_is_blamed(
    tokenizer: Any, said: str, tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    tables = {**tiny_pipeline(), "tokenizer": {"type": "odd"}}
    with pytest.raises(textgen.ContractError, match=r"textgen-odd 2\.1") as caught:
        engine(tokenizer).run(tables, output=tmp_path / "run")
    assert said in str(caught.value)
    assert (caught.value.kind, caught.value.component) == ("tokenizer", "odd")


def test_ids_beyond_the_vocabulary_are_found_wherever_they_are(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    tables = {**tiny_pipeline(text="a quick model\n" * 300 + "zzz\n"), "tokenizer": {"type": "odd"}}
    with pytest.raises(
        textgen.ContractError, match=r"'odd' encodes to ids from 1 to 14, outside 0 to 13$"
    ) as caught:
        engine(Narrow).run(tables, output=tmp_path / "run")
    assert (caught.value.distribution, caught.value.component) == ("textgen-odd", "odd")


def overreaching(logits: Any, history: Any) -> Any:
    return logits + 0 * history.tokens(0)[0]


def raising(logits: Any, history: Any) -> Any:
    raise RuntimeError("out of order")


@attrs.frozen
class Misdeclared:
    history = "everything"

    def __call__(self, logits: Any, history: Any) -> Any:
        return logits


@attrs.frozen
class Overreaching:
    """Says that it reads no history, and reads it."""

    history = "none"

    def __call__(self, logits: Any, history: Any) -> Any:
        return overreaching(logits, history)


def forgetting_to_return(logits: Any, history: Any) -> Any:
    logits = logits + 1


@pytest.mark.fault(30)
@pytest.mark.parametrize("sampler", [raising, Misdeclared(), Overreaching(), forgetting_to_return])
def test_a_sampler_is_blamed(
    sampler: Any, tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    tables = {**tiny_pipeline(), "sampler": [{"type": "odd"}]}
    with pytest.raises(textgen.ContractError, match="sampler 'odd'") as caught:
        engine(sampler=sampler).run(tables, output=tmp_path / "run")
    assert caught.value.distribution == "textgen-odd"


@pytest.mark.parametrize(
    ("announced", "read", "needed"),
    [
        ("none", lambda history: history.prompt_counts, "counts"),
        ("none", lambda history: history.counts, "counts"),
        ("counts", lambda history: history.tokens(0)[:0].sum(), "tokens"),
    ],
)
def test_a_sampler_that_reads_what_it_has_not_announced_is_told_so(
    announced: str,
    read: Any,
    needed: str,
    tmp_path: Path,
    tiny_pipeline: Callable[..., dict[str, Any]],
) -> None:
    def sampler(logits: Any, history: Any) -> Any:
        return logits - read(history)

    sampler.history = announced  # type: ignore[attr-defined]
    tables = {**tiny_pipeline(), "sampler": [{"type": "odd"}]}
    with pytest.raises(textgen.ContractError, match=f"set its attribute history to '{needed}'"):
        engine(sampler=sampler).run(tables, output=tmp_path / "run")


def half_a_decoder(lacking: str) -> type:
    """A decoder without one of its methods."""

    class Half:
        def __init__(self, size: int, batch_size: int) -> None:
            self.size, self.batch_size = size, batch_size

        def extend(self, tokens: Any) -> Any:
            return np.zeros((self.batch_size, self.size), np.float32)

        def score(self, tokens: Any) -> Any:
            return np.zeros((*tokens.shape, self.size), np.float32)

        def read_state(self) -> Any:
            return {"nothing": np.zeros((self.batch_size, 0), np.float32)}

        def write_state(self, state: Any) -> None:
            self.batch_size = len(state["nothing"])

    if lacking:
        delattr(Half, lacking)
    return Half


@pytest.mark.parametrize("lacking", ["extend", "score", "read_state", "write_state"])
def test_a_decoder_that_lacks_a_method_is_blamed(lacking: str, finished_run: Path) -> None:
    half = half_a_decoder(lacking)

    class Model:
        def decoder(self, batch_size: int) -> Any:
            return half(vocab_size, batch_size)

        def tensors(self) -> Any:
            return {}

        def load_tensors(self, tensors: Any) -> None:
            pass

    class Odd:
        @staticmethod
        @hookimpl
        def textgen_models() -> list[Component]:
            return [Component("halved", NoOptions, lambda config, context: Model())]

    plugins = textgen.PluginSet.discover()
    plugins.register(Odd, "odd", distribution="textgen-odd", version="2.1")
    generator = textgen.load(finished_run)
    vocab_size = generator.tokenizer.vocab_size
    chain = attrs.evolve(generator.chain, model=plugins.find("model", "halved"))
    generator = attrs.evolve(generator, model=Model(), chain=chain)

    def use_all() -> None:
        list(
            generator.generate_many(["the ", "a"], max_new_tokens=3, stop_tokens=[0], batch_size=2)
        )
        state = generator.generate("the ", max_new_tokens=3, keep_state=True).state
        generator.generate(max_new_tokens=3, state=state)
        generator.score("the traveller")

    with pytest.raises(textgen.ContractError, match=rf"textgen-odd 2\.1.*{lacking}") as caught:
        use_all()
    with pytest.raises(  # any use finds it, and not the first that calls it
        textgen.ContractError,
        match=f"'halved' made a decoder that is of type Half, which has no method '{lacking}'",
    ):
        generator.score("the traveller")
    assert (caught.value.kind, caught.value.component) == ("model", "halved")


def test_a_sampler_that_is_gone_is_asked_for_whatever_options_are_given(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    def unchanged(logits: Any, history: Any) -> Any:
        return logits

    run = engine(sampler=unchanged).run(
        {**tiny_pipeline(), "sampler": [{"type": "odd"}]}, output=tmp_path / "run"
    )
    for options in ((), ("--temperature", "0.5")):
        missing = run_textgen(
            "generate", run.path, "--max-new-tokens", "5", *options, folder=tmp_path
        )
        assert (missing.returncode, missing.stdout) == (2, "")
        assert "no plugin of textgen-odd is loaded: is it installed?" in missing.stderr


def test_many_prompts_are_not_one_string(finished_run: Path) -> None:
    with pytest.raises(
        textgen.UsageError, match=r"prompts: expected a list; for one prompt, write \[prompt\]"
    ):
        textgen.load(finished_run).generate_many("The")


def test_a_run_finds_its_own_packages_component_when_another_takes_the_name(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    run = engine().run({**tiny_pipeline(), "tokenizer": {"type": "odd"}}, output=tmp_path / "run")

    class Other:
        @staticmethod
        @hookimpl
        def textgen_tokenizers() -> list[Component]:
            return [Component("odd", CharConfig, lambda config, context: Failing(config))]

    both = engine()
    plugins = both.plugins()
    assert isinstance(plugins, textgen.PluginSet)
    plugins.register(Other, "other", distribution="textgen-other", version="1.0")
    assert (
        both.load(run.path).generate("", max_new_tokens=5).text
        == run.generator.generate("", max_new_tokens=5).text
    )


# What authors forget first.

HOOKS = {"corpus": "textgen_corpora"} | {
    kind: f"textgen_{kind}s" for kind in ("tokenizer", "model", "trainer", "sampler", "observer")
}


def engine_with(kind: str, made: Any) -> textgen.Engine:
    """The built-in set and textgen-odd, whose one component `odd` builds what `made(context)` gives."""

    def offer() -> list[Component]:
        return [Component("odd", NoOptions, lambda config, context: made(context))]

    offer.__name__ = HOOKS[kind]
    plugins = textgen.PluginSet.discover()
    module = types.SimpleNamespace(**{HOOKS[kind]: hookimpl(offer)})
    plugins.register(module, "odd", distribution="textgen-odd", version="2.1")
    return textgen.Engine(plugins)


def run_with(
    kind: str, made: Any, tables: dict[str, Any], tmp_path: Path, **more: Any
) -> textgen.Run:
    """Run `tables` with `odd` as their component of a kind."""
    odd: Any = [{"type": "odd"}] if kind in ("sampler", "observer") else {"type": "odd"}
    return engine_with(kind, made).run({**tables, **more, kind: odd}, output=tmp_path / "run")


@attrs.frozen
class Reading:
    """A corpus that reads what a function gives."""

    give: Any

    def read(self) -> Any:
        return self.give()


PIECE = "the time traveller smiled, and the clock of the hall struck the hour.\n" * 12


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (
            lambda: iter([PIECE.encode()]),
            "corpus 'odd' yielded bytes from read, and must yield pieces of str",
        ),
        (lambda: None, "corpus 'odd' gave NoneType from read, and must yield pieces"),
        (
            lambda: PIECE,
            "corpus 'odd' gave str from read, and must yield pieces; is a `yield` missing?",
        ),
        (
            lambda: 1 / 0,
            "corpus 'odd' failed: ZeroDivisionError: division by zero (tests/contracts/test_blame.py:",
        ),
        (
            lambda: sys.exit("enough"),
            "corpus 'odd' failed: SystemExit: enough (tests/contracts/test_blame.py:",
        ),
    ],
)
def test_a_corpus_is_blamed_for_what_it_reads(
    give: Any,
    said: str,
    tmp_path: Path,
    tiny_pipeline: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(textgen.ContractError) as caught:
        run_with("corpus", lambda context: Reading(give), tiny_pipeline(), tmp_path)
    assert f"plugin 'odd' (textgen-odd 2.1): {said}" in str(caught.value)


def test_a_corpus_that_draws_another_text_each_time_is_named(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    numbers = iter(range(100))
    said = r"corpus 'odd' of plugin 'odd' \(textgen-odd 2\.1\) gave another text when it was"
    with pytest.raises(textgen.CorpusError, match=said):
        run_with(
            "corpus",
            lambda context: Reading(lambda: iter([PIECE, f"{next(numbers)}"])),
            tiny_pipeline(),
            tmp_path,
        )


class Training:
    """A trainer of two steps, but for what the tests change."""

    def __init__(self, context: Any) -> None:
        pass

    def train(self, model: Any, data: Any, context: Any) -> Any:
        for step in (1, 2):
            yield StepDone(step=step, steps=2, epoch=1, loss=1.0, tokens=10)
        yield Evaluated(step=2, epoch=1, training_loss=1.0)

    def state(self) -> Any:
        return TrainerState()

    def load_state(self, state: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": lambda *_: None}, "gave None from train; is a `yield` missing?"),
        (
            {"train": lambda *_: iter([2.5])},
            "yielded float from train, and must yield StepDone, Evaluated and Decided",
        ),
        (
            {"train": lambda *_: iter([None])},
            "yielded NoneType from train, and must yield StepDone, Evaluated and Decided",
        ),
        ({"state": lambda _: {"step": 2}}, "gave dict from state, and must give a TrainerState"),
        ({"train": lambda *_: sys.exit(3)}, "failed: SystemExit: 3 ("),
    ],
)
def test_a_trainer_is_told_what_it_forgot(
    changed: dict[str, Any], said: str, tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(textgen.ContractError) as caught:
        run_with("trainer", type("Changed", (Training,), changed), tiny_pipeline(), tmp_path)
    assert f"plugin 'odd' (textgen-odd 2.1): trainer 'odd' {said}" in str(caught.value)


def test_a_from_dict_without_a_return_is_named(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    forgetful = type("Forgetful", (CharTokenizer,), {"from_dict": lambda self, state: None})
    said = "'odd' gave from from_dict what is of type NoneType"
    with pytest.raises(textgen.ContractError, match=said):
        run_with("tokenizer", lambda context: forgetful(CharConfig()), tiny_pipeline(), tmp_path)


@pytest.mark.parametrize("kind", ["tokenizer", "sampler", "trainer", "corpus"])
def test_a_class_is_no_instance(
    kind: str, tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    classes = {
        "tokenizer": CharTokenizer,
        "sampler": Overreaching,
        "trainer": Training,
        "corpus": Reading,
    }
    name = classes[kind].__name__
    said = rf"what `build` made is the class {name} itself, and must be an instance"
    with pytest.raises(textgen.ContractError, match=said):
        run_with(kind, lambda context: classes[kind], tiny_pipeline(), tmp_path)


def test_a_forward_that_gives_no_state_is_named(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    rnn = textgen.PluginSet.discover().find("model", "rnn")
    assert isinstance(rnn, Offer)

    def build(context: Any) -> Any:
        model = rnn.component.build(rnn.component.config(hidden_size=4), context)

        def forward(self: Any, tokens: Any, state: Any = None) -> Any:
            return super(type(self), self).forward(tokens, state)[0]

        model.__class__ = type("Stateless", (type(model),), {"forward": forward})
        return model

    with pytest.raises(textgen.ContractError) as caught:
        run_with("model", build, tiny_pipeline(), tmp_path)
    assert (caught.value.kind, caught.value.component) == ("model", "odd")


def leaving(*_: Any) -> Any:
    sys.exit()


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (
            "tokenizer",
            lambda context: type("Leaving", (CharTokenizer,), {"encode": leaving})(CharConfig()),
        ),
        ("sampler", lambda context: leaving),
        ("corpus", leaving),
    ],
)
def test_a_component_that_exits_is_blamed(
    kind: str, made: Any, tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    said = (
        rf"{kind} 'odd' (failed|cannot be built): SystemExit \(.*test_blame\.py:\d+, in leaving\)$"
    )
    with pytest.raises(textgen.ContractError, match=said):
        run_with(kind, made, tiny_pipeline(), tmp_path)


def test_an_observer_that_exits_is_left_out(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    watching = types.SimpleNamespace(observe=leaving)
    with pytest.warns(
        textgen.PluginWarning, match=r"\(textgen-odd 2\.1\) failed and is left out: SystemExit"
    ) as warned:
        run = run_with("observer", lambda context: watching, tiny_pipeline(), tmp_path)
    assert run.outcome == "trained"
    assert "test_blame.py:" in str(warned[0].message)


class Decoding:
    """A model whose decoder `extend` is what the tests give."""

    def __init__(self, extend: Any, size: int) -> None:
        self.make = type("Decoder", (half_a_decoder(""),), {"extend": extend})
        self.size = size

    def decoder(self, batch_size: int) -> Any:
        return self.make(self.size, batch_size)

    def tensors(self) -> Any:
        return {}

    def load_tensors(self, tensors: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "made", "said"),
    [
        (
            "sampler",
            lambda context: raising,
            "sampler 'odd' failed: RuntimeError: out of order",
        ),
        (
            "sampler",
            lambda context: forgetting_to_return,
            "sampler 'odd' gave NoneType, and must give logits",
        ),
        (
            "model",
            lambda context: Decoding(
                lambda self, tokens: np.zeros((1, 2), np.float32), context.vocab_size
            ),
            "model 'odd' gave logits of shape (1, 2), and must give (1, ",
        ),
        (
            "model",
            lambda context: Decoding(leaving, context.vocab_size),
            "model 'odd' failed: SystemExit",
        ),
    ],
)
def test_what_cannot_generate_is_blamed_before_a_step_is_trained(
    kind: str, made: Any, said: str, tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    events: list[Any] = []
    odd: Any = [{"type": "odd"}] if kind == "sampler" else {"type": "odd"}
    with pytest.raises(textgen.ContractError) as caught:
        engine_with(kind, made).run(
            {**tiny_pipeline(), kind: odd},
            output=tmp_path / "run",
            observers=[types.SimpleNamespace(observe=events.append)],
        )
    assert said in str(caught.value)
    assert events == []


def test_a_model_may_want_to_be_trained_before_it_generates(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    trained: list[bool] = []

    def extend(decoder: Any, tokens: Any) -> Any:
        if not trained:
            raise textgen.UsageError("train it first")
        return np.zeros((decoder.batch_size, decoder.size), np.float32)

    class Tally(Training):
        def train(self, model: Any, data: Any, context: Any) -> Any:
            trained.append(True)
            yield from super().train(model, data, context)

    class Odd:
        @staticmethod
        @hookimpl
        def textgen_models() -> list[Component]:
            return [
                Component(
                    "odd", NoOptions, lambda config, context: Decoding(extend, context.vocab_size)
                )
            ]

        @staticmethod
        @hookimpl
        def textgen_trainers() -> list[Component]:
            return [Component("odd", NoOptions, lambda config, context: Tally(context))]

    plugins = textgen.PluginSet.discover()
    plugins.register(Odd, "odd", distribution="textgen-odd", version="2.1")
    tables = {**tiny_pipeline(), "model": {"type": "odd"}, "trainer": {"type": "odd"}}
    assert textgen.Engine(plugins).run(tables, output=tmp_path / "run").outcome == "trained"


def test_a_build_that_changes_its_options_changes_no_run(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    @attrs.frozen
    class Config:
        """Has options that can be changed in place."""

        names: list[str] = textgen.option(factory=lambda: ["a"], help="names")
        weights: dict[str, int] = textgen.option(factory=lambda: {"a": 1}, help="weights")

    def build(config: Config, context: Any) -> Any:
        config.names.append("b")
        config.weights.clear()
        return lambda logits, history: logits

    class Odd:
        @staticmethod
        @hookimpl
        def textgen_samplers() -> list[Component]:
            return [Component("odd", Config, build)]

    plugins = textgen.PluginSet.discover()
    plugins.register(Odd, "odd")
    odd = textgen.Engine(plugins)
    tables = {**tiny_pipeline(), "sampler": [{"type": "odd"}]}
    assert odd.run(tables, output=tmp_path / "run").outcome == "trained"
    before = (tmp_path / "run/pipeline.toml").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert odd.run(tables, output=tmp_path / "run").outcome == "skipped"
        odd.load(tmp_path / "run")
    assert (tmp_path / "run/pipeline.toml").read_bytes() == before
