"""textgen.testing: the built-in set passes, what is broken is caught with the right sentence, and the doors to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from broken_components import (
    BROKEN,
    GOOD,
    AllNaNDecoder,
    Case,
    DeviceSampler,
    DictStateTrainer,
    GoodCorpus,
    GoodModel,
    GoodObserver,
    GoodSampler,
    GoodTokenizer,
    HalfDecoder,
    MeanDecoder,
    NaNSampler,
    NoisyDecoder,
    NoisyExtendDecoder,
    NoisySampler,
    OtherEachTimeCorpus,
    PrintingCorpus,
    PrintingSampler,
    RaisingCorpus,
    RaisingModel,
    RaisingSampler,
    RaisingTokenizer,
    RaisingTrainer,
    RefusingTokenizer,
    RequiredConfig,
    SeldomRaisingSampler,
    offered,
    unbuildable,
    with_decoder,
)
from commands import run_textgen

from textgen import Component, NoOptions, option, testing
from textgen.errors import PipelineError, PluginError, UsageError
from textgen.plugin.registry import Offer, Plugin
from textgen.testing import STATEMENTS, ContractFailure, Outcome, isolated_plugins, statements
from textgen.testing.plugin import check_offers

ROOT = Path(__file__).parents[1]
CHECKS: dict[str, Callable[..., Any]] = {kind: getattr(testing, f"check_{kind}") for kind in GOOD}
LIGHT = "textgen.plugin.component"  # what is imported for components that are made in this process
SENTENCES = {statement.anchor: statement for statement in STATEMENTS}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "char": [{}, {"letters_only": True, "lower_case": True}, {"unicode_form": "NFKD", "min_frequency": 3}],
    "rnn": [
        {"hidden_size": 6, "dropout": 0.2},
        {"cell": "lstm", "hidden_size": 5, "layers": 2, "embedding_size": 4},
        {"cell": "gru", "hidden_size": 6, "embedding_size": 6, "tied_weights": True},
    ],
    "sgd": [{"epochs": 2, "momentum": 0.9}, {"epochs": 2, "order": "streams", "batch_size": 8}],
    "adamw": [{"epochs": 2, "learning_rate": 0.02, "evaluate_every": 1}],
    "logit-bias": [{"bias": {"e": 2.0, "T": -50.0}}],
    "temperature": [{"temperature": 0.3}, {"temperature": 0.0}],
    "top-k": [{"k": 3}],
    "standard": [{}, {"repetition_penalty": 1.3, "presence_penalty": 0.5, "no_repeat_ngram": 3, "top_p": 0.8}],
    "file": [{"path": str(ROOT / "README.md")}, {"path": str(ROOT / "docs"), "glob": "*.md"}],
    "samples": [{"every": 2}],
}
BUILT_IN = [
    pytest.param(offer.kind, offer.component, options, id=f"{offer.kind}-{offer.component.name}-{number}")
    for offer in isolated_plugins().offers()
    for number, options in enumerate(OPTIONS.get(offer.component.name, [{}]))
]


@pytest.mark.parametrize(("kind", "component", "options"), BUILT_IN)
def test_the_built_in_set_passes(
    kind: str, component: Component, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {}
    if component.name == "time-machine":
        book = ROOT / "../shared/data/timemachine.txt"
        if not book.is_file():
            pytest.skip("the text of The Time Machine is not at ../shared/data/timemachine.txt")
        shutil.copy(book, tmp_path / "timemachine.txt")
        monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path))
    if component.name == "file":
        more["unreadable"] = {"path": str(tmp_path / "nowhere.txt")}
    outcomes = CHECKS[kind](component, options=options, **more)
    assert {outcome.status for outcome in outcomes} <= {"ok", "skipped"}
    allowed = {"corpus-errors", "sampler-promise"}
    assert {o.statement.anchor for o in outcomes if o.statement and o.status == "skipped"} <= allowed


@pytest.mark.parametrize("kind", GOOD)
def test_the_components_that_are_broken_next_pass_while_whole(kind: str) -> None:
    assert CHECKS[kind](GOOD[kind], plugin=LIGHT)


def test_a_sampler_may_look_at_numbers_on_another_device() -> None:
    assert testing.check_sampler(offered(DeviceSampler), plugin=LIGHT)


def test_a_tokenizer_may_refuse_text_if_it_says_so() -> None:
    assert testing.check_tokenizer(offered(RefusingTokenizer), plugin=LIGHT)


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
    tried = {case.statement for case in BROKEN} | {"component-import", "component-build", "command-light"}
    hard = {"component-raises", "component-quiet", "model-forward", "model-dropout"} | {
        s.anchor for s in STATEMENTS if s.anchor.endswith("-threads")
    }
    assert tried | hard == set(SENTENCES)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the broken components write where they are."""
    monkeypatch.chdir(tmp_path)


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
    with pytest.raises(ContractFailure, match=r"importing prints_at_import wrote 'hello\\n' to stdout") as caught:
        testing.check_sampler(GOOD["sampler"], plugin="prints_at_import")
    assert caught.value.statement.anchor == "component-import"


