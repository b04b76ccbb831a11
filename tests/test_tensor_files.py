"""Weights as they are written: the bytes of the safetensors library, without a copy of the arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load, save

from textgen.files.reading import dump_tensors, tensor_pieces

DTYPES = ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", "c8"]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@given(
    st.dictionaries(st.text(max_size=5), arrays.arrays(st.sampled_from(DTYPES), SHAPES), max_size=6)
)
def test_they_are_the_bytes_of_the_library(tensors: dict[str, np.ndarray]) -> None:
    assert dump_tensors(tensors) == save(tensors)


def test_arrays_in_any_order_of_memory_are_written_as_they_are_indexed() -> None:
    array = np.arange(12.0).reshape(3, 4).T
    assert np.array_equal(load(dump_tensors({"a": array}))["a"], array)
    assert np.array_equal(load(dump_tensors({"a": array.astype(">f8")}))["a"], array)


def test_pieces_are_small_and_a_dtype_that_has_no_name_is_an_error() -> None:
    pieces = list(tensor_pieces({"a": np.zeros(3 << 20, np.float32)}))
    assert max(map(len, pieces)) <= 4 << 20
    with pytest.raises(ValueError, match="a has the dtype <U1"):
        dump_tensors({"a": np.array(["x"])})
