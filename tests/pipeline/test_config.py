"""Pipelines that are wrong, overrides, and `textgen show`."""

from __future__ import annotations

import contextlib
import datetime
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textgen import Engine, PipelineError, UsageError, run
from textgen.pipeline.options import TABLES, GeneralOptions
from textgen.pipeline.pipeline import CHAINS, CHOICES
from textgen.testing import isolated_plugins
from textgen_builtins.commands.show import commented_toml

Make = Callable[..., dict[str, Any]]
BASE: dict[str, Any] = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn"},
    "trainer": {"type": "sgd"},
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    """With the built-in set alone: errors list the components that there are."""
    return Engine(isolated_plugins())


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """BASE with keys given by dotted path."""
    tables: dict[str, Any] = {key: dict(table) for key, table in BASE.items()}
    for path, value in changes.items():
        table, _, key = path.rpartition(".")
        (tables.setdefault(table, {}) if table else tables)[key] = value
    return tables


def faults(engine: Engine, source: Any, overrides: Any = ()) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        engine.pipeline(source, overrides)
    assert caught.value.exit_code == 2
    return [str(fault) for fault in caught.value.faults]


# TOML -----------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(20)
@pytest.mark.parametrize("command", ["show", "run"])
def test_a_syntax_error_says_file_line_and_column(
    textgen: Callable[..., Any], tmp_path: Path, command: str
) -> None:
    (tmp_path / "bad.toml").write_text('seed = 1\n[corpus]\ntype = "story\n')
    failed = textgen(command, "bad.toml", cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    assert failed.stderr.startswith("textgen: error: bad.toml:3:14: not valid TOML: ")
    assert len(failed.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"seed = \n", ":1:8: not valid TOML"),
        (b"a = 1\r\nb = = 2\r\n", ":2:5: not valid TOML"),
        (b"[corpus]\n[corpus]\n", ":2:8: not valid TOML"),
        (b"seed = 1 # \xff", "not UTF-8 at byte 11"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"seed = " + b"9" * 5000, "not valid TOML"),
    ],
)
def test_files_that_are_no_toml(engine: Engine, tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(data)
    with pytest.raises(PipelineError, match="^" + str(path)) as caught:
        engine.pipeline(path)
    assert said in str(caught.value)


def test_a_byte_order_mark_and_crlf_are_fine(engine: Engine, tmp_path: Path) -> None:
    lines = [
        "\ufeffseed = 3",
        *(f"[{key}]\r\ntype = '{table['type']}'" for key, table in BASE.items()),
    ]
    (tmp_path / "dos.toml").write_bytes("\r\n".join(lines).encode())
    assert engine.pipeline(tmp_path / "dos.toml").seed == 3


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_files_that_cannot_be_read(textgen: Callable[..., Any], tmp_path: Path, name: str) -> None:
    failed = textgen("run", name, cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    assert failed.stderr.startswith(f"textgen: error: {name}: cannot be read: ")


# Keys and values ------------------------------------------------------------------------------------------------------


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"trainer.lenght": 3}, "trainer.lenght: unknown key; did you mean 'length'?"),
        (
            {"model.zzz": 3},
            "model.zzz: unknown key; there are cell, hidden_size, layers",
        ),
        (
            {"data.window_lenght": 3},
            "data.window_lenght: unknown key; did you mean 'window_length'?",
        ),
        ({"modle.type": "rnn"}, "modle: unknown key; did you mean 'model'?"),
        ({"sed": 3}, "sed: unknown key; did you mean 'seed'?"),
        ({"model.type": "rrn"}, "model.type: no model is called 'rrn'; did you mean 'rnn'?"),
        (
            {"corpus.type": "zzz"},
            "corpus.type: no corpus is called 'zzz'; there are file, story, time-machine",
        ),
        ({"model.type": "nobody:rnn"}, "model.type: no model is called 'nobody:rnn'"),
        (
            {"sampler": [{"type": "greedy"}, {"type": "gredy"}]},
            "sampler.1.type: no sampler is called 'gredy'; did you",
        ),
        ({"observer": [{"type": "progress", "x": 1}]}, "observer.0.x: unknown key"),
        ({"corpus.x": 1}, "corpus.x: unknown key; there are none"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest(
    engine: Engine, changes: dict[str, Any], fault: str
) -> None:
    (found,) = faults(engine, changed(changes))
    assert found.startswith(fault)


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        *(
            (
                {"trainer.batch_size": value},
                f"trainer.batch_size: expected an integer, given {shown}",
            )
            for value, shown in [
                ("12", '"12" (a string)'),
                (12.7, "12.7"),
                (12.0, "12.0"),
                (True, "true (a boolean)"),
                ([1], "a list"),
                ({}, "a table"),
                (datetime.date(2020, 1, 2), "2020-01-02"),
            ]
        ),
        (
            {"tokenizer.lower_case": "false"},
            'tokenizer.lower_case: expected true or false, given "false" (a string)',
        ),
        ({"tokenizer.lower_case": 0}, "tokenizer.lower_case: expected true or false, given 0"),
        (
            {"trainer.learning_rate": "fast"},
            'trainer.learning_rate: expected a finite number, given "fast" (a string)',
        ),
        (
            {"trainer.learning_rate": False},
            "trainer.learning_rate: expected a finite number, given false (a boolean)",
        ),
        ({"generate.prompt": 5}, "generate.prompt: expected a string, given 5"),
        ({"generate.prompt": "\ud800"}, "generate.prompt: expected text without lone surrogates"),
        (
            {"model.cell": "lstn"},
            'model.cell: expected one of "rnn", "relu", "gru", "lstm", given "lstn" (a string); did you',
        ),
        (
            {"data.window_stride": "1"},
            'data.window_stride: expected an integer, given "1" (a string)',
        ),
        (
            {"model": 3},
            "model: expected a table with type = one of mixture, ngram, rnn, given 3",
        ),
        (
            {"model.type": 3},
            "model.type: expected a table with type = one of mixture, ngram, rnn, given 3",
        ),
        ({"data": 3}, "data: expected a table, given 3"),
        (
            {"sampler": 3},
            "sampler: expected an array of tables, [[sampler]], given 3",
        ),
        (
            {"sampler": [3]},
            "sampler.0: expected a table with type = one of ",
        ),
        ({"output": 5}, "output: expected a path, given 5"),
        ({"output": "a\0b"}, 'output: expected a path, given "a\\u0000b"'),
        ({"output": "~nobody-of-that-name/x"}, "output: expected a path"),
        (
            {"device": "gpu"},
            'device: must be "auto", "cpu", "cuda", "cuda:N" or "mps", given "gpu"',
        ),
    ],
)
def test_a_wrong_type_says_what_was_expected_and_given(
    engine: Engine, changes: dict[str, Any], fault: str
) -> None:
    (found,) = faults(engine, changed(changes))
    assert found.startswith(fault)


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"trainer.batch_size": 0}, "trainer.batch_size: must be >= 1, given 0"),
        (
            {"trainer.batch_size": -(10**30)},
            "trainer.batch_size: expected an integer of at most 64 bits, given -1000",
        ),
        (
            {"trainer.batch_size": 1 << 100_000},
            "trainer.batch_size: expected an integer of at most 64 bits, given an integ",
        ),
        (
            {"trainer.learning_rate": float("nan")},
            "trainer.learning_rate: expected a finite number, given nan",
        ),
        (
            {"trainer.learning_rate": float("1e400")},
            "trainer.learning_rate: expected a finite number, given inf",
        ),
        ({"trainer.learning_rate": 10**400}, "trainer.learning_rate: expected a finite number"),
        ({"trainer.learning_rate": 0}, "trainer.learning_rate: must be > 0, given 0"),
        ({"trainer.momentum": 1.0}, "trainer.momentum: must be < 1, given 1.0"),
        ({"data.validation": 1.0}, "data.validation: must be a share below 1, or a whole"),
        ({"data.window_stride": 0}, "data.window_stride: must be >= 1, given 0"),
        ({"seed": -1}, "seed: must be >= 0, given -1"),
        (
            {"seed": 2**64},
            "seed: expected an integer of at most 64 bits, given 18446744073709551616",
        ),
        ({"generate.seed": -5}, "generate.seed: must be >= 0, given -5"),
        (
            {"generate.max_new_tokens": 10**12},
            "generate.max_new_tokens: must be <= 1000000000, given 1000000000000",
        ),
        ({"generate.n": 0}, "generate.n: must be >= 1, given 0"),
        ({"model.dropout": 1}, "model.dropout: must be < 1, given 1"),
        (
            {"model.tied_weights": True},
            "model: tied_weights needs embedding_size = hidden_size, given 0 and 256",
        ),
    ],
)
def test_out_of_range(engine: Engine, changes: dict[str, Any], fault: str) -> None:
    (found,) = faults(engine, changed(changes))
    assert found.startswith(fault)