def test_an_order_that_each_process_has_for_itself_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_sets.py").write_text(
        "from textgen import Component, NoOptions, hookimpl\n"
        "def build(config, context):\n"
        "    from broken_components import HashOrderedTokenizer\n"
        "    return HashOrderedTokenizer()\n"
        "@hookimpl\ndef textgen_tokenizers():\n    return [Component('hashed', NoOptions, build)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ContractFailure, match="differs from one process to the next") as caught:
        testing.check_plugin("plugin_of_sets")
    assert caught.value.statement.anchor == "tokenizer-deterministic"


def test_building_that_changes_the_process_is_caught() -> None:
    import numpy as np

    def build(config: Any, context: Any) -> Any:
        np.random.seed(0)
        return GoodSampler(context)

    with pytest.raises(ContractFailure, match=r"(?s)leaves global.*changed the random state of NumPy") as caught:
        testing.check_sampler(Component("seeding", NoOptions, build), plugin=LIGHT)
    assert caught.value.statement.anchor == "component-build"


class BrokenModule:
    """A torch module, good but for what the tests below change."""

    dropout = 0.0
    seeded = True

    @classmethod
    def component(cls, **changes: Any) -> Component:
        """A component around a module with other class attributes."""
        rnn = isolated_plugins().find("model", "rnn")
        assert not hasattr(rnn, "hint")
        made = attrs.make_class("Config", [], bases=(), frozen=True)
        made.__doc__ = "A module."

        def build(config: Any, context: Any) -> Any:
            model = rnn.component.build(rnn.component.config(hidden_size=4, layers=2, dropout=0.3), context)
            if context.training:
                model.__class__ = type("Changed", (type(model),), changes)
            return model

        return Component("changed", made, build)


def test_a_forward_that_is_not_the_decoder_is_caught() -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        logits, after = super(type(self), self).forward(tokens, state)
        return logits * 2, after

    with pytest.raises(ContractFailure, match=r"score\(\) of its own decoder gave logits that differ") as caught:
        testing.check_model(BrokenModule.component(forward=forward), plugin=LIGHT)
    assert caught.value.statement.anchor == "model-forward"


def test_dropout_from_the_global_generator_is_caught() -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        import torch

        logits, after = super(type(self), self).forward(tokens, state)
        return torch.nn.functional.dropout(logits, 0.1, self.training), after

    with pytest.raises(ContractFailure, match=r"random state of torch|second training step") as caught:
        testing.check_model(BrokenModule.component(forward=forward), plugin=LIGHT)
    assert caught.value.statement.anchor in ("model-dropout", "model-seed")


def outcomes_of(kind: str, component: Component) -> list[Outcome]:
    offers = [Offer(kind, component, Plugin("under-test", "unpackaged", "0"))]
    return list(check_offers(offers, isolated_plugins(), {}, module=LIGHT))


def unchecked(kind: str, component: Component) -> set[str]:
    """The anchors of what was skipped."""
    return {o.statement.anchor for o in outcomes_of(kind, component) if o.statement and o.status == "skipped"}


