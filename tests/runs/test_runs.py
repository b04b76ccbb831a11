"""Running from a program: what `run` and `load` take and refuse, what they leave, and who may call
them at once.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest
from raising import raises
from small_run import record_of, tree

import textgen
from textgen import Engine, PipelineError, RunError, UsageError


def test_a_finished_run_is_skipped_by_many_at_once(tmp_path, tiny_pipeline):
    first = textgen.run(tiny_pipeline())
    before = tree(tmp_path)
    barrier = threading.Barrier(6)

    def again(_):
        barrier.wait(60)
        return textgen.run(first.path / "pipeline.toml")

    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(again, range(6)))
    assert {run.outcome for run in runs} == {"skipped"}
    assert all(run.generations == first.generations for run in runs)
    assert tree(tmp_path) == before, "it was only to be read"


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        (
            {"sampler": [{"type": "greedy"}, {"type": "logit-bias", "bias": {"the": 1.0}}]},
            {"argument": "sampler.1.bias"},
        ),
        ({"generate": {"stop_tokens": [999]}}, {"argument": "stop_tokens"}),
        ({"generate": {"prompt": "é"}}, {"characters": ("é",)}),
        (
            {"corpus": {"type": "file", "path": "missing.txt"}},
            {"path": Path("missing.txt").absolute()},
        ),
    ],
    ids=["sampler", "stop-tokens", "prompt", "corpus"],
)
def test_what_is_refused_leaves_nothing_behind(tmp_path, tiny_pipeline, changes, facts):
    with raises(textgen.TextgenError, **facts):
        textgen.run(tiny_pipeline(**changes))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]


def test_a_checked_pipeline_takes_no_overrides(tiny_pipeline):
    pipeline = Engine().pipeline(tiny_pipeline())
    assert Engine().pipeline(pipeline) is pipeline
    with raises(UsageError, argument="overrides"):
        Engine().pipeline(pipeline, ["trainer.length=2 epochs"])
    with raises(UsageError, argument="overrides"):
        Engine().pipeline(tiny_pipeline(), "seed=1")
    with raises(PipelineError, source="overrides"):
        Engine().pipeline(tiny_pipeline(), [5])


def test_load_refuses_what_it_cannot_mean(finished_run):
    for device in (None, 3, "gpu"):
        with pytest.raises(textgen.DeviceError):
            textgen.load(finished_run, device=device)
    for given in ({"model": 3}, {"tokenizer": []}, {"corpus": 4}):
        with raises(UsageError, argument=next(iter(given))):
            textgen.load(finished_run, **given)


def test_a_generator_knows_where_it_came_from_wherever_the_program_goes(
    tmp_path, tiny_pipeline, monkeypatch
):
    textgen.run(tiny_pipeline(corpus={"path": str(tmp_path / "run/../corpus.txt")}))
    monkeypatch.chdir(tmp_path)
    generator = textgen.load("run")
    monkeypatch.chdir("/")
    assert generator.path == tmp_path / "run"
    assert generator.tables["corpus"]["path"] == str(tmp_path.resolve() / "corpus.txt")
    assert generator.copy_finder().report("the ").tokens == 4


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_to_is_skipped_and_indexed(tiny_pipeline):
    run = textgen.run(tiny_pipeline()).path
    for folder in (run, run / "checkpoints"):
        folder.chmod(0o555)
    try:
        again = textgen.run(tiny_pipeline())
        assert again.outcome == "skipped"
        assert again.generator.copy_finder().report("the ").tokens == 4
    finally:
        run.chmod(0o755)


def test_what_is_no_run_directory_is_told_apart(tmp_path):
    (tmp_path / "a.toml").write_text("")
    (tmp_path / "runs/my").mkdir(parents=True)
    (tmp_path / "runs/my/run.json").write_text("{}")
    whys = {"a.toml": "it has no run.json", "none": "it does not exist", ".": "it has no run.json"}
    whys["runs"] = "it has no run.json; it holds the runs my"
    for path, why in whys.items():
        for use in (textgen.load, textgen.summarize):
            with raises(RunError, path=tmp_path / path) as caught:
                use(tmp_path / path)
            assert why in str(caught.value)


def test_the_versions_that_decide_the_numbers_are_recorded(finished_run):
    names = ("textgen-engine", "numpy", "torch")
    versions = {name: metadata.version(name) for name in names}
    assert record_of(finished_run)["environment"].items() >= versions.items()


def test_the_generate_table_holds_for_the_generator(tiny_pipeline):
    table = {"prompt": "the ", "max_new_tokens": 20, "seed": 5, "stop": ["q"], "n": 2}
    run = textgen.run(tiny_pipeline(generate=table))
    generator = textgen.load(run.path)
    for index, made in enumerate(run.generations):
        assert generator.generate("the ", index=index) == made
    assert len(generator.generate("the ", stop=None, max_new_tokens=30).tokens) == 30
