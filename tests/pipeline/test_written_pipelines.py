"""Pipelines that are shown and saved, and what of them holds for the process."""

import threading
from concurrent.futures import ThreadPoolExecutor

from textgen import run


def test_show_prints_a_pipeline_with_every_default_that_shows_as_itself(
    textgen,
    tiny_pipeline,
    write_pipeline,
    tmp_path,
    engine,
):
    generate = {"prompt": 'a "b" \\ ü\n', "strategy": "beam"}
    tables = tiny_pipeline(generate=generate, sampler=[{"type": "temperature"}], observers=True)
    pipeline = write_pipeline(tables)
    shown = textgen("show", pipeline, "--set", "trainer.length=5 epochs", cwd=tmp_path)
    assert (shown.code, shown.stderr) == (0, "")
    assert '\nlength = "5 epochs"\n' in shown.stdout
    assert "# window_stride = an integer; not set\n" in shown.stdout
    (tmp_path / "shown.toml").write_text(shown.stdout, encoding="utf-8")
    again = textgen("show", "shown.toml", cwd=tmp_path)
    assert again.stdout == shown.stdout
    expected = engine.pipeline(pipeline, ["trainer.length=5 epochs"]).to_dict()
    assert engine.pipeline(tmp_path / "shown.toml").to_dict() == expected


def test_the_saved_pipeline_is_the_same_run(textgen, tiny_pipeline, write_pipeline, tmp_path):
    pipeline = write_pipeline(tiny_pipeline(seed=3, generate={"prompt": "the "}))
    first = run(pipeline)
    assert first.outcome == "trained"
    saved = first.path / "pipeline.toml"
    again = textgen("run", saved, cwd=tmp_path)
    assert (again.code, again.stdout) == (0, f"{first.generations[0]}\n")
    assert f"skipped: {first.path}" in again.stderr
    elsewhere = run(saved, output=tmp_path / "elsewhere")
    assert elsewhere.outcome == "trained"
    for name in ("model.safetensors", "tokenizer.json", "pipeline.toml"):
        assert (elsewhere.path / name).read_bytes() == (first.path / name).read_bytes()
    assert elsewhere.generations == first.generations


def test_runs_at_once_have_their_threads_and_put_back_those_that_there_were(
    tmp_path, tiny_pipeline
):
    """The second begins within the first, and ends after it."""
    import torch

    def count():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    tables, before, seen = tiny_pipeline(), count(), set()
    begun, left, second = threading.Event(), threading.Event(), []

    def within_second(event):
        seen.add(torch.get_num_threads())
        begun.set()
        left.wait(60)

    def within_first(event):
        seen.add(torch.get_num_threads())
        if not second:
            made = {**tables, "threads": before + 1, "output": str(tmp_path / "2")}
            second.append(pool.submit(run, made, observers=[within_second]))
            begun.wait(60)

    with ThreadPoolExecutor(1) as pool:
        run({**tables, "threads": before + 2}, observers=[within_first])
        left.set()
        assert second[0].result().outcome == "trained"
    assert (count(), seen) == (before, {before + 1, before + 2})
