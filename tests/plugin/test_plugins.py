"""What a PluginSet takes, refuses and finds."""

import contextlib
import inspect
from types import SimpleNamespace

import attrs
import pytest
from attrs.validators import gt
from components import engine_of, plugin_of

import textgen
from textgen import Component, NoOptions, PluginSet, PluginWarning, hookimpl, option
from textgen.plugin.component import REQUEST_OPTIONS, Plugin

ODD = {"distribution": "textgen-odd", "version": "2.1"}


@attrs.frozen
class Fixed:
    """A corpus of one text."""

    text: str

    def read(self):
        yield self.text


def corpus(text, name="fixed"):
    """A plugin with a corpus, as the cell of a notebook defines it."""
    return plugin_of(corpus=[Component(name, NoOptions, lambda config, context: Fixed(text))])


def text_of(plugins):
    return "".join(textgen.Engine(plugins).read_corpus({"type": "fixed"}))


def build(config, context):
    return lambda logits, history: logits


def config(doc="Odd.", annotation=float, **options):
    """A config class with these options, of one type."""
    typed = {} if annotation is None else dict.fromkeys(options, annotation)
    made = type("Config", (), {"__annotations__": typed, "__doc__": doc, **options})
    return attrs.frozen(these=options)(made) if annotation is None else attrs.frozen(made)


def sampler(*, name="odd", config=NoOptions, build=build):
    return plugin_of(sampler=[Component(name, config, build)])


def argument(*names):
    """A plugin whose options have these names in requests."""
    options = {f"option_{i}": option(1.0, help="x", argument=n) for i, n in enumerate(names)}
    return sampler(config=config(**options))


def wanting(config):
    return []


def hook(value=None, **options):
    """A hook that returns a value, or what a function returns."""
    return hookimpl(**options)(lambda: value() if callable(value) else value)


UNFIT = [
    (5, "there is no hook in it, marked with @textgen.hookimpl"),
    (SimpleNamespace(textgen_samplers=list), "there is no hook in it, marked with"),
    (
        SimpleNamespace(textgen_sampler=hook([])),
        "there is no hook 'textgen_sampler'; there are textgen_corpora, textgen_tokenizers, ",
    ),
    (SimpleNamespace(textgen_samplers=hookimpl(wanting)), "hookimpl definition: wanting(con"),
    (SimpleNamespace(textgen_samplers=hook(wrapper=True)), "not a generator"),
    (SimpleNamespace(textgen_models=hook()), "returned NoneType"),
    (SimpleNamespace(textgen_models=hook([5])), "and returned int"),
    (SimpleNamespace(textgen_models=hook(lambda: 1 / 0)), "ZeroDivisionError"),
    (sampler(name="No Name"), "a name is lower-case words joined by hyphens"),
    (sampler(config={}), "config must be an attrs class, and is {}"),
    (sampler(config=config(size=option(1, help="x"), annotation="Sise")), "'Sise' is not defined"),
    (
        sampler(config=config(size=option(1, help="x"), annotation=None)),
        "its option 'size' has no type",
    ),
    (sampler(config=config(type=option(1.0, help="x"))), "its option 'type' cannot be set"),
    (sampler(config=config(size=option("1", help="x"))), "size: expected a finite number, given "),
    (sampler(config=config(size=option(0.0, help="x", validator=gt(0)))), "size: must be > 0"),
    (argument("steady penalty"), "'steady penalty' of its option 'option_0' is taken, or is not"),
    (argument("_steady"), "'_steady' of its option"),
    (argument("seed"), "'seed' of its option"),
    (argument("odd_one", "odd_one"), "'odd_one' of its option 'option_1'"),
]


@pytest.mark.fault(27)
@pytest.mark.fault(29)
@pytest.mark.parametrize(("module", "cause"), UNFIT, ids=[cause for _, cause in UNFIT])
def test_an_unfit_plugin_is_named_with_the_cause_and_leaves_nothing(module, cause):
    plugins = PluginSet()
    plugins.register(sampler(name="fine"), "fine")
    with pytest.raises(textgen.PluginError) as caught:
        plugins.register(module, "odd", **ODD)
    error = caught.value
    assert error.plugin == Plugin("odd", "textgen-odd", "2.1")
    assert cause in error.cause
    assert "\n" not in error.cause
    assert [offer.name for offer in plugins.offers()] == ["fine"]


def test_what_looks_odd_and_fits_is_taken():
    plugins = PluginSet()
    for number, module in enumerate((argument("", "odd_2"), sampler(), corpus("a"))):
        plugins.register(module, f"odd-{number}", distribution=f"odd-{number}")
    assert len(plugins.offers()) == 3