def failed_and_skipped(kind: str, component: Component) -> tuple[list[tuple[str, str]], set[str]]:
    """What fails of a component, as anchor and what was seen, and the reasons for which other checks were skipped."""
    outcomes = outcomes_of(kind, component)
    failed = [(o.statement.anchor, o.reason) for o in outcomes if o.statement and o.status == "failed"]
    return failed, {o.reason for o in outcomes if o.status == "skipped"}


@pytest.mark.parametrize(
    ("kind", "component"),
    [
        *((kind, Component("unbuildable", NoOptions, unbuildable)) for kind in GOOD),
        ("sampler", offered(RaisingSampler)),
        ("sampler", offered(SeldomRaisingSampler)),
        ("model", offered(RaisingModel)),
        ("tokenizer", offered(RaisingTokenizer)),
        ("trainer", offered(RaisingTrainer)),
        ("corpus", offered(RaisingCorpus)),
    ],
)
def test_one_fault_is_one_failure_and_says_where(kind: str, component: Component) -> None:
    failed, skipped = failed_and_skipped(kind, component)
    ((at, said),) = failed
    assert at == "component-raises"
    assert "ZeroDivisionError" in said
    broken = Path(__file__).with_name("broken_components.py")
    place = re.search(r"\((.*):(\d+)\)$", said)
    assert place
    assert Path(place[1]).name == broken.name
    assert "1 / 0" in broken.read_text(encoding="utf-8").splitlines()[int(place[2]) - 1]
    assert "not checked: see component-raises" in skipped


def test_a_method_that_is_missing_is_named() -> None:
    (failed,), _ = failed_and_skipped("model", offered(type("Unloadable", (GoodModel,), {"load_tensors": None})))
    assert failed == ("component-methods", "what is built is of type Unloadable, which has no method 'load_tensors'")


@pytest.mark.parametrize(
    ("kind", "component"),
    [("sampler", offered(PrintingSampler)), ("corpus", offered(PrintingCorpus))],
    ids=["sampler", "corpus"],
)
def test_printing_is_caught_and_kept_off_stdout(
    kind: str, component: Component, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, _ = failed_and_skipped(kind, component)
    ((anchor, said),) = failed
    assert anchor == "component-quiet"
    assert said.startswith("it wrote 'here\\nhere\\n")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("given", "said"), [(None, "None; is a `return` missing?"), ([[0.0]], "a list")])
def test_what_is_no_array_is_called_what_it_is(given: Any, said: str) -> None:
    def build(config: Any, context: Any) -> Any:
        return lambda logits, history: given

    failed, _ = failed_and_skipped("sampler", Component("odd", NoOptions, build))
    assert failed == [("sampler-shape", f"logits (2, 36) came back as {said}")]


@attrs.frozen
class RefusedConfig:
    """Its default is refused by its own validator."""

    size: int = option(0, help="how many", validator=attrs.validators.ge(1))


@attrs.frozen
class UntypedConfig:
    """One option has no type."""

    size = option(8, help="how many")


