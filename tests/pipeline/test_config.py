"""Pipelines that are wrong, overrides, and `textgen show`."""

import contextlib
import datetime
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textgen import Engine, PipelineError, UsageError, run
from textgen.pipeline.options import TABLES, GeneralOptions
from textgen.pipeline.pipeline import CHAINS, CHOICES
from textgen.testing import isolated_plugins
from textgen_builtins.commands.show import commented_toml

BASE = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn"},
    "trainer": {"type": "sgd"},
}


@pytest.fixture(scope="module")
def engine():
    """With the built-in set alone: errors list the components that there are."""
    return Engine(isolated_plugins())


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
        (b'seed = 1\n[corpus]\ntype = "story\n', ":3:14: not valid TOML: "),
        (b"a = 1\r\nb = = 2\r\n", ":2:5: not valid TOML: "),
        (b"seed = 1 # \xff", ": not UTF-8 at byte 11"),
        pytest.param(
            b"a = " + b"[" * 100_000, ": tables or arrays are nested too deeply", id="deep"
        ),
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
        "A b.c": "A b.c",
    }.items():
        path = tmp_path / f"{stem}.toml"
        path.write_bytes("\r\n".join(["\ufeffseed = 3", *lines]).encode())
        assert (engine.pipeline(path).seed, engine.pipeline(path).output.name) == (3, name)


# Keys and values ----------------------------------------------------------------------------------

FAULTS = [
    # Unknown names
    ("trainer.lenght", 3, "unknown key; did you mean 'length'?"),
    ("model.zzz", 3, "unknown key; there are cell, "),
    ("corpus.x", 1, "unknown key; there are none"),
    ("data.window_lenght", 3, "did you mean 'window_length'?"),
    ("max_new_tokens", 3, "did you mean 'generate.max_new_tokens'?"),
    ("temperature", 3, "did you mean 'sampler.temperature'?"),
    ("generate.top_k", 3, "did you mean 'sampler.top_k'?"),
    ("model.type", "rrn", "no model is called 'rrn'; did you mean 'rnn'?"),
    ("model.type", "lstm", "did you mean 'rnn'? A recurrent network"),
    ("corpus.type", "zzz", "there are file, story, time-machine"),
    ("model.type", "nobody:rnn", "no model is called 'nobody:rnn'"),
    # Types
    *(
        ("trainer.batch_size", value, f"expected an integer, given {shown}")
        for value, shown in [
            ("12", '"12" (a string)'),
            (12.0, "12.0"),
            (True, "true (a boolean)"),
            ([1], "a list"),
            ({}, "a table"),
            (datetime.date(2020, 1, 2), "2020-01-02"),
        ]
    ),
    ("tokenizer.lower_case", "false", "expected true or false, given"),
    ("tokenizer.lower_case", 0, "expected true or false, given 0"),
    ("trainer.learning_rate", "x", "expected a finite number"),
    ("trainer.learning_rate", False, "given false (a boolean)"),
    ("generate.prompt", 5, "expected a string, given 5"),
    ("generate.prompt", "\ud800", "expected text without lone surrogates"),
    ("generate.stop", 5, "expected a string or a list, each a string, given 5"),
    ("generate.stop", ["a", 5], "expected a string or a list"),
    ("model.cell", "lstn", "did you mean 'lstm'?"),
    ("data.window_stride", "1", "expected an integer"),
    ("model", 3, "expected a table with type = one of mixture, ngram, rnn, given 3"),
    ("model.type", 3, "expected a table with type = one of mixture, ngram, rnn"),
    ("data", 3, "expected a table, given 3"),
    ("output", 5, "expected a path, given 5"),
    ("output", "a\0b", 'expected a path, given "a\\u0000b"'),
    ("output", "~nobody-of-that-name/x", "expected a path"),
    # Ranges
    ("device", "gpu", 'must be "auto", "cpu", "cuda", "cuda:N" or "mps", given "gpu"'),
    ("trainer.batch_size", 0, "must be >= 1, given 0"),
    ("trainer.batch_size", -(10**30), "an integer of at most 64 bits"),
    ("trainer.batch_size", 1 << 100_000, "given an integer of 100001 bits"),
    *(
        ("trainer.learning_rate", value, "expected a finite number")
        for value in (float("nan"), float("inf"), 10**400)
    ),
    ("trainer.learning_rate", 0, "must be > 0, given 0"),
    ("trainer.momentum", 1.0, "must be < 1, given 1.0"),
    ("data.window_stride", 0, "must be >= 1, given 0"),
    ("data.validation", 1.5, "must be a share below 1, or a whole number"),
    ("data.windows", [1, -1], "must be two numbers, of at least 1 and 0"),
    ("seed", -1, "must be >= 0, given -1"),
    ("seed", 2**64, "expected an integer of at most 64 bits, given 18446744073709551616"),
    ("generate.seed", -5, "must be >= 0, given -5"),
    ("generate.max_new_tokens", 10**12, "must be <= 1000000000"),
    ("generate.n", 0, "must be >= 1, given 0"),
    ("model.dropout", 1, "must be < 1, given 1"),
]
ELSEWHERE = [
    ("modle.type", "rnn", "modle", "did you mean 'model'?"),
    ("sampler", [{"type": "greedy"}, {"type": "gredy"}], "sampler.1.type", "'greedy'?"),
    ("sampler", [3], "sampler.0", "expected a table with type = one of "),
    ("observer", [{"type": "progress", "x": 1}], "observer.0.x", "unknown key"),
    ("model.type", "ngram", "trainer.type", 'goes with trainer "count", given "sgd"'),
    ("trainer.type", "count", "model.type", 'goes with model "ngram", given "rnn"'),
    ("model.tied_weights", True, "model", "tied_weights needs embedding_size = hidden_size"),
]
ROWS = [(key, value, key, said) for key, value, said in FAULTS] + ELSEWHERE


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
        ("trainer.learning_rate=0.1", "did you mean 'trainer.first.learning_rate'?"),
        ("model.order=3", "did you mean 'model.second.order'?"),
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


