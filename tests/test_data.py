"""Token arrays, their split, windows and shuffles; and corpora that are too small."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from textgen import BuildContext, CorpusError, Engine
from textgen.data import Windows, sample_spans, shuffled, splitmix
from textgen.pipeline.options import DataOptions
from textgen.runs.split import split_tokens
from textgen_builtins.tokenizers.config import CharConfig
from textgen_builtins.tokenizers.plugin import build_char


@given(st.integers(0, 3000), st.integers(1, 500), st.integers(2, 64))
@example(100, 99, 16)
def test_stretches_are_of_the_whole_text_and_as_many_as_asked_for(size, asked, places):
    taken = sample_spans(np.arange(size), asked, places)
    gaps = np.flatnonzero(np.diff(taken) != 1)
    lengths = np.diff([0, *gaps + 1, asked])
    assert len(np.unique(taken)) == len(taken) == min(size, asked)
    if size > asked:
        assert taken[0] == 0
        assert asked == 1 or taken[-1] == size - 1
        assert len(gaps) < min(places, asked)
        assert size < asked + places or lengths.max() - lengths.min() <= 1


@pytest.mark.parametrize(
    ("options", "training", "validation"),
    [
        ({"validation": 0.2}, 800, 200),
        ({"validation": 0.0}, 1000, 0),
        ({"validation": 32}, 900, 32),
        ({"windows": (50, 30), "window_stride": 1}, 60, 40),
        ({"windows": (50, 0), "window_stride": 1}, 60, 0),
    ],
)
def test_the_end_is_held_out(options, training, validation):
    tokens = np.arange(1000) % 8
    char = build_char(CharConfig(), BuildContext(folder=Path()))
    char.fit(["abcdefg"])
    data = split_tokens(tokens, DataOptions(window_length=10, **options), char)
    assert (len(data.training), len(data.validation)) == (training, validation)
    assert data.window_stride == options.get("window_stride", 10)
    if "windows" in options:
        windows = data.training_windows(), data.validation_windows()
        assert tuple(map(len, windows)) == options["windows"]
        assert np.array_equal(data.training, tokens[:60])
        assert np.array_equal(data.validation, tokens[50 : 50 + validation])


@given(st.integers(0, 60), st.integers(1, 8), st.integers(1, 10))
def test_windows_hold_inputs_and_the_token_that_follows(size, length, stride):
    tokens = np.arange(size, dtype=np.uint8)
    windows = Windows(tokens, length, stride)
    starts = [start for start in range(0, size, stride) if start + length + 1 <= size]
    assert len(windows) == len(starts)
    if starts:
        taken = windows.take(np.arange(len(windows)))
        assert taken.dtype == np.int64
        assert taken.tolist() == [list(range(start, start + length + 1)) for start in starts]


@given(
    st.integers(1, 3000),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3),
    st.integers(1, 400),
)
@example(1, [0], 1)
@example(2, [0], 1)
@example(4**5, [0], 7)
@example(4**5 + 1, [0], 7)
def test_a_shuffle_has_every_index_once_however_it_is_sliced(size, key, batch):
    drawn = np.concatenate(
        [shuffled(size, start, start + batch, *key) for start in range(0, size, batch)]
    )
    assert np.array_equal(np.sort(drawn), np.arange(size))
    assert np.array_equal(drawn, shuffled(size, 0, size, *key))


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_another_key_is_another_order(seed, epoch):
    order = shuffled(1000, 0, 1000, seed, epoch)
    assert not np.array_equal(order, shuffled(1000, 0, 1000, seed, epoch + 1))
    assert not np.array_equal(order, shuffled(1000, 0, 1000, (seed + 1) % 2**64, epoch))
    assert not np.array_equal(order, np.arange(1000))


def test_mixed_bits_are_those_of_splitmix64():
    """The first numbers of its authors' program (https://prng.di.unimi.it/splitmix64.c), begun with
    0.
    """
    states = np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 4, dtype=np.uint64)
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix(states).tolist() == published


def test_a_shuffle_of_very_many_costs_no_memory():
    drawn = shuffled(10**15, 10**14, 10**14 + 1000, 1)
    assert len(np.unique(drawn)) == 1000
    assert drawn.max() < 10**15
    assert 0.4 < drawn.mean() / 10**15 < 0.6


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    ("text", "data", "sizes"),
    [
        ("", {}, ["0 characters"]),
        ("short", {"window_length": 16, "validation": 0.0}, ["5 training tokens", "needs 17"]),
        ("a" * 100, {"window_length": 95}, ["90 training tokens", "needs 96"]),
        ("a" * 100, {"window_length": 16, "validation": 0.1}, ["10 tokens", "needs 17"]),
        ("a" * 100, {"window_length": 16, "windows": [5, 2]}, ["6 windows", "5 to", "2 to"]),
        ("a" * 100, {"window_length": 10**19}, ["90 training tokens", f"needs {10**19 + 1}"]),
    ],
)
def test_a_corpus_that_is_too_small_is_an_error_with_the_sizes(
    tiny_pipeline,
    tmp_path,
    text,
    data,
    sizes,
):
    with pytest.raises(CorpusError) as refused:
        Engine().run(tiny_pipeline(text=text, data=data))
    assert [size for size in sizes if size not in str(refused.value)] == []
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(17)
def test_a_corpus_is_too_small_before_there_is_a_model(
    python,
    tiny_pipeline,
    write_pipeline,
    tmp_path,
):
    """-X importtime lists every module that is loaded: without torch there is no model."""
    pipeline = write_pipeline(tiny_pipeline(text="short"))
    failed = python("-X", "importtime", "-m", "textgen", "run", pipeline, cwd=tmp_path)
    assert failed.code == 1
    assert "textgen.data" in failed.stderr
    assert " torch\n" not in failed.stderr
