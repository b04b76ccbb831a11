"""A text and a pipeline that trains in a second, how its run is stopped, and what is left of it."""

import itertools
import json

import pytest

import textgen

TEXT = "".join(
    f"Once {n} ravens flew over {n * n % 7} hills, and none came back.\n" for n in range(60)
)
PIPELINE = """
seed = 3
device = "cpu"
[corpus]
type = "file"
path = "text.txt"
[tokenizer]
type = "char"
[data]
window_length = 16
[model]
type = "rnn"
cell = "gru"
hidden_size = 12
[trainer]
type = "adamw"
length = "2 epochs"
batch_size = 32
[generate]
prompt = "Once"
max_new_tokens = 40
"""

ENDLESS = (
    "run",
    "p.toml",
    "--set",
    "trainer.length=100000 epochs",
    "--set",
    "trainer.evaluate_every=1",
)
"""A command that says each step, and does not end by itself."""


def prepare(folder):
    """A text and a pipeline for it in `folder`."""
    (folder / "text.txt").write_text(TEXT)
    (folder / "p.toml").write_text(PIPELINE)
    return folder


TRAINERS = {
    "sgd": {"type": "sgd", "momentum": 0.9, "learning_rate": 0.5},
    "adamw": {"type": "adamw", "warmup_steps": 3},
}


def tables(folder, trainer="sgd", order="shuffled", **model):
    """A pipeline for the text in `folder`."""
    return {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(folder / "text.txt")},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8, "dropout": 0.3, **model},
        "trainer": {
            **TRAINERS[trainer],
            "length": "2 epochs",
            "batch_size": 48,
            "order": order,
            "evaluate_every": 2,
        },
        "observer": [{"type": "metrics"}, {"type": "samples", "characters": 10}],
        "generate": {"max_new_tokens": 40, "n": 2},
    }


OTHER = TEXT.replace("ravens", "hens").replace("hills", "lakes")


def tuned(folder, **changes):
    """A pipeline that trains on the other text from there on, and says nothing of model and
    tokenizer.
    """
    made = tables(folder, "adamw")
    del made["tokenizer"]
    made["corpus"]["path"] = str(folder / "other.txt")
    return {**made, "model": {"start": str(folder / "runs/base")}, "observer": [], **changes}


def interrupt(steps, pipeline, *overrides, **options):
    """Run a pipeline, and stop it after so many steps."""
    asked = itertools.count(1)
    with pytest.raises(textgen.Interrupted):
        textgen.run(pipeline, *overrides, cancelled=lambda: next(asked) == steps, **options)


def record_of(run):
    return json.loads((run / "run.json").read_text())


def tree(folder):
    """Every file under `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def text_of(run):
    return textgen.load(run).generate("Once", max_new_tokens=30).text


def assert_same(run, other):
    """Both have the same weights, texts and measurements, but for what the clock says."""
    names = ("model.safetensors", "tokenizer.json", "samples.txt", "trainer.safetensors")
    ours, theirs = (
        {name: found for name, found in tree(path).items() if name.endswith(names)}
        for path in (run, other)
    )
    assert ours == theirs
    assert measured(run) == measured(other)


def measured(run):
    clock = ("seconds", "characters_per_second")
    return [
        {key: value for key, value in row.items() if key not in clock}
        for row in textgen.summarize(run).metrics()
    ]


def flip(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