# Anything at all ----------------------------------------------------------------------------------

_OFFERS = isolated_plugins().offers()
_NAMES = sorted({offer.name for offer in _OFFERS})
_KEYS = sorted(
    {name for offer in _OFFERS for name in offer.component.options()}
    | {name for table in [*TABLES.values(), GeneralOptions] for name in attrs.fields_dict(table)}
)
keys = st.sampled_from(["type", *_KEYS]) | st.text(max_size=5)
scalars = (
    st.sampled_from([*_NAMES, "auto", "\0", "\ud800", "~x", "a:b", 2**64, 10**4000])
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.text(st.characters(), max_size=10)
    | st.datetimes()
    | st.dates()
    | st.times()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
)
tables_of = {
    **{
        kind: st.builds(
            lambda t, o: {"type": t, **o}, st.sampled_from(_NAMES), st.dictionaries(keys, values)
        )
        for kind in CHOICES
    },
    **{kind: st.lists(st.dictionaries(keys, values, max_size=3), max_size=3) for kind in CHAINS},
    **{name: st.dictionaries(keys, values, max_size=4) for name in TABLES},
}


@st.composite
def mappings(draw):
    """A good pipeline with a few of its tables, or of their keys, replaced by anything."""
    tables = {**BASE}
    for name in draw(
        st.lists(st.sampled_from([*tables_of, *attrs.fields_dict(GeneralOptions)]), max_size=4)
    ):
        tables[name] = draw(tables_of.get(name, values) | values)
    return {**tables, **draw(st.dictionaries(keys, values, max_size=2))}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(tables=mappings())
def test_any_mapping_is_a_pipeline_or_a_pipeline_error(engine, tables):
    try:
        pipeline = engine.pipeline(tables)
    except (
        UsageError
    ):  # a PipelineError; or one about a value that may be an object, such as a date for a corpus
        return
    if pipeline.corpus.name.startswith("object:"):  # a text, which no table can name
        return
    assert engine.pipeline(pipeline.to_dict()).to_dict() == pipeline.to_dict()
    assert (
        engine.pipeline(tomllib.loads(commented_toml(pipeline, str(pipeline.output)))).to_dict()
        == pipeline.to_dict()
    )


