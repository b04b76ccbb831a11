"""Pipelines that are wrong, overrides, and `textgen show`."""

import tomllib

import pytest

from textgen import PipelineError
from textgen.pipeline.pipeline import CHOICES

BASE = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn"},
    "trainer": {"type": "sgd"},
}


def changed(path, value):
    """BASE with another value at a dotted path."""
    table, _, key = path.rpartition(".")
    return BASE | ({table: {**BASE.get(table, {}), key: value}} if table else {key: value})


def faults(engine, source, overrides=()):
    with pytest.raises(PipelineError) as caught:
        engine.pipeline(source, overrides)
    assert caught.value.exit_code == 2
    return caught.value.faults


# Files --------------------------------------------------------------------------------------------


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'seed = 1\n[corpus]\ntype = "story\n', ": not valid TOML: "),
        (b"a = 1\r\nb = = 2\r\n", ": not valid TOML: "),
        (b"seed = 1 # \xff", ": not valid TOML: 'utf-8' codec can't decode byte"),
        pytest.param(b"a = " + b"[" * 100_000, ": not valid TOML: ", id="deep"),
        pytest.param(  # tomllib alone takes half a minute
            b"a." * 40_000 + b"a = 1", ": a key has more than 64 parts", id="dotted"
        ),
        pytest.param(b" " * 1_000_001, ": it has more than 1,000,000 bytes", id="large"),
        (b"seed = " + b"9" * 5000, ": not valid TOML: "),
        (None, ": cannot be read: "),
    ],
)
def test_a_file_that_is_no_toml_is_one_line_with_its_place(engine, tmp_path, data, said):
    path = tmp_path / "bad.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(PipelineError) as caught:
        engine.pipeline(path)
    assert str(caught.value).startswith(f"{path}{said}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_byte_order_mark_crlf_and_any_name_are_fine(engine, tmp_path):
    lines = [f"[{key}]\r\ntype = '{table['type']}'" for key, table in BASE.items()]
    for stem, name in {
        "my*run": "my-run",
        "Tom & Ada (1)": "Tom-Ada-1",
        "..": "pipeline",
        "A b.c": "A-b.c",
    }.items():
        path = tmp_path / f"{stem}.toml"
        path.write_bytes("\r\n".join(["\ufeffseed = 3", *lines]).encode())
        assert (engine.pipeline(path).seed, engine.pipeline(path).output.name) == (3, name)


# Keys and values ----------------------------------------------------------------------------------


def rows_of(table):
    """The key, value and message of each line KEY = VALUE | MESSAGE."""
    for line in table.strip().splitlines():
        setting, _, said = line.partition(" | ")
        key, _, value = setting.partition(" = ")
        yield key, tomllib.loads(f"it = {value}")["it"], said


FAULTS = """
trainer.lenght = 3 | unknown key; did you mean 'length'?
model.zzz = 3 | unknown key; there are cell,
corpus.x = 1 | unknown key; there are none
data.window_lenght = 3 | did you mean 'window_length'?
temperature = 3 | it is an option of the sampler 'temperature'
generate.top_k = 3 | it is an option of the sampler 'top-k'
model.type = "rrn" | no model is called 'rrn'; did you mean 'rnn'?
corpus.type = "zzz" | there are file, story, time-machine
model.type = "nobody:rnn" | no model is called 'nobody:rnn'
trainer.batch_size = "12" | expected an integer, given "12"
trainer.batch_size = 12.0 | expected an integer, given 12.0
trainer.batch_size = true | expected an integer, given true
trainer.batch_size = [1] | expected an integer, given [1]
trainer.batch_size = {} | expected an integer, given {}
trainer.batch_size = 2020-01-02 | expected an integer, given "2020-01-02"
tokenizer.lower_case = "false" | expected true or false, given
tokenizer.lower_case = 0 | expected true or false, given 0
trainer.learning_rate = "x" | expected a finite number
trainer.learning_rate = false | given false
generate.prompt = 5 | expected a string, given 5
generate.stop = 5 | expected a string or a list, each a string, given 5
generate.stop = ["a", 5] | expected a string or a list
model.cell = "lstn" | expected one of "rnn", "gru", "lstm", given "lstn"
data.window_stride = "1" | expected an integer
model = 3 | expected a table with type = one of mixture, ngram, rnn, given 3
data = 3 | expected a table, given 3
output = 5 | expected a path, given 5
output = "~nobody-of-that-name/x" | expected a path
device = "gpu" | must be "auto", "cpu", "cuda", "cuda:N" or "mps", given "gpu"
trainer.batch_size = 0 | must be >= 1, given 0
trainer.batch_size = -1000000000000000000000000000000 | an integer of at most 64 bits
trainer.learning_rate = nan | expected a finite number
trainer.learning_rate = inf | expected a finite number
trainer.learning_rate = 0 | must be > 0, given 0
trainer.momentum = 1.0 | must be < 1, given 1.0
data.window_stride = 0 | must be >= 1, given 0
data.validation = 1.5 | must be a share below 1, or a whole number
data.windows = [1, -1] | must be >= 0: -1
seed = -1 | must be >= 0, given -1
seed = 18446744073709551616 | expected an integer of at most 64 bits, given 18446744073709551616
generate.seed = -5 | must be >= 0, given -5
generate.max_new_tokens = 1000000000000 | must be <= 1000000000
generate.n = 0 | must be >= 1, given 0
model.dropout = 1 | must be < 1, given 1
"""
ELSEWHERE = """
model.type = 3 | model: expected a table with type = one of mixture, ngram, rnn, given {"type": 3}
modle.type = "rnn" | modle: did you mean 'model'?
sampler = [{type = "greedy"}, {type = "gredy"}] | sampler.1.type: 'greedy'?
sampler = [3] | sampler.0: expected a table with type = one of
observer = [{type = "progress", x = 1}] | observer.0.x: unknown key
model.tied_weights = true | model: tied_weights needs embedding_size = hidden_size
"""  # the key that is named is another
ROWS = [
    *((key, value, key, said) for key, value, said in rows_of(FAULTS)),
    *((key, value, *said.split(": ", 1)) for key, value, said in rows_of(ELSEWHERE)),
    ("generate.prompt", "\ud800", "generate.prompt", "expected text without lone surrogates"),
    ("output", "a\0b", "output", 'expected a path, given "a\\u0000b"'),
    ("trainer.batch_size", 1 << 100_000, "trainer.batch_size", "given what is too long"),
    ("trainer.learning_rate", 10**400, "trainer.learning_rate", "expected a finite number"),
]


@pytest.mark.fault(21)
@pytest.mark.fault(22)
@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("key", "value", "path", "said"), ROWS, ids=[f"{path}-{said}" for *_, path, said in ROWS]
)
def test_a_fault_names_the_key_and_what_is_expected(engine, key, value, path, said):
    (found,) = faults(engine, changed(key, value))
    assert found.path == path
    assert said in str(found)
    assert len(str(found)) < 300


