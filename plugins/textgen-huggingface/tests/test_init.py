"""The command init where a plugin offers a transformer, and with the path of one."""

import re
import shutil
import tomllib
from importlib.util import find_spec

import pytest

import textgen

OFFERS = """
from pathlib import Path
from textgen import Component, NoOptions, hookimpl
from textgen_huggingface.plugin import offered

@hookimpl
def textgen_runs():
    model, no_file = (Path(__file__).with_name(name) for name in ("model", "nothing"))
    huge = {**offered(no_file), "parameters": 10**12}
    tiny = {**offered(model), "parameters": 10**5}
    made = {"tiny": lambda config, context: tiny, "huge": lambda config, context: huge}
    return [Component(name, NoOptions, build) for name, build in made.items()]
"""
OTHERS = tuple(
    f"--no-plugin={name}"
    for name in ("textgen-english", "textgen-smollm2")
    if find_spec(name.replace("-", "_"))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_pipeline, command):
    """A folder with `model`, a small Llama that knows `my.txt`, and a plugin that offers it."""
    folder = tmp_path_factory.mktemp("init")
    pipeline = make_pipeline("llama")
    pipeline["model"]["config"] = {**pipeline["model"]["config"], "max_position_embeddings": 256}
    pipeline["trainer"]["length"] = "20 epochs"
    textgen.run({**pipeline, "observer": []}, output=folder / "run")
    assert command("huggingface-export", folder / "run", folder / "model").returncode == 0
    shutil.copy(pipeline["corpus"]["path"], folder / "my.txt")
    (folder / "offers.py").write_text(OFFERS)
    return folder


def init(command, folder, *options, text="my.txt"):
    file, plugin = folder / "my.toml", f"--plugin={folder / 'offers.py'}"
    done = command(
        plugin,
        *OTHERS,
        "init",
        folder / text,
        "--pipeline",
        file,
        "--documents",
        "none",
        *options,
    )
    assert done.returncode == 0, done.stderr
    return tomllib.loads(file.read_text(encoding="utf-8")), file.read_text(encoding="utf-8")


def test_init_tunes_an_offered_transformer_as_its_tables_say(command, folder):
    made, written = init(command, folder, "--minutes", 5, "--force", "--start", "tiny")
    assert made["model"] == {"start": "tiny", "lora": {"rank": 2, "alpha": 32}}
    trainer = made["trainer"]
    assert (trainer["length"], made["data"]["window_length"]) == ("3 epochs or 300s", 256)
    assert trainer["average_share"] > 0  # a mean
    assert trainer["decay_share"] > 0  # at a rate that falls
    assert [each["type"] for each in made["sampler"]] == ["penalties", "min-p", "temperature"]
    assert "tokenizer" not in made
    assert "seconds a pass" in written
    plugin = f"--plugin={folder / 'offers.py'}"
    assert command(plugin, "show", folder / "my.toml").returncode == 0


def test_a_short_text_gets_windows_that_its_last_tenth_has(command, folder):
    text = (folder / "my.txt").read_text(encoding="utf-8")
    (folder / "short.txt").write_text(text[:2000], encoding="utf-8")
    start = ("--start", folder / "model")
    made, _ = init(command, folder, "--minutes", 5, "--force", *start, text="short.txt")
    made["trainer"]["length"] = "1 step"
    made["corpus"]["path"] = str(folder / "short.txt")
    assert textgen.run(made, output=folder / "short").best_loss > 0


def test_init_takes_no_start_that_there_is_no_time_for(command, folder):
    text = (folder / "my.txt").read_text(encoding="utf-8")
    (folder / "long.txt").write_text(text * 500, encoding="utf-8")  # no machine reads it in seconds
    made, written = init(command, folder, "--minutes", 0.05, "--force", text="long.txt")
    assert "start" not in made["model"]
    assert "from tiny (needs " in written
    assert "from huge (needs " in written  # without being loaded, or it would be left out
    file = folder / "other.toml"
    done = command(
        *OTHERS, "init", folder / "long.txt", "--pipeline", file, "--minutes", 0.05,
        "--start", folder / "model",
    )  # fmt: skip
    assert (done.returncode, file.exists()) == (2, False)
    assert "give at least --minutes" in done.stderr


def test_init_says_how_long_it_tries_a_start_and_tries_none_that_the_minutes_cannot_pay(
    command, folder
):
    plugin = f"--plugin={folder / 'offers.py'}"
    asked = (plugin, *OTHERS, "init", folder / "my.txt", "--pipeline", folder / "asked.toml")
    done = command(*asked, "--minutes", 5, "--force", "--start", "tiny")
    assert re.search(r"trying tiny on a sample of the text, \d+ seconds", done.stderr)
    done = command(*asked, "--minutes", 5, "--force", "--start", "huge")
    assert (done.returncode, "trying" in done.stderr) == (2, False)
    assert "give at least --minutes" in done.stderr


def test_init_starts_from_a_folder_and_a_run_of_its_pipeline_trains(command, folder):
    made, _ = init(command, folder, "--minutes", 5, "--force", "--start", folder / "model")
    model = str(folder / "model")
    assert made["model"] == {
        "type": "huggingface",
        "path": model,
        "lora": {"rank": 2, "alpha": 32},
    }
    assert made["tokenizer"] == {"type": "huggingface-tokenizer", "path": model}
    made["trainer"]["length"] = "1 step"
    made["corpus"]["path"] = str(folder / "my.txt")
    assert textgen.run(made, output=folder / "tuned").best_loss > 0
    done = command("init", folder / "my.txt", "--start", folder / "run.txt", "--force")
    assert done.returncode == 2
    done = command("init", folder / "my.txt", "--start", folder / "my.txt", "--force")
    assert (done.returncode, "neither a GGUF file" in done.stderr) == (2, True)