@settings(max_examples=150)
@given(
    override=st.text(max_size=20)
    | st.builds("{}={}".format, st.sampled_from(_KEYS), st.text(max_size=20))
)
def test_any_override_is_taken_or_refused(engine, override):
    with contextlib.suppress(PipelineError):
        engine.pipeline(BASE, [override])


def test_the_callers_mapping_is_left_alone(engine):
    tables = {**BASE, "sampler": [{"type": "greedy"}]}
    before = repr(tables)
    engine.pipeline(tables, ["seed=4", "sampler.0.type=temperature", "model.layers=2"])
    assert repr(tables) == before
    endless = {**BASE}
    endless["data"] = endless
    assert "data.corpus" in {fault.path for fault in faults(engine, endless)}


# Overrides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=18446744073709551615", "seed", 2**64 - 1),
        ("trainer.learning_rate = 3", "trainer.learning_rate", 3.0),
        ("tokenizer.lower_case=true", "tokenizer.lower_case", True),
        ("model.cell=lstm", "model.cell", "lstm"),
        ('model.cell="gru"', "model.cell", "gru"),
        ("generate.prompt=it has", "generate.prompt", "it has"),
        ("generate.prompt='  it has'", "generate.prompt", "  it has"),
        ("generate.prompt=a=b", "generate.prompt", "a=b"),
        ("generate.prompt=", "generate.prompt", ""),
        ("generate.prompt=one\ntwo = 2", "generate.prompt", "one\ntwo = 2"),
        ("generate.stop=none", "generate.stop", "none"),
        ("generate.stop_tokens=[1, 2]", "generate.stop_tokens", [1, 2]),
        ("sampler.1.temperature=0.5", "sampler.1.temperature", 0.5),
        ('sampler=[{type="temperature", temperature=2}]', "sampler.0.temperature", 2.0),
        ('sampler.0={type="temperature", temperature=2}', "sampler.0.temperature", 2.0),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_string(engine, override, path, value):
    tables = {**BASE, "sampler": [{"type": "greedy"}, {"type": "temperature"}]}
    place = engine.pipeline(tables, [override, override]).to_dict()
    for part in path.split("."):
        place = place[int(part)] if isinstance(place, list) else place[part]
    assert (place, type(place)) == (value, type(value))


@pytest.mark.parametrize(
    ("override", "path", "said"),
    [
        ("seed", "", "expected KEY=VALUE, as in trainer.batch_size=8"),
        ("=5", "", "expected KEY=VALUE"),
        ("trainer..batch_size=5", "", "expected KEY=VALUE"),
        ("generate.stop=[1,", "generate.stop", "not a TOML value"),
        ('output="half', "output", "not a TOML value"),
        ("generate.stop=" + "[" * 100_000, "generate.stop", "not a TOML value"),
        ("corpus.type.x=5", "corpus.type.x", "there is no such place"),
        ("sampler.7.temperature=5", "sampler.7.temperature", "a list takes numbers, here 0 to 0"),
        ("sampler.temprature=5", "sampler.temprature", "did you mean 'temperature'?"),
        ("sampler.temperature=-1", "sampler.temperature", "must be >= 0, given -1"),
        ("observer.every=5", "observer.every", 'write observer=[{type="…"}]'),
        ("trainer.batch_size=two", "trainer.batch_size", 'expected an integer, given "two"'),
        ("seed=" + "9" * 5000, "seed", "expected an integer"),
    ],
)
def test_a_broken_override_is_a_fault(engine, override, path, said):
    (found,) = faults(engine, {**BASE, "sampler": [{"type": "greedy"}]}, [override])
    assert found.path == path
    assert said in str(found)
    assert len(str(found)) < 400


def test_broken_overrides_are_reported_at_once(engine):
    with pytest.raises(PipelineError) as caught:
        engine.pipeline(BASE, ["seed", "output=["])
    assert (caught.value.source, len(caught.value.faults)) == ("overrides", 2)


