"""Components that break one statement of their contract are caught with that statement."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
from broken_components import BROKEN, GOOD
from broken_components.cases import Case, offered
from broken_components.corpora import GoodCorpus
from broken_components.models import RowDecoder, with_decoder
from broken_components.observers import GoodObserver
from broken_components.samplers import CountingSampler, DeviceSampler, GoodSampler
from broken_components.tokenizers import EndTokenizer, GoodTokenizer, RefusingTokenizer
from checking import CHECKS, LIGHT, SENTENCES, changed_module, failed_and_skipped

from textgen import Component, NoOptions, testing
from textgen.plugin.component import Offer
from textgen.testing import STATEMENTS, ContractFailure, isolated_plugins


@pytest.mark.parametrize("kind", GOOD)
def test_the_components_that_are_broken_next_pass_while_whole(kind: str) -> None:
    assert CHECKS[kind](GOOD[kind], plugin=LIGHT)


def test_a_sampler_may_look_at_numbers_on_another_device() -> None:
    assert testing.check_sampler(offered(DeviceSampler), plugin=LIGHT)


def test_a_sampler_may_keep_a_state_read_random_numbers_and_end_texts() -> None:
    outcomes = testing.check_sampler(offered(CountingSampler), plugin=LIGHT)
    assert {o.statement.anchor for o in outcomes if o.statement and o.status == "skipped"} <= {
        "sampler-promise",
        "component-process",
    }


def test_decoders_may_let_rows_come_and_go() -> None:
    assert testing.check_model(with_decoder(RowDecoder), plugin=LIGHT)


def test_a_tokenizer_may_have_an_end() -> None:
    outcomes = testing.check_tokenizer(offered(EndTokenizer), plugin=LIGHT)
    assert next(o.status for o in outcomes if o.statement == SENTENCES["tokenizer-end"]) == "ok"


def test_a_tokenizer_may_refuse_text_if_it_says_so() -> None:
    assert testing.check_tokenizer(offered(RefusingTokenizer), plugin=LIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.id)
def test_what_is_broken_is_caught_with_the_right_sentence(case: Case) -> None:
    with pytest.raises(ContractFailure) as caught:
        CHECKS[case.kind](case.component, plugin=LIGHT, **case.arguments)
    failure = caught.value
    assert failure.statement == SENTENCES[case.statement]
    assert case.seen in failure.seen
    said, seen, advice = re.split(r"\n  (?:seen|help): ", str(failure))
    assert said == f"{case.kind} {case.component.name!r} of {LIGHT}: {failure.statement.sentence}"
    assert seen == failure.seen
    assert " ".join(advice.split()) == failure.statement.advice


def test_every_kind_is_broken_in_five_ways_at_least() -> None:
    counts = Counter(case.kind for case in BROKEN)
    assert all(counts[kind] >= 5 for kind in GOOD)
    tried = {case.statement for case in BROKEN} | {
        "component-import",
        "component-process",
        "command-light",
    }
    hard = {
        "component-raises",
        "component-quiet",
        "model-forward",
        "model-dropout",
        "model-kernels",
    } | {s.anchor for s in STATEMENTS if s.anchor.endswith("-threads")}
    assert tried | hard == set(SENTENCES)


@pytest.mark.parametrize("kind", GOOD)
def test_torch_at_import_is_caught(heavy_module: Path, kind: str) -> None:
    with pytest.raises(ContractFailure, match=r"importing heavy_at_import loads torch and numpy"):
        CHECKS[kind](GOOD[kind], plugin="heavy_at_import")


def test_other_costs_of_imports_are_caught(heavy_module: Path) -> None:
    with pytest.raises(ContractFailure, match="building it loads numpy") as caught:
        testing.check_command(GOOD["command"], plugin="heavy_when_built")
    assert caught.value.statement.anchor == "command-light"
    with pytest.raises(ContractFailure, match="RuntimeError: not today"):
        testing.check_sampler(GOOD["sampler"], plugin="broken_at_import")
    with pytest.raises(
        ContractFailure, match=r"importing prints_at_import wrote 'hello\\n' to stdout"
    ) as caught:
        testing.check_sampler(GOOD["sampler"], plugin="prints_at_import")
    assert caught.value.statement.anchor == "component-import"


@pytest.fixture(scope="module")
def heavy_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plugin's module that imports torch at its top, and a command that does when it is built."""
    folder = tmp_path_factory.mktemp("heavy")
    (folder / "heavy_at_import.py").write_text("import torch\n")
    (folder / "heavy_when_built.py").write_text(
        "from textgen import Component, NoOptions\n"
        "def build(config, context):\n    import numpy\n"
        "def textgen_commands():\n    return [Component('good', NoOptions, build)]\n"
    )
    (folder / "prints_at_import.py").write_text("print('hello')\n")
    (folder / "broken_at_import.py").write_text("raise RuntimeError('not today')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


def test_an_order_that_each_process_has_for_itself_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_of_sets.py").write_text(
        "from textgen import Component, NoOptions, hookimpl\n"
        "def build(config, context):\n"
        "    from broken_components.tokenizers import HashOrderedTokenizer\n"
        "    return HashOrderedTokenizer()\n"
        "@hookimpl\ndef textgen_tokenizers():\n    return [Component('hashed', NoOptions, build)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ContractFailure, match="differs from one process to the next") as caught:
        testing.check_plugin("plugin_of_sets")
    assert caught.value.statement.anchor == "component-process"


def test_building_that_changes_the_process_is_caught() -> None:
    import numpy as np

    def build(config: Any, context: Any) -> Any:
        np.random.seed(0)
        return GoodSampler(context)

    with pytest.raises(
        ContractFailure, match=r"(?s)leaves the states.*changed the random state of NumPy"
    ) as caught:
        testing.check_sampler(Component("seeding", NoOptions, build), plugin=LIGHT)
    assert caught.value.statement.anchor == "component-build"


def test_a_forward_that_is_not_the_decoder_is_caught() -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        logits, after = super(type(self), self).forward(tokens, state)
        return logits * 2, after

    with pytest.raises(
        ContractFailure, match=r"score\(\) of its own decoder gave logits that differ"
    ) as caught:
        testing.check_model(changed_module(forward=forward), plugin=LIGHT)
    assert caught.value.statement.anchor == "model-forward"


def test_a_forward_that_looks_ahead_is_called_that() -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        logits, after = super(type(self), self).forward(tokens, state)
        return logits + logits.mean(dim=1, keepdim=True), after

    with pytest.raises(
        ContractFailure, match=r"forward\(\) of 5 tokens and those that follow gave"
    ) as caught:
        testing.check_model(changed_module(forward=forward), plugin=LIGHT)
    assert caught.value.statement.anchor == "model-causal"


def test_dropout_from_the_global_generator_is_caught() -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        import torch

        logits, after = super(type(self), self).forward(tokens, state)
        return torch.nn.functional.dropout(logits, 0.1, self.training), after

    with pytest.raises(
        ContractFailure, match=r"random state of torch|second training step"
    ) as caught:
        testing.check_model(changed_module(forward=forward), plugin=LIGHT)
    assert caught.value.statement.anchor in ("model-dropout", "model-seed")


def test_a_kernel_with_other_gradients_is_caught() -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        logits, after = super(type(self), self).forward(tokens, state)
        factor = 2 if getattr(self, "kernel", "") == "doubled" else 1
        return logits * factor - logits.detach() * (factor - 1), after

    made = changed_module(
        forward=forward,
        kernels=lambda self, precision: ["doubled"],
        use_kernel=lambda self, name: setattr(self, "kernel", name),
    )
    with pytest.raises(
        ContractFailure, match=r"the gradient of .* of 'doubled' in float32 is off by"
    ) as caught:
        testing.check_model(made, plugin=LIGHT)
    assert caught.value.statement.anchor == "model-kernels"


def test_a_trainer_that_leaves_dropout_to_the_global_generator_is_caught() -> None:
    def build(config: Any, context: Any) -> Any:
        offer = isolated_plugins().find("trainer", "sgd")
        assert isinstance(offer, Offer)
        trainer = offer.component.build(offer.component.config(epochs=2), context)
        return Undropped(trainer)

    with pytest.raises(ContractFailure, match="it changed the random state of torch") as caught:
        testing.check_trainer(Component("undropped", NoOptions, build), plugin=LIGHT)
    assert caught.value.statement.anchor == "trainer-quiet"


@attrs.frozen
class Undropped:
    """A trainer that never tells the model where its dropout begins."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def train(self, model: Any, data: Any, context: Any) -> Any:
        model.set_dropout_seed = lambda seed: None
        return self.inner.train(model, data, context)


@pytest.mark.parametrize("kind", ["sampler", "corpus", "observer", "tokenizer"])
def test_a_component_that_exits_fails_its_check(kind: str) -> None:
    def leave(*_: Any) -> Any:
        sys.exit()

    methods = {
        "sampler": "__call__",
        "corpus": "read",
        "observer": "observe",
        "tokenizer": "encode",
    }
    base = {
        "sampler": GoodSampler,
        "corpus": GoodCorpus,
        "observer": GoodObserver,
        "tokenizer": GoodTokenizer,
    }[kind]
    failed, _ = failed_and_skipped(kind, offered(type("Leaving", (base,), {methods[kind]: leave})))
    ((_, seen),) = failed
    assert "SystemExit" in seen