@pytest.mark.parametrize(
    ("config", "anchor", "said"),
    [
        (RefusedConfig, "component-options", "must be >= 1"),
        (UntypedConfig, "component-record", "size has no type; declare it as in `size: int = option(…)`"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_failure(config: type, anchor: str, said: str) -> None:
    failed, _ = failed_and_skipped("sampler", Component("odd", config, lambda config, context: GoodSampler(context)))
    assert failed[0][0] == anchor
    assert said in failed[0][1]
    assert {at for at, _ in failed} <= {anchor, "component-options"}


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


@pytest.mark.parametrize(
    ("kind", "component"),
    [("sampler", offered(NaNSampler)), ("model", with_decoder(AllNaNDecoder))],
    ids=["sampler", "model"],
)
def test_nan_is_accused_of_nothing_but_nan(kind: str, component: Component) -> None:
    failed, _ = failed_and_skipped(kind, component)
    assert [anchor for anchor, _ in failed] == [f"{kind}-finite"]


@pytest.mark.parametrize(
    ("kind", "component", "anchor", "unasked"),
    [
        ("sampler", offered(NoisySampler), "sampler-deterministic", {"rows", "torch", "threads"}),
        ("model", with_decoder(NoisyDecoder), "model-deterministic", {"rows", "decoders", "stepwise", "state"}),
        ("model", with_decoder(NoisyExtendDecoder), "model-deterministic", {"rows", "decoders", "stepwise"}),
        ("model", with_decoder(MeanDecoder), "model-rows", {"decoders", "state-rows"}),
        ("model", with_decoder(HalfDecoder), "model-dtype", {"rows", "decoders", "saved", "finite"}),
        ("trainer", offered(DictStateTrainer), "trainer-state-form", {"resumes", "finished"}),
        ("corpus", offered(OtherEachTimeCorpus), "corpus-again", {"readers"}),
    ],
)
def test_what_depends_on_what_failed_is_not_checked(
    kind: str, component: Component, anchor: str, unasked: set[str]
) -> None:
    failed, skipped = failed_and_skipped(kind, component)
    assert [at for at, _ in failed] == [anchor]
    assert f"not checked: see {anchor}" in skipped
    assert {f"{kind}-{name}" for name in unasked} <= unchecked(kind, component)


@pytest.mark.parametrize("kind", ["sampler", "corpus", "observer", "tokenizer"])
def test_a_component_that_exits_fails_its_check(kind: str) -> None:
    def leave(*_: Any) -> Any:
        sys.exit()

    methods = {"sampler": "__call__", "corpus": "read", "observer": "observe", "tokenizer": "encode"}
    base = {"sampler": GoodSampler, "corpus": GoodCorpus, "observer": GoodObserver, "tokenizer": GoodTokenizer}[kind]
    failed, _ = failed_and_skipped(kind, offered(type("Leaving", (base,), {methods[kind]: leave})))
    ((_, seen),) = failed
    assert "SystemExit" in seen


def test_a_forward_of_another_shape_is_one_failure() -> None:
    def forward(self: Any, tokens: Any, state: Any = None) -> Any:
        logits, after = super(type(self), self).forward(tokens, state)
        return logits[:, -1], after

    failed, skipped = failed_and_skipped("model", BrokenModule.component(forward=forward))
    ((anchor, seen),) = failed
    assert (anchor, "gave logits (3, " in seen) == ("model-forward", True)
    assert "not checked: see model-forward" in skipped


# The docs.


def test_the_sampler_of_the_page_of_hooks_keeps_its_contract() -> None:
    page = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")
    block = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    names: dict[str, Any] = {"__name__": "page_of_hooks"}
    exec(block, names)
    (component,) = names["Plugin"].textgen_samplers()
    testing.check_sampler(component, plugin=LIGHT)


def test_every_statement_has_its_place_in_the_docs() -> None:
    page = (ROOT / "docs/testing-plugins.md").read_text(encoding="utf-8")
    (included,) = re.findall(r"^```{include} (.+)\n", page, re.MULTILINE)
    contracts = (ROOT / "docs" / included).read_text(encoding="utf-8")
    sections = re.findall(r"^\((.+)\)=\n### .+\n\n\*\*(.+)\*\*", contracts, re.MULTILINE)
    assert sections == [(statement.anchor, statement.sentence) for statement in STATEMENTS]
    assert len(sections) == contracts.count("\n### ")
    assert all(statement.advice.endswith((".", "`")) for statement in STATEMENTS)
    checked = {value for value in vars(statements).values() if isinstance(value, testing.Statement)}
    assert checked == set(STATEMENTS)


# A whole plugin.


PLUGIN = """
import attrs
from textgen import Component, NoOptions, hookimpl, option

@attrs.frozen
class NeedyConfig:
    "Needs an option."
    size: int = option(help="how many")

class Halve:
    history = "none"
    def __call__(self, logits, history):
        return logits * 0.5

class Watch:
    def observe(self, event):
        pass

@hookimpl
def textgen_samplers():
    return [Component(name, config, lambda config, context: Halve()) for name, config in
            (("halve", NoOptions), ("needy", NeedyConfig))]

@hookimpl
def textgen_observers():
    return [Component("watch", NoOptions, lambda config, context: Watch())]
"""


def test_check_plugin_checks_all_and_says_what_it_skips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_three.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    outcomes = testing.check_plugin("plugin_of_three")
    assert [(o.component, o.status, o.reason) for o in outcomes if o.statement is None] == [
        (
            "sampler 'needy' of plugin_of_three",
            "skipped",
            "it has no default for needy.size; give a value to check it",
        ),
    ]
    checked = {o.component.split()[1] for o in outcomes if o.status == "ok"}
    assert checked == {"'halve'", "'watch'"}
    given = testing.check_plugin("plugin_of_three", options={"needy": {"size": 3}})
    assert {o.component.split()[1] for o in given if o.status == "ok"} == checked | {"'needy'"}
    with pytest.raises(UsageError, match=r"'neady', and no component is called so; did you mean 'needy'\?"):
        testing.check_plugin("plugin_of_three", options={"neady": {"size": 3}})
    with pytest.raises(PipelineError, match=r"'needy': 2 faults\n.*sise: unknown key; did you mean"):
        testing.check_plugin("plugin_of_three", options={"needy": {"sise": 3}})


def test_a_list_is_no_component() -> None:
    with pytest.raises(TypeError, match=r"takes a textgen.Component, and got a list; take the one"):
        testing.check_sampler([GOOD["sampler"]], plugin=LIGHT)  # type: ignore[arg-type]


def test_options_that_do_not_fit_are_the_callers_fault() -> None:
    needy = Component("needy", RequiredConfig, lambda config, context: GoodSampler(context))
    with pytest.raises(PipelineError, match="size: expected an integer"):
        testing.check_sampler(needy, options={"size": "many"}, plugin=LIGHT)
    with pytest.raises(PipelineError, match="size: required"):
        testing.check_sampler(needy, plugin=LIGHT)


def test_check_plugin_takes_names_and_refuses_what_is_none() -> None:
    assert {o.component for o in testing.check_plugin("textgen_builtins.observers.plugin")} == {
        f"observer {name!r} of textgen-engine" for name in ("loss-plot", "metrics", "progress", "samples")
    }
    with pytest.raises(PluginError, match=r"not marked with @textgen.hookimpl"):
        testing.check_plugin(type("Unmarked", (), {"textgen_samplers": staticmethod(list)}))


# The command.


def test_plugins_check_prints_a_line_for_each_check(tmp_path: Path) -> None:
    done = run_textgen("plugins", "check", "observers", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "ok       observer 'metrics' of textgen-engine: observer-resumed" in lines
    assert all(line.startswith("ok       observer ") for line in lines)
    assert done.stderr == f"{len(lines)} ok, 0 failed, 0 skipped\n"
    assert list(tmp_path.iterdir()) == []
    one = run_textgen("plugins", "check", "Textgen_Engine:logit-bias", folder=tmp_path)
    assert one.stdout == (
        "skipped  sampler 'logit-bias' of textgen-engine: it has no default for logit-bias.bias; give a value to check "
        "it\n"
    )


def installed_sampler(site: Path, name: str, call: str, top: str = "", component: str = "bad") -> Path:
    """A package textgen-NAME in `site` with one sampler; return its module."""
    (site / f"textgen_{name}-1.0.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: textgen-{name}\nVersion: 1.0\n"
    (site / f"textgen_{name}-1.0.dist-info/METADATA").write_text(metadata)
    (site / f"textgen_{name}-1.0.dist-info/entry_points.txt").write_text(f"[textgen]\n{name} = textgen_{name}\n")
    (site / f"textgen_{name}.py").write_text(
        f"{top}\nfrom textgen import Component, NoOptions, hookimpl\n"
        "@hookimpl\ndef textgen_samplers():\n"
        f"    return [Component('{component}', NoOptions, lambda config, context: lambda logits, history: {call})]\n"
    )
    return site / f"textgen_{name}.py"


def test_plugins_check_tells_a_slow_plugin_what_makes_it_slow(tmp_path: Path) -> None:
    top = "import torch\nimport threading\nthreading.Event().wait(0.6)"  # longer than a list of plugins waits
    installed_sampler(tmp_path / "site", "slow", "logits", top)
    done = run_textgen("plugins", "check", "slow", folder=tmp_path, site=[tmp_path / "site"])
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert "importing textgen_slow loads torch and numpy; import it inside build" in line
    assert done.returncode == 1


def test_plugins_check_notes_a_clash(tmp_path: Path) -> None:
    for name in ("one", "two"):
        installed_sampler(tmp_path / "site", name, "logits / 2", component="shared")
    done = run_textgen("plugins", "check", "one", folder=tmp_path, site=[tmp_path / "site"])
    assert done.returncode == 0, done.stdout
    notes = [line for line in done.stdout.splitlines() if not line.startswith(("ok", "skipped"))]
    assert notes == ["note: sampler 'shared' is also offered by textgen-two; users write textgen-one:shared"]


def test_plugins_check_fails_with_sentence_and_link(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed_sampler(site, "bad", "logits[:, 1:]")
    done = run_textgen("plugins", "check", "bad", folder=tmp_path, site=[site])
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    skipped = [line for line in done.stdout.splitlines() if line.startswith("skipped")]
    (line_of_skipped,) = skipped
    found = re.fullmatch(
        r".+ of textgen-bad: (\d+) checks that mean nothing before sampler-shape holds", line_of_skipped
    )
    assert found
    assert done.stderr.endswith(f" ok, 1 failed, {found[1]} skipped\n")
    statement = SENTENCES["sampler-shape"]
    assert line.startswith(f"FAILED   sampler 'bad' of textgen-bad: sampler-shape: {statement.sentence} Seen: logits")
    after = done.stdout.split(line)[1].partition("\nskipped")[0]
    assert " ".join(after.split()) == statement.advice
    (site / "textgen_bad.py").write_text("raise RuntimeError('not today')\n")
    broken = run_textgen("plugins", "check", "textgen-bad", folder=tmp_path, site=[site])
    assert broken.returncode == 1
    assert broken.stdout.startswith("FAILED   plugin 'bad' (textgen-bad 1.0) is left out: importing textgen_bad failed")
    assert broken.stderr == "0 ok, 1 failed, 0 skipped\n"  # which is said once


def test_plugins_check_names_who_warned_and_keeps_what_is_printed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed_sampler(site, "loud", "print('here') or __import__('warnings').warn('too loud') or logits")
    done = run_textgen("plugins", "check", "loud", folder=tmp_path, site=[site])
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (note,) = [line for line in lines if line.startswith("note: ")]
    assert note.startswith("note: sampler 'bad' of textgen-loud warned: UserWarning: too loud (")
    assert re.search(r"textgen_loud\.py:\d+\)$", note)
    assert "component-quiet: A component prints nothing" in next(line for line in lines if line.startswith("FAILED"))
    assert "here" not in lines
    assert done.stderr == f"{sum(line.startswith('ok') for line in lines)} ok, 1 failed, 1 skipped\n"


def test_plugins_check_notes_what_goes_away_and_a_name_of_textgens_own(tmp_path: Path) -> None:
    module = installed_sampler(tmp_path / "site", "old", "logits")
    module.write_text(
        "import click\nimport datetime\nimport attrs\nfrom textgen import Component, NoOptions, hookimpl\n"
        "from textgen.deprecation import deprecated\n"
        "def build(config, context):\n"
        "    deprecated('the command run', since='1.4', removed=datetime.date(2027, 6, 1), instead='that of textgen',\n"
        "               distribution='textgen-old')\n"
        "    return click.Command('run', help='Runs.')\n"
        "@hookimpl\ndef textgen_commands():\n    return [Component('run', NoOptions, build)]\n"
    )
    done = run_textgen("plugins", "check", "old", folder=tmp_path, site=[tmp_path / "site"])
    own, old = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert own == "note: command 'run' has the name of one of textgen's own; users write textgen textgen-old:run"
    assert "warned: DeprecationWarning: the command run is deprecated since textgen-old 1.4 and may be gone" in old


def test_plugins_check_says_what_is_missing_for_a_plugin(tmp_path: Path) -> None:
    site = tmp_path / "site"
    module = installed_sampler(site, "mute", "logits")
    module.write_text("from textgen import Component\n")
    empty = run_textgen("plugins", "check", "mute", folder=tmp_path, site=[site])
    assert (empty.returncode, empty.stdout) == (
        1,
        "FAILED   plugin 'mute' (textgen-mute 1.0) is left out: it offers nothing: there is no hook in it, marked with "
        "@textgen.hookimpl\n",
    )
    (site / "textgen_mute-1.0.dist-info/entry_points.txt").unlink()
    for name in ("mute", "textgen_mute"):
        forgotten = run_textgen("plugins", "check", name, folder=tmp_path, site=[site])
        assert forgotten.returncode == 2
        assert "textgen-mute is installed and is no plugin: it has no entry point in the group 'textgen'; add one" in (
            forgotten.stderr
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["observer"], "is called 'observer'; did you mean 'observers'?"),
        (["textgen-engine:samples2"], "is called 'textgen-engine:samples2'; did you mean 'textgen-engine:samples'?"),
        (["observers", "--set", "sample.every=3"], "given for 'sample', and no component is called so; did you mean"),
        (["corpora", "--set", "file.pth=x"], "pth: unknown key; did you mean 'path'?"),
        (["observers", "--set", "every=3"], "--set takes NAME.KEY=VALUE"),
        (["observers", "--set", "samples.every=no"], "every: expected an integer"),
    ],
)
def test_what_cannot_be_checked_is_a_usage_error(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run_textgen("plugins", "check", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


# The pytest plugin.

FIXTURES = """
from pathlib import Path

import attrs
from textgen import Component, NoOptions, hookimpl


@attrs.frozen
class Plugin:
    @staticmethod
    @hookimpl
    def textgen_samplers():
        return [Component("first", NoOptions, lambda config, context: forbid_all_but_first)]


def forbid_all_but_first(logits, history):
    changed = logits.copy()
    changed[:, 2:] = -float("inf")
    return changed


def test_runs(tiny_pipeline, run_pipeline, textgen_plugins, tiny_corpus, tmp_path, capfd):
    assert {o.plugin.distribution for o in textgen_plugins.offers()} == {"textgen-engine"}
    assert tiny_corpus.parent == tmp_path and len(tiny_corpus.read_text("utf-8")) > 1000
    textgen_plugins.register(Plugin(), "mine")
    tiny_pipeline["sampler"] = [{"type": "first"}]
    run = run_pipeline(tiny_pipeline, ["generate.max_new_tokens=7"])
    assert run.path == tmp_path / "run"
    assert set(run.generations[0].tokens) <= {0, 1} and len(run.generations[0].tokens) == 7
    assert capfd.readouterr() == ("", "")
"""
LOADED = "import sys\ndef test_light():\n    assert not {'torch', 'numpy', 'hypothesis'} & set(sys.modules)\n"


def test_the_fixtures_run_a_pipeline_and_cost_nothing_unused(tmp_path: Path) -> None:
    (tmp_path / "test_a_light.py").write_text(LOADED)
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "textgen.testing.pytest_plugin",
            "-p",
            "no:randomly",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "warning" not in done.stdout.lower()


def test_pytest_finds_the_fixtures_by_itself() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\ntextgen = "textgen.testing.pytest_plugin"\n' in project


def test_pytest_shows_the_test_and_the_component_and_not_the_suite(tmp_path: Path) -> None:
    (tmp_path / "plugin_of_one.py").write_text(PLUGIN.replace("logits * 0.5", "logits[:, 1:]"))
    test = "from textgen.testing import check_plugin\ndef test_contracts():\n    check_plugin('plugin_of_one')\n"
    (tmp_path / "test_one.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert "seen: logits (2, 36) came back as (2, 35)" in done.stdout
    assert len(done.stdout.splitlines()) < 20