MIXTURE = {
    "model": {"type": "mixture", "first": {"type": "rnn"}, "second": {"type": "ngram"}},
    "trainer": {"type": "mixture", "first": {"type": "adamw"}, "second": {"type": "count"}},
}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.learning_rate=0.1", "unknown key; there are first, second"),
        ("trainer.first.length=1.5 steps", "trainer.first.length: must be a time such as"),
        ("trainer.second.max_tokens=0", "trainer.second.max_tokens: must be >= 1, given 0"),
    ],
)
def test_a_fault_in_a_mixture_names_the_part(engine, override, said):
    (found,) = faults(engine, {**BASE, **MIXTURE}, [override])
    assert said in str(found)


def test_what_is_required_is_missing(engine):
    (found,) = faults(engine, {**BASE, "corpus": {"type": "file"}})
    assert (found.path, found.given) == ("corpus.path", "nothing")
    missing = faults(engine, {})
    assert [(fault.path, fault.given) for fault in missing] == [(k, "nothing") for k in CHOICES]


@pytest.mark.fault(24)
def test_all_faults_are_reported_at_once(textgen, tiny_pipeline, write_pipeline, tmp_path):
    tables = tiny_pipeline(
        seed=-1,
        device="gpu",
        zzz=1,
        tokenizer={"type": "chars"},
        model={"hidden_size": 0, "layres": 2},
        trainer={"batch_size": "2"},
    )
    failed = textgen("run", write_pipeline(tables), cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    first, *rest = failed.stderr.splitlines()
    assert first == f"textgen: error: {tmp_path / 'pipeline.toml'}: 7 faults"
    assert {line.strip().partition(":")[0] for line in rest} == {
        "zzz",
        "seed",
        "device",
        "tokenizer.type",
        "model.layres",
        "model.hidden_size",
        "trainer.batch_size",
    }
    assert not (tmp_path / "run").exists()


def test_the_callers_mapping_is_left_alone(engine):
    tables = {**BASE, "sampler": [{"type": "greedy"}]}
    before = repr(tables)
    engine.pipeline(tables, ["seed=4", "sampler.0.type=temperature", "model.layers=2"])
    assert repr(tables) == before
    endless = {**BASE}
    endless["data"] = endless
    assert "data.corpus" in {fault.path for fault in faults(engine, endless)}


USUAL = ["loss-plot", "metrics", "progress", "samples"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, USUAL),
        ({"observer": []}, []),
        ({"observer": [{"type": "samples", "characters": 3}]}, USUAL),
    ],
)
def test_observers_come_beside_the_usual_ones(engine, changes, expected):
    pipeline = engine.pipeline({**BASE, **changes})
    assert [choice.name for choice in pipeline.observer] == expected
    for table in changes.get("observer", []):
        assert table["characters"] in [
            getattr(each.options, "characters", None) for each in pipeline.observer
        ]
    assert engine.pipeline(pipeline.to_dict()).observer == pipeline.observer
