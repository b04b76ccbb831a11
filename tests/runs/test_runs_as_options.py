"""Components with an option that is another run, and samplers that reach the model of their own."""

import asyncio
import shutil
from typing import Any

import attrs
import numpy as np
import pytest
import tomli_w
from components import engine_of, plugin_of
from raising import raises
from small_run import TEXT, record_of, tables

import textgen
from textgen import Component, NoOptions, option
from textgen.events import Evaluation
from textgen.gradient import GradientOptions, GradientTrainer


@attrs.frozen(kw_only=True)
class Taught(GradientOptions):
    """Plain descent, beside a teacher."""

    teacher: Any = option(kind="run", help="a run")


@attrs.frozen
class Beside:
    """Leaves the logits as they are, beside another run."""

    other: Any = option(None, kind="run", help="a run", argument="beside")


class Plugins:
    """An engine whose components say which generators they were given."""

    def __init__(self, **runs):
        self.given: list[textgen.Generator] = []
        plugins = textgen.PluginSet.discover()
        plugins.register(
            plugin_of(
                trainer=[Component("taught", Taught, self.trainer)],
                sampler=[Component("beside", Beside, self.sampler)],
                run=[
                    Component(name, NoOptions, lambda config, context, path=path: path)
                    for name, path in runs.items()
                ],
            ),
            "taught",
        )
        self.engine = textgen.Engine(plugins)

    def trainer(self, config, context):
        import torch

        self.given.append(context.build(config.teacher))
        return GradientTrainer(config, lambda weights: torch.optim.SGD(weights, lr=0.1))

    def sampler(self, config, context):
        self.given.append(context.build(config.other))
        return lambda logits, history: logits


@pytest.fixture
def base(finished):
    return finished.rename(finished.parent / "base")


def taught(folder, teacher, **more):
    trainer = {"type": "taught", "length": "2 steps", "teacher": teacher}
    return {**tables(folder), "trainer": trainer, "observer": [], **more}


def test_a_run_is_given_by_its_path_or_name_and_determines_the_other(folder, base):
    plugins = Plugins(tiny=base)
    (folder / "p.toml").write_text(tomli_w.dumps(taught(folder, "runs/base")))
    run = plugins.engine.run(folder / "p.toml", output=folder / "made")
    assert [each.path for each in plugins.given] == [base]
    assert run.generator.tables["trainer"]["teacher"] == str(base)
    files = record_of(base)["files"]
    kept = record_of(run.path)["fingerprint"]["trainer"]["teacher"]
    assert kept == {name: files[name] for name in ("model.safetensors", "tokenizer.json")}
    moved = base.rename(folder / "moved")
    for same in ("tiny", str(moved), str(base)):  # of which the last is gone
        assert Plugins(tiny=moved).engine.run(taught(folder, same), output=run.path).outcome == (
            "skipped"
        )
    shutil.rmtree(moved)
    textgen.run({**tables(folder), "seed": 1}, output=moved)
    with pytest.raises(textgen.RunMismatchError) as caught:
        plugins.engine.run(taught(folder, str(moved)), output=run.path)
    keys = [each.key for each in caught.value.differences]
    assert "trainer.teacher.model.safetensors" in keys


@pytest.mark.parametrize(
    ("teacher", "cause"),
    [
        ("runs/none", "is not a run directory: it does not exist"),
        ("runs", "it holds the runs base"),
    ],
)
def test_a_run_that_cannot_be_used_is_named_with_component_and_key(folder, base, teacher, cause):
    (folder / "p.toml").write_text(tomli_w.dumps(taught(folder, teacher)))
    with raises(textgen.RunError, path=folder / teacher) as caught:
        Plugins().engine.run(folder / "p.toml", output=folder / "made")
    assert "trainer.teacher: " in str(caught.value)
    assert cause in str(caught.value)
    assert not (folder / "made").exists()


def test_a_run_that_is_not_finished_is_refused(folder, base):
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables(folder), output=folder / "part", cancelled=lambda: True)
    with raises(textgen.RunError, path=folder / "part") as caught:
        Plugins().engine.run(taught(folder, str(folder / "part")), output=folder / "made")
    assert "trainer.teacher: " in str(caught.value)


def test_a_sampler_is_given_one_generator_in_the_chain_and_in_requests(folder, base):
    plugins = Plugins()
    chain = [{"type": "beside", "other": str(base)}]
    run = plugins.engine.run(taught(folder, str(base), sampler=chain), output=folder / "made")
    trainers, samplers, loaded = plugins.given
    assert trainers is samplers is not loaded, "once for a training, and once for a generator"
    plugins.given.clear()
    with plugins.engine.load(run.path) as generator:
        generator.generate("Once", beside=str(base), max_new_tokens=3)
        plain = plugins.engine.load(base).generate("Once", beside=str(run.path), max_new_tokens=3)
        assert plain.text == textgen.load(base).generate("Once", max_new_tokens=3).text
    assert [each.path for each in plugins.given] == [base, base, base, run.path]
    assert plugins.given[0] is plugins.given[1] is not plugins.given[2]


def test_a_sampler_reaches_the_model_whose_logits_it_sees(folder):
    """While a run trains, after it with the best weights, and loaded; whichever way it writes."""
    models = []

    def build(context):
        def compare(logits, history):
            models.append(context.model)
            for row, seen in enumerate(logits):
                (own,) = context.model.decoder(1).extend(history.tokens(row)[None])
                known = np.isfinite(seen)  # the others are forbidden
                np.testing.assert_allclose(own[known], seen[known], rtol=1e-3, atol=1e-3)
            return logits

        return compare

    def reached():
        """How many calls there were, each of which compared."""
        assert len(set(map(id, models))) == 1
        calls = len(models)
        models.clear()
        return calls

    (folder / "text.txt").write_text(TEXT.replace("\n", " "))  # of which texts begin after nothing
    engine, odd = engine_of(sampler=build), {"type": "textgen-odd:odd"}
    pipeline = {**tables(folder), "sampler": [odd], "data": {"window_length": 16}}
    pipeline["trainer"]["learning_rate"], written = 6.0, []

    def write(event):
        if isinstance(event, Evaluation):
            written.append(event.sample("Once", 5))
            assert reached() >= 5

    run = engine.run(pipeline, output=folder / "made", observers=[write])
    record = record_of(run.path)
    assert record["best_step"] < record["step"], "so that the weights are not those of the end"
    assert len(set(written)) > 1
    assert reached() >= 40, "the texts of the run"
    with engine.load(run.path) as generator:
        asked = {"max_new_tokens": 20, "index": 3}
        text = generator.generate("Once", **asked).text
        ways = [
            "".join(generator.stream("Once", **asked)),
            asyncio.run(generator.agenerate("Once", **asked)).text,
            [*generator.generate_many(["a", {"prompt": "Once", **asked}, ""], max_new_tokens=20)][
                1
            ].text,
        ]
        assert ways == [text] * 3
        half = generator.generate("Once", **{**asked, "max_new_tokens": 8, "keep_state": True})
        assert half.text + generator.generate(state=half.state, max_new_tokens=12).text == text
        assert generator.generate("Once", beams=3, **asked).ranked
        assert reached() >= 100
