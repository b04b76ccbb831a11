"""Components with an option that is another run."""

from __future__ import annotations

import re
import shutil
from typing import Any

import attrs
import pytest
import tomli_w
from components import plugin_of
from small_run import record_of, tables

import textgen
from textgen import Component, NoOptions, option
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
    with pytest.raises(textgen.RunMismatchError, match=r"trainer\.teacher\.model\.safetensors"):
        plugins.engine.run(taught(folder, str(moved)), output=run.path)


@pytest.mark.parametrize(
    ("teacher", "cause"),
    [
        ("runs/none", "is not a run directory: it does not exist"),
        ("runs", "it holds the runs base"),
    ],
)
def test_a_run_that_cannot_be_used_is_named_with_component_and_key(folder, base, teacher, cause):
    (folder / "p.toml").write_text(tomli_w.dumps(taught(folder, teacher)))
    said = rf"trainer\.teacher: {re.escape(str(folder / teacher))}.*{cause}"
    with pytest.raises(textgen.RunError, match=said):
        Plugins().engine.run(folder / "p.toml", output=folder / "made")
    assert not (folder / "made").exists()


def test_a_run_that_is_not_finished_is_refused(folder, base):
    with pytest.raises(textgen.Interrupted):
        textgen.run(tables(folder), output=folder / "part", cancelled=lambda: True)
    with pytest.raises(textgen.RunError, match=r"trainer\.teacher: .*is not finished"):
        Plugins().engine.run(taught(folder, str(folder / "part")), output=folder / "made")


def test_a_sampler_is_given_one_generator_in_the_chain_and_in_requests(folder, base):
    plugins = Plugins()
    chain = [{"type": "beside", "other": str(base)}]
    run = plugins.engine.run(taught(folder, str(base), sampler=chain), output=folder / "made")
    assert len(plugins.given) > 1
    assert len(set(map(id, plugins.given))) == 1, "which is loaded once"
    plugins.given.clear()
    with plugins.engine.load(run.path) as generator:
        generator.generate("Once", beside=str(base), max_new_tokens=3)
        plain = plugins.engine.load(base).generate("Once", beside=str(run.path), max_new_tokens=3)
        assert plain.text == textgen.load(base).generate("Once", max_new_tokens=3).text
    assert [each.path for each in plugins.given] == [base, base, base, run.path]
    assert plugins.given[0] is plugins.given[1] is not plugins.given[2]
