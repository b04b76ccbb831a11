"""The linear autoregression against least squares written out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from textgen_series import linear


def by_hand(values, training, lags, origin, steps):
    rows = [[*values[i : i + lags], 1.0] for i in range(training - lags)]
    solution = np.linalg.lstsq(np.array(rows), values[lags:training], rcond=None)[0]
    known = values[: origin + 1].tolist()
    for _ in range(steps):
        known.append(float(np.dot([*known[-lags:], 1.0], solution)))
    return known[origin + 1 :]


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 20))
def test_forecasts_are_those_of_least_squares_written_out(seed, lags, steps):
    generator = np.random.default_rng(seed)
    values = np.sin(0.1 * np.arange(120)) + 0.2 * generator.standard_normal(120)
    origins = np.array([79, 90, 101])
    made = linear.forecast(values, origins, linear.fit(values[:80], lags), steps)
    for row, origin in zip(made, origins, strict=True):
        np.testing.assert_allclose(
            row, by_hand(values, 80, lags, origin, steps), rtol=1e-8, atol=1e-8
        )
