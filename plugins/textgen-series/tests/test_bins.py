"""The tokenizer: properties on any numbers, and errors that say which line."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textgen_series import BinsConfig, build_bins

from textgen import BuildContext, CorpusError

finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.lists(finite, min_size=1, max_size=60)
configs = st.builds(
    BinsConfig, bins=st.integers(1, 40), spacing=st.sampled_from(["uniform", "quantile"])
)


def make(config, tmp_path="."):
    return build_bins(config, BuildContext(folder=tmp_path))


def text_of(values):
    return "".join(f"{value!r}\n" for value in values)


def fitted(config, values):
    tokenizer = make(config)
    tokenizer.fit([text_of(values)])
    return tokenizer


@given(configs, numbers, numbers)
def test_ids_survive_decoding_and_encoding(config, values, others):
    tokenizer = fitted(config, values)
    ids = tokenizer.encode(text_of(values + others))
    assert len(ids) == len(values + others)
    assert ids.dtype.kind == "i"
    assert ids.min() >= 0
    assert ids.max() < tokenizer.vocab_size <= config.bins
    every = np.arange(tokenizer.vocab_size)
    for some in (ids, every):
        assert np.array_equal(tokenizer.encode(tokenizer.decode(some)), some)


@given(configs, numbers)
def test_bins_are_in_the_order_of_the_numbers(config, values):
    tokenizer = fitted(config, values)
    assert np.all(np.diff(tokenizer.encode(text_of(sorted(values)))) >= 0)
    assert np.all(np.diff(tokenizer.centres) > 0)


@given(configs, numbers, st.data())
def test_pieces_may_be_cut_inside_a_number(config, values, data):
    text = text_of(values).removesuffix("\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, cut = make(config), make(config)
    whole.fit([text])
    cut.fit(pieces)
    assert cut.to_dict() == whole.to_dict()
    assert np.array_equal(np.concatenate(list(cut.encode_pieces(pieces))), whole.encode(text))


@given(configs, numbers, st.data())
def test_stream_gives_the_text_of_decode(config, values, data):
    tokenizer = fitted(config, values)
    ids = tokenizer.encode(text_of(values))
    cut = data.draw(st.integers(0, len(ids)))
    decoder = tokenizer.incremental_decoder()
    text = (
        decoder.decode(ids[:cut]) + decoder.decode(ids[cut:]) + decoder.decode(ids[:0], final=True)
    )
    assert text == tokenizer.decode(ids)


@given(configs, numbers)
def test_json_brings_the_same_bins_back(config, values):
    tokenizer = fitted(config, values)
    again = make(config).from_dict(json.loads(json.dumps(tokenizer.to_dict(), allow_nan=False)))
    assert again.to_dict() == tokenizer.to_dict()
    assert again.decode(np.arange(again.vocab_size)) == tokenizer.decode(
        np.arange(tokenizer.vocab_size)
    )


def test_uniform_bins_are_of_one_width_and_decode_to_their_middle():
    tokenizer = fitted(BinsConfig(bins=4), [0.0, 1.0, 8.0])
    assert tokenizer.edges.tolist() == [2, 4, 6]
    assert tokenizer.decode(np.arange(4)) == "1.0\n3.0\n5.0\n7.0\n"
    assert tokenizer.encode("-5\n1.9999\n2\n 8.5 \n\n1e300").tolist() == [0, 0, 1, 3, 3]


def test_bins_between_neighbouring_floats_decode_to_numbers_of_their_own():
    first = math.nextafter(1, 2)
    second = math.nextafter(first, 2)
    tokenizer = fitted(BinsConfig(bins=2), [first, math.nextafter(second, 2)])
    assert (
        tokenizer.centres[0] == first
    )  # the middle of `first` and `second` is rounded to `second`
    assert tokenizer.encode(tokenizer.decode(np.arange(2))).tolist() == [0, 1]


def test_uniform_bins_lie_where_the_options_say():
    tokenizer = fitted(BinsConfig(bins=2, low=-1.0, high=1.0), [0.1, 50.0])
    assert tokenizer.centres.tolist() == [-0.5, 0.5]


def test_quantile_bins_hold_equally_many_numbers():
    values = np.random.default_rng(1).exponential(size=1000)
    tokenizer = fitted(BinsConfig(bins=8, spacing="quantile"), values.tolist())
    ids = tokenizer.encode(text_of(values.tolist()))
    assert np.bincount(ids).tolist() == [125] * 8
    assert all(abs(tokenizer.centres[i] - np.median(values[ids == i])) < 0.03 for i in range(7))


def test_equal_numbers_share_a_bin():
    for spacing in ("uniform", "quantile"):
        assert fitted(BinsConfig(bins=9, spacing=spacing), [3.5] * 20).vocab_size == 1
    assert fitted(
        BinsConfig(bins=9, spacing="quantile"), [1.0] * 50 + [2.0] * 50
    ).centres.tolist() == [1.0, 2.0]


def test_a_series_larger_than_the_sample_still_gives_its_range_and_quantiles():
    pieces = (text_of(range(i, i + 50_000)) for i in range(0, 1_300_000, 50_000))
    tokenizer = make(BinsConfig(bins=4, spacing="quantile"))
    tokenizer.fit(pieces)
    assert tokenizer.edges == pytest.approx([325_000, 650_000, 975_000], rel=0.01)


@pytest.mark.parametrize(
    "wrong", ["nan", "inf", "-Infinity", "1e400", "abc", "1,5", "1_000", "0x10", "1 2"]
)
def test_what_is_no_finite_number_is_an_error_with_its_line(wrong):
    tokenizer = fitted(BinsConfig(), [0.0, 1.0])
    for pieces in (
        ["1\n\n2\n" + wrong + "\n3"],
        ["1\n\n", "2", "\n" + wrong[:1], wrong[1:] + "\n"],
        ["1\n2\n\n", wrong],
    ):
        for use in (tokenizer.fit, lambda pieces: list(tokenizer.encode_pieces(pieces))):
            with pytest.raises(CorpusError, match="line 4: "):
                use(pieces)


def test_prose_is_refused_without_reading_all_of_it():
    def prose():
        for _ in range(20):
            yield "once upon a time " * 10
        pytest.fail("read on")

    with pytest.raises(CorpusError, match="line 1: "):
        make(BinsConfig()).fit(prose())


def test_no_number_at_all_is_an_error():
    with pytest.raises(CorpusError):
        make(BinsConfig()).fit(["\n", " \n"])


def test_ids_outside_the_vocabulary_and_an_unfitted_tokenizer_are_errors():
    tokenizer = fitted(BinsConfig(bins=3), [0.0, 1.0])
    for ids in ([-1], [3]):
        with pytest.raises(ValueError, match="from 0 to 2"):
            tokenizer.decode(np.array(ids))
    for use in (lambda t: t.vocab_size, lambda t: t.encode("1"), lambda t: t.to_dict()):
        with pytest.raises(ValueError, match="not fitted"):
            use(make(BinsConfig()))


def test_empty_text_has_no_ids():
    tokenizer = fitted(BinsConfig(), [0.0, 1.0])
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.decode(np.empty(0, int)) == ""


def test_extreme_numbers_make_finite_bins():
    tokenizer = fitted(BinsConfig(bins=5), [-1.7e308, 1.7e308])
    assert tokenizer.vocab_size == 5
    assert all(map(math.isfinite, tokenizer.centres))
