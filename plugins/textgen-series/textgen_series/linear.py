"""The linear autoregression of Dive into Deep Learning, section "Working with Sequences"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def fit(values: Values, lags: int) -> Values:
    """Least squares of x(t) on x(t - lags) to x(t - 1) and a constant: (lags + 1,) coefficients,
    the constant last.
    """
    design = np.lib.stride_tricks.sliding_window_view(values[:-1], lags)
    design = np.column_stack([design, np.ones(len(design))])
    return np.linalg.lstsq(design, values[lags:], rcond=None)[0].astype(np.float64)


def forecast(
    values: Values, origins: npt.NDArray[np.int64], coefficients: Values, steps: int
) -> Values:
    """(len(origins), steps): from `values` up to each origin, 1 to `steps` steps ahead, predictions
    fed back.
    """
    lags = len(coefficients) - 1
    predicted = np.empty((len(origins), steps))
    window = values[origins[:, None] + np.arange(1 - lags, 1)]
    for step in range(steps):
        predicted[:, step] = window @ coefficients[:-1] + coefficients[-1]
        window = np.column_stack([window[:, 1:], predicted[:, step]])
    return predicted