@pytest.mark.parametrize("turned", [1, -1], ids=["type-first", "type-last"])
def test_another_type_drops_the_keys_of_the_one_before(engine, turned):
    tables = changed("model.hidden_size", 12)
    overrides = ["model.type=ngram", "model.order=3", "trainer.type=count"]
    assert engine.pipeline(tables, overrides[::turned]).model.options.order == 3
    assert engine.pipeline(tables, ["model.type=rnn"]).model.options.hidden_size == 12


@pytest.mark.parametrize(
    ("chain", "overrides", "expected"),
    [
        (None, ["sampler.temperature=0.5"], [("temperature", 0.5)]),
        ([], ["sampler.temperature=0.5", "sampler.top-k=7"], [("top-k", 7), ("temperature", 0.5)]),
        ([{"type": "temperature"}], ["sampler.temperature=0.5"], [("temperature", 0.5)]),
        ([{"type": "top-p"}], {"sampler.temperature": 2}, [("top-p", None), ("temperature", 2)]),
        ([{"type": "top-k", "k": 3}], {"sampler": {"top_k": 5}}, [("top-k", 5)]),
        ([{"type": "greedy"}], ["sampler.temperature=0.5"], [("temperature", 0.5)]),
        (
            [{"type": "greedy"}],
            ["sampler.top_k=4", 'sampler=[{type="xtc"}]'],
            [("top-k", 4), ("xtc", None)],
        ),
    ],
)
def test_an_option_of_requests_changes_its_sampler_or_joins_the_chain(
    engine, chain, overrides, expected
):
    tables = BASE if chain is None else {**BASE, "sampler": chain}
    found = engine.pipeline(tables, overrides).to_dict()["sampler"]
    assert [(t["type"], t.get("k", t.get("temperature"))) for t in found] == expected


USUAL = ["loss-plot", "metrics", "progress", "samples"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, USUAL),
        ({"observer": []}, []),
        ({"observer": [{"type": "samples", "every": 3}]}, USUAL),
    ],
)
def test_observers_come_beside_the_usual_ones(engine, changes, expected):
    pipeline = engine.pipeline({**BASE, **changes})
    assert [choice.name for choice in pipeline.observers] == expected
    for table in changes.get("observer", []):
        assert table["every"] in [getattr(c.options, "every", None) for c in pipeline.observers]
    assert engine.pipeline(pipeline.to_dict()).observers == pipeline.observers


# Pipelines that are written -----------------------------------------------------------------------


def test_show_prints_a_pipeline_with_every_default_that_shows_as_itself(
    textgen,
    tiny_pipeline,
    write_pipeline,
    tmp_path,
    engine,
):
    tables = tiny_pipeline(
        generate={"prompt": 'a "b" \\ ü\n'}, sampler=[{"type": "temperature"}], observers=True
    )
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


def test_threads_hold_for_the_run_alone(tiny_pipeline):
    """The pipeline's `threads` is what torch uses while it trains, and is put back."""
    import torch

    before, seen = torch.get_num_threads(), set()
    tables = tiny_pipeline(threads=before + 1)
    made = run(tables, observers=[lambda event: seen.add(torch.get_num_threads())])
    assert seen == {before + 1}
    assert torch.get_num_threads() == before
    assert "threads = " in (made.path / "pipeline.toml").read_text(encoding="utf-8")


def test_runs_at_once_put_back_the_threads_that_there_were(tmp_path, tiny_pipeline):
    """The second begins within the first, and ends after it."""
    import torch

    def count():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    tables, before = tiny_pipeline(), count()
    begun, left, second = threading.Event(), threading.Event(), []

    def within_second(event):
        begun.set()
        left.wait(60)

    def within_first(event):
        if not second:
            made = {**tables, "threads": before + 1, "output": str(tmp_path / "2")}
            second.append(pool.submit(run, made, observers=[within_second]))
            begun.wait(60)

    with ThreadPoolExecutor(1) as pool:
        run({**tables, "threads": before + 2}, observers=[within_first])
        left.set()
        assert second[0].result().outcome == "trained"
    assert count() == before