@pytest.mark.fault(23)
def test_the_largest_seed_is_a_seed(engine: Engine) -> None:
    assert engine.pipeline(changed({"seed": 2**64 - 1})).seed == 2**64 - 1


def test_a_file_of_any_name_gives_a_run_name(engine: Engine, tmp_path: Path) -> None:
    tables = "".join(f"[{key}]\ntype = '{table['type']}'\n" for key, table in BASE.items())
    for stem, name in (
        ("my*run", "my-run"),
        ("Tom & Ada (1)", "Tom-Ada-1"),
        ("..", "pipeline"),
        ("A b.c", "A b.c"),
    ):
        path = tmp_path / f"{stem}.toml"
        path.write_text(tables)
        assert engine.pipeline(path).name == name


def test_a_fault_does_not_print_pages(engine: Engine) -> None:
    (found,) = faults(engine, changed({"trainer.batch_size": "x" * 100_000}))
    assert len(found) < 250


def test_what_is_required_is_missing(engine: Engine) -> None:
    assert faults(engine, {**BASE, "corpus": {"type": "file"}}) == [
        "corpus.path: required: a web address or a path or a list, each a web address or a path, given nothing"
    ]
    found = faults(engine, {})
    assert [fault.partition(":")[0] for fault in found] == list(CHOICES)
    assert all("given nothing" in fault for fault in found)


