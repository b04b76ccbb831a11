"""Every reader, given what hypothesis makes up: a correct result, or an error of textgen.errors.

The examples are others each time; a failure prints what repeats it. FUZZ_EXAMPLES=5000 makes up more of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import struct
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import textgen
from campaigns.mutations import BYTES, restructured, seal
from textgen.errors import TextgenError
from textgen.files.reading import dump_tensors, load_tensors

pytestmark = pytest.mark.slow
fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20")),
    derandomize=False,
    print_blob=True,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
)
numbers = st.integers() | st.floats() | st.just(10**400)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=20)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
draws = st.randoms(use_true_random=False)
spoilt_bytes = st.sampled_from(
    sorted(name for name in BYTES if "many" not in name and "lists" not in name)
)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a saved state, and an unfinished one. Restored after each example."""
    folder = tmp_path_factory.mktemp("fuzzing")
    (folder / "corpus.txt").write_text("the clock of the hall struck the hour.\n" * 20)
    tables: dict[str, Any] = {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(folder / "corpus.txt")},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 4},
        "trainer": {"type": "sgd", "length": "1 epoch", "batch_size": 16},
        "generate": {"max_new_tokens": 5},
        "observer": [],
    }
    textgen.run(tables, output=folder / "finished")
    textgen.run(
        {**tables, "model": {"type": "ngram", "order": 3}, "trainer": {"type": "count"}},
        output=folder / "ngram",
    )
    asked = iter(range(100))
    with contextlib.suppress(textgen.Interrupted):
        textgen.run(tables, output=folder / "unfinished", cancelled=lambda: next(asked) == 1)
    with textgen.load(folder / "finished") as generator:
        state = generator.generate("the ", keep_state=True).state
        assert state is not None
        state.save(folder / "state.safetensors")
    return folder


@contextlib.contextmanager
def restored(path: Path) -> Iterator[bytes]:
    """The bytes of a file of a subject, which are put back at the end, with the run.json that tells its checksum."""
    holders = [
        holder
        for holder in (path.with_name("run.json"), path.with_name("manifest.json"))
        if holder.exists()
    ]
    before = {file: file.read_bytes() for file in (path, *holders)}
    try:
        yield before[path]
    finally:
        for file, data in before.items():
            file.write_bytes(data)


def use(act: Callable[[], Any]) -> None:
    """Anything but an error that is foreseen fails the test."""
    with warnings.catch_warnings(), contextlib.suppress(TextgenError):
        warnings.simplefilter("ignore")
        act()


def load_and_generate(run: Path, **options: Any) -> None:
    with textgen.load(run) as generator:
        generator.generate("the ", max_new_tokens=3, **options)


PIPELINE = """
seed = 1
[corpus]
type = "story"
[tokenizer]
type = "char"
[model]
type = "rnn"
[trainer]
type = "adamw"
[[sampler]]
type = "temperature"
[generate]
prompt = "a"
stop = ["b"]
"""


@given(draw=draws, value=values, how=spoilt_bytes, is_bytes=st.booleans())
@fuzzed
def test_pipelines(
    tmp_path_factory: Any, draw: random.Random, value: Any, how: str, is_bytes: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "p.toml"
    engine = textgen.Engine()
    path.write_bytes(BYTES[how](PIPELINE.encode(), draw) if is_bytes else _toml(draw, value))
    use(lambda: engine.pipeline(path))
    tables = restructured(tomllib.loads(PIPELINE), draw)
    use(lambda: engine.pipeline(tables if isinstance(tables, dict) else {"model": tables}))
    use(lambda: engine.pipeline({"model": value, "corpus": tables}))


def _toml(draw: random.Random, value: Any) -> bytes:
    with contextlib.suppress(TypeError, AttributeError, ValueError):  # what TOML has no word for
        return tomli_w.dumps(restructured({**tomllib.loads(PIPELINE), "key": value}, draw)).encode()
    return draw.randbytes(50)


RUN_FILES = ("pipeline.toml", "run.json", "tokenizer.json", "model.safetensors")


@given(draw=draws, value=values, how=spoilt_bytes)
@fuzzed
@pytest.mark.parametrize(
    "file", [f"{run}/{name}" for run in ("finished", "ngram") for name in RUN_FILES]
)
def test_files_of_runs(
    subjects: Path, file: str, draw: random.Random, value: Any, how: str
) -> None:
    path = subjects / file
    with restored(path) as data:
        path.write_bytes(_other(path, data, draw, value, how))
        seal(path, path.parent)
        use(lambda: load_and_generate(path.parent))


def _other(path: Path, data: bytes, draw: random.Random, value: Any, how: str) -> bytes:
    """Spoilt bytes, or well-formed ones of another content."""
    if path.suffix == ".json" and draw.random() < 0.8:
        other = restructured(json.loads(data), draw) if draw.random() < 0.8 else value
        return json.dumps(other).encode()
    if path.suffix == ".safetensors" and draw.random() < 0.5:
        return _with_header(data, draw, value)
    return BYTES[how](data, draw)


def _with_header(data: bytes, draw: random.Random, value: Any) -> bytes:
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    made = json.dumps(
        restructured(header, draw) if draw.random() < 0.7 else {**header, "x": value}
    ).encode()
    return struct.pack("<Q", len(made)) + made + data[end:]


@given(draw=draws, value=values, how=spoilt_bytes)
@fuzzed
@pytest.mark.parametrize(
    "name", ["manifest.json", "trainer.json", "trainer.safetensors", "model.safetensors"]
)
def test_checkpoints(subjects: Path, name: str, draw: random.Random, value: Any, how: str) -> None:
    (path,) = (subjects / "unfinished").glob(f"checkpoints/*/{name}")
    with restored(path) as data:
        path.write_bytes(_other(path, data, draw, value, how))
        seal(path, subjects / "unfinished")
        use(lambda: load_and_generate(subjects / "unfinished"))


@given(draw=draws, value=values, how=spoilt_bytes, number=numbers)
@fuzzed
def test_saved_states(
    subjects: Path, draw: random.Random, value: Any, how: str, number: float
) -> None:
    path = subjects / "state.safetensors"
    with restored(path) as data, textgen.load(subjects / "finished") as generator:
        path.write_bytes(
            _with_header(data, draw, value) if draw.random() < 0.5 else BYTES[how](data, draw)
        )
        use(lambda: generator.generate(state=textgen.GenerationState.load(path), max_new_tokens=2))
        path.write_bytes(data)
        arrays = load_tensors(path, data)
        values = json.loads(arrays["values"].tobytes())
        encoded = json.dumps(restructured(values, draw)).encode()
        changed = {"values": np.frombuffer(encoded, np.uint8)}
        others = {name: _array(array, draw, number) for name, array in arrays.items()}
        for made in ({**arrays, **changed}, {**others, "values": arrays["values"]}):
            del made["checksum"]
            checksum = np.frombuffer(hashlib.sha256(dump_tensors(made)).digest(), np.uint8)
            path.write_bytes(dump_tensors({**made, "checksum": checksum}))
            use(
                lambda: generator.generate(
                    state=textgen.GenerationState.load(path), max_new_tokens=2
                )
            )


def _array(array: Any, draw: random.Random, number: float) -> Any:
    finite = number if abs(number) < 1e9 else 7
    changes = (
        array[:0],
        array[None],
        array.astype(np.float16),
        np.full_like(array, 0 if math.isnan(finite) else finite),
    )
    return draw.choice((array, array, *changes))