def test_the_names_that_requests_take_are_all_known():
    many = inspect.signature(textgen.Generator.generate_many).parameters.keys()
    own = {*attrs.fields_dict(textgen.RequestOptions), "prompt", "cancelled", "state", "strategy"}
    assert set(REQUEST_OPTIONS) == (own | many) - {"self", "options"}
    options = PluginSet.discover().sampling_options()
    sampling = {name for name, takers in options.items() if takers[0].is_built_in}
    assert not own & sampling
    assert textgen.RequestKeywords.__annotations__.keys() == own - {"prompt"} | sampling


def test_no_plugin_takes_the_place_of_another():
    plugins = PluginSet()
    plugins.register(corpus("first"), "notebook")
    for name in ("notebook", "another"):
        with pytest.raises(textgen.PluginError, match="'fixed'") as caught:
            plugins.register(corpus("second"), name)
        assert caught.value.plugin.name == name
    assert text_of(plugins) == "first"
    assert [offer.qualified_name for offer in plugins.offers()] == ["unpackaged:fixed"]


def test_a_distribution_has_many_spellings():
    plugins = PluginSet()
    plugins.register(corpus("first"), "notebook", distribution="My_Notebook")
    for name in ("My_Notebook:fixed", "my-notebook:fixed"):
        assert plugins.find("corpus", name).name == "fixed"


@pytest.mark.fault(28)
def test_neither_of_two_packages_wins_a_name_and_a_built_in_keeps_its_own():
    plugins = PluginSet.discover()
    for package in ("textgen-one", "textgen-two"):
        both = [Component(name, NoOptions, build) for name in ("loud", "greedy")]
        plugins.register(plugin_of(sampler=both), "it", distribution=package)
    clash = plugins.find("sampler", "loud")
    assert clash.hint == "write 'textgen-one:loud' or 'textgen-two:loud'"
    for name, distribution in (
        ("textgen-two:loud", "textgen-two"),
        ("Textgen_One:greedy", "textgen-one"),
        ("greedy", "textgen-engine"),
    ):
        assert plugins.find("sampler", name).distribution == distribution


def test_engines_with_different_plugins_do_not_meet(tiny_pipeline):
    tables = tiny_pipeline(sampler=[{"type": "odd"}])
    assert (
        engine_of(sampler=lambda context: build).pipeline(tables).sampler[0].name
        == "textgen-odd:odd"
    )
    without = textgen.Engine(PluginSet.discover(disable=["sgd"]))
    with pytest.raises(textgen.PipelineError) as caught:
        without.pipeline(tables)
    assert {fault.path for fault in caught.value.faults} == {"sampler.0.type", "trainer.type"}


def test_a_name_with_its_package_is_the_same_run(tiny_pipeline):
    tables = tiny_pipeline()
    run = textgen.run(tables)
    assert run.generator.record["fingerprint"]["model"]["type"] == "rnn"
    for kind in ("tokenizer", "model", "trainer", "corpus"):
        tables[kind]["type"] = f"textgen-engine:{tables[kind]['type']}"
    assert textgen.run(tables).outcome == "skipped"


@pytest.mark.parametrize("chain", [[], ["odd"], ["top-k", "odd"]])
def test_an_option_that_several_samplers_take_is_the_chains_own(chain, tiny_pipeline):
    @attrs.frozen
    class Only:
        """Leaves one token possible."""

        token: int = option(3, help="which one", argument="top_k")

        def __call__(self, logits, history):
            kept = logits - float("inf")
            kept[:, self.token] = 0.0
            return kept

    engine = engine_of(sampler=[Component("odd", Only, lambda config, context: config)])
    run = engine.run(tiny_pipeline(sampler=[{"type": name} for name in chain]))
    drawn = set(run.generator.generate("the ", max_new_tokens=8, top_k=5).tokens)
    assert (drawn == {5}) is bool(chain)  # the built-in one joins an empty chain


def test_of_two_plugins_neither_gets_an_option_that_the_chain_lacks(tiny_pipeline):
    plugins = PluginSet.discover()
    for name in ("one", "two"):
        options = config(token=option(1.0, help="x", argument="that_token"))
        plugins.register(sampler(name=name, config=options), name, distribution=f"textgen-{name}")
    with pytest.raises(textgen.UsageError) as caught:
        textgen.Engine(plugins).run(tiny_pipeline()).generator.generate("the ", that_token=5)
    assert caught.value.argument == "that_token"
    assert "textgen-one:one and textgen-two:two" in str(caught.value)


def test_hooks_of_a_newer_textgen_are_left_out_alone():
    offered = sampler()
    for options, said in (
        ({}, "'textgen_exporters'"),
        ({"optionalhook": True}, ""),
    ):
        offered.textgen_exporters = hook([], **options)
        plugins = PluginSet()
        with pytest.warns(PluginWarning, match=said) if said else contextlib.nullcontext():
            plugins.register(offered, "newer")
        assert [offer.name for offer in plugins.offers("sampler")] == ["odd"]