@pytest.mark.fault(24)
@pytest.mark.parametrize("command", ["show", "run"])
def test_all_faults_are_reported_at_once(
    textgen: Callable[..., Any],
    tiny_pipeline: Make,
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
    command: str,
) -> None:
    tables = tiny_pipeline(
        seed=-1,
        device="gpu",
        tokenizer={"type": "chars"},
        model={"hidden_size": 0, "layres": 2},
        trainer={"batch_size": "2"},
    )
    tables["zzz"] = 1
    failed = textgen(command, write_pipeline(tables), cwd=tmp_path)
    assert (failed.code, failed.stdout) == (2, "")
    first, *rest = failed.stderr.splitlines()
    assert first == f"textgen: error: {tmp_path / 'pipeline.toml'}: 7 faults"
    assert sorted(line.strip().partition(":")[0] for line in rest) == sorted(
        [
            "zzz",
            "seed",
            "device",
            "tokenizer.type",
            "model.layres",
            "model.hidden_size",
            "trainer.batch_size",
        ]
    )
    assert "  tokenizer.type: no tokenizer is called 'chars'; did you mean 'char'?" in rest
    assert not (tmp_path / "run").exists()


# Anything at all ------------------------------------------------------------------------------------------------------

_OFFERS = isolated_plugins().offers()
_NAMES = sorted({offer.name for offer in _OFFERS})
_KEYS = sorted(
    {name for offer in _OFFERS for name in offer.component.options()}
    | {name for table in [*TABLES.values(), GeneralOptions] for name in attrs.fields_dict(table)}
)
keys = st.sampled_from(["type", *_KEYS]) | st.text(max_size=5)
scalars = (
    st.sampled_from(
        [
            *_NAMES,
            "auto",
            "\0",
            "\ud800",
            "~x",
            "a:b",
            2**64,
            -1,
            0,
            1,
            10**4000,
            float("nan"),
            float("inf"),
        ]
    )
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
def mappings(draw: st.DrawFn) -> dict[str, Any]:
    """A good pipeline with a few of its tables, or of their keys, replaced by anything."""
    tables: dict[str, Any] = {key: dict(table) for key, table in BASE.items()}
    for name in draw(
        st.lists(st.sampled_from([*tables_of, *attrs.fields_dict(GeneralOptions)]), max_size=4)
    ):
        tables[name] = draw(tables_of.get(name, values) | values)
    return {**tables, **draw(st.dictionaries(keys, values, max_size=2))}


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(tables=mappings())
def test_any_mapping_is_a_pipeline_or_a_pipeline_error(
    engine: Engine, tables: dict[str, Any]
) -> None:
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


@settings(max_examples=300)
@given(
    override=st.text(max_size=20)
    | st.builds("{}={}".format, st.sampled_from(_KEYS), st.text(max_size=20))
)
def test_any_override_is_taken_or_refused(engine: Engine, override: str) -> None:
    with contextlib.suppress(PipelineError):
        engine.pipeline(BASE, [override])


def test_keys_that_are_no_strings_and_tables_without_end(engine: Engine) -> None:
    assert faults(engine, {**BASE, 3: 4})[0].startswith("3: unknown key")
    endless: dict[str, Any] = {**BASE}
    endless["data"] = endless
    assert "data.corpus: unknown key" in faults(engine, endless)[0]


def test_the_callers_mapping_is_left_alone(engine: Engine) -> None:
    tables = changed({"sampler": [{"type": "greedy"}]})
    before = repr(tables)
    engine.pipeline(tables, ["seed=4", "sampler.0.type=temperature", "model.layers=2"])
    assert repr(tables) == before


# Overrides ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=5", "seed", 5),
        ("trainer.learning_rate=1e-2", "trainer.learning_rate", 0.01),
        ("trainer.learning_rate = 3", "trainer.learning_rate", 3.0),
        ("tokenizer.lower_case=true", "tokenizer.lower_case", True),
        ("model.cell=lstm", "model.cell", "lstm"),
        ('model.cell="gru"', "model.cell", "gru"),
        ("generate.prompt=it has", "generate.prompt", "it has"),
        ("generate.prompt='  it has'", "generate.prompt", "  it has"),
        ("generate.prompt=a=b", "generate.prompt", "a=b"),
        ("generate.prompt=", "generate.prompt", ""),
        ("generate.prompt=one\ntwo = 2", "generate.prompt", "one\ntwo = 2"),
        ("sampler.1.temperature=0.5", "sampler.1.temperature", 0.5),
        ("generate.stop_tokens=[1, 2]", "generate.stop_tokens", [1, 2]),
        ('sampler=[{type="temperature", temperature=2}]', "sampler.0.temperature", 2.0),
        ('sampler.0={type="temperature", temperature=2}', "sampler.0.temperature", 2.0),
        ("checkpoint.seconds=0", "checkpoint.seconds", 0.0),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_string(
    engine: Engine, override: str, path: str, value: Any
) -> None:
    tables = changed({"sampler": [{"type": "greedy"}, {"type": "temperature"}]})
    place: Any = engine.pipeline(tables, [override]).to_dict()
    for part in path.split("."):
        place = place[int(part)] if isinstance(place, list) else place[part]
    assert place == value
    assert type(place) is type(value)


def test_the_last_override_of_a_key_counts(engine: Engine) -> None:
    assert engine.pipeline(BASE, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "expected KEY=VALUE, as in trainer.batch_size=8"),
        ("=5", "expected KEY=VALUE"),
        ("trainer..batch_size=5", "expected KEY=VALUE"),
        ("generate.stop=[1,", "generate.stop: not a TOML value"),
        ('output="half', "output: not a TOML value"),
        ("data={a=", "data: not a TOML value"),
        ("generate.stop=" + "[" * 100_000, "generate.stop: not a TOML value"),
        ("corpus.type.x=5", "corpus.type.x: there is no such place"),
        (
            "sampler.7.temperature=5",
            "no such place in the pipeline; a list takes numbers, here 0 to 0",
        ),
        (
            "sampler.temprature=5",
            "sampler.temprature: no sampler takes this option; did you mean 'temperature'?",
        ),
        ("sampler.temperature=-1", "sampler.temperature: must be >= 0, given -1"),
        (
            "observer.every=5",
            "there is no such place in the pipeline; it has no [[observer]]: write observer=[{type=",
        ),
        (
            "temperature=5",
            "temperature: unknown key; did you mean 'sampler.temperature'?",
        ),
        (
            "generate.top_k=5",
            "generate.top_k: unknown key; did you mean 'sampler.top_k'?",
        ),
        (
            "max_new_tokens=5",
            "max_new_tokens: unknown key; did you mean 'generate.max_new_tokens'?",
        ),
        ("generate.stop=5", "generate.stop: expected a string or a list, each a string, given 5"),
        ("trainer.batch_size=two", 'trainer.batch_size: expected an integer, given "two"'),
        ("seed=" + "9" * 5000, "seed: expected an integer"),
    ],
)
def test_a_broken_override_is_a_fault(engine: Engine, override: str, said: str) -> None:
    (found,) = faults(engine, changed({"sampler": [{"type": "greedy"}]}), [override])
    assert said in found
    assert len(found) < 400


def test_broken_overrides_through_the_command(
    textgen: Callable[..., Any],
    tiny_pipeline: Make,
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
) -> None:
    pipeline = write_pipeline(tiny_pipeline())
    failed = textgen("run", pipeline, "--set", "seed", "--set", "output=[", cwd=tmp_path)
    assert failed.code == 2
    assert "overrides: 2 faults" in failed.stderr
    failed = textgen("show", pipeline, "--set", "trainer.batch_size=0", cwd=tmp_path)
    assert failed.code == 2
    assert "trainer.batch_size: must be >= 1, given 0" in failed.stderr


USUAL = ["loss-plot", "metrics", "progress", "samples"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, USUAL),
        ({"observer": []}, []),
        ({"observer": [{"type": "samples", "every": 3}]}, USUAL),
    ],
)
def test_observers_come_beside_the_usual_ones(
    engine: Engine, tiny_pipeline: Make, changes: dict[str, Any], expected: list[str]
) -> None:
    pipeline = engine.pipeline(tiny_pipeline(observers=True, **changes))
    assert [choice.name for choice in pipeline.observers] == expected
    if "samples" in expected:
        every = changes.get("observer", [{}])[0].get("every")
        assert (
            next(choice for choice in pipeline.observers if choice.name == "samples").options.every
            == every
        )
    again = engine.pipeline(pipeline.to_dict())
    assert again.observers == pipeline.observers


# Pipelines that are written -------------------------------------------------------------------------------------------


def test_show_prints_a_pipeline_with_every_default_that_shows_as_itself(
    textgen: Callable[..., Any],
    tiny_pipeline: Make,
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
    engine: Engine,
) -> None:
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


def test_the_saved_pipeline_is_the_same_run(
    textgen: Callable[..., Any],
    tiny_pipeline: Make,
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
) -> None:
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


def test_threads_hold_for_the_run_alone(
    tmp_path: Path, tiny_pipeline: Callable[..., dict[str, Any]]
) -> None:
    """The pipeline's `threads` is what torch uses while it trains, and is put back."""
    import torch

    before = torch.get_num_threads()
    seen: list[int] = []

    class Spy:
        def observe(self, event: object) -> None:
            seen.append(torch.get_num_threads())

    tables = {**tiny_pipeline(), "threads": before + 1}
    made = run(tables, output=tmp_path / "run", observers=[Spy()])
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    assert "threads = " in (made.path / "pipeline.toml").read_text(encoding="utf-8")
