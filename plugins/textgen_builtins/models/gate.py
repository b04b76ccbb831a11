"""A gate: the weights of several experts at each token, and their fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from textgen.protocols import Ids, Tensors
from textgen_builtins.models.loss import Floats32

Floats = npt.NDArray[np.floating[Any]]

# Nats: a token that an expert calls impossible does not become so by itself. A wide network may
# break down on a part of a text, and be sure of wrong tokens. Other text loses 0.0003 at most.
_MIN_BIAS: Final = -15.0
# Nats: beyond it, the gate does not tell one disagreement from another.
_MIN_DISAGREEMENT: Final = -8.0
# Nats: what hardly varies in these tokens may elsewhere, and must not decide all there
_LEAST_SPREAD: Final = 0.3
# of the squared distance from equal parts, in nats; some hundred tokens move no weight far
_PRIOR_WEIGHT: Final = 100.0
_ITERATIONS: Final = 50
_FIRST_TOKENS: Final = 2_000  # tokens from all over the text that the search begins with
_MAX_TOKENS: Final = 20_000  # tokens to fit a gate to
_VALUES: Final = 1 << 25  # log probabilities held for it: 128 MiB
# Multiplications of a product for which BLAS uses one thread. Where another program keeps a core
# busy, its threads wait for each other for a hundred times as long as a product takes.
_PRODUCT_VALUES: Final = 1 << 18


@attrs.frozen(eq=False)
class Gate:
    """Mixes E experts: logits = sum of w_i log p_i, where the weights w = bias + slopes · c.

    c_ij = sum over the tokens x of p_i(x) log p_j(x): minus the entropies of the experts and the
    cross-entropies between them, so how sure each is and how far they agree.

    bias     (E,) float32
    slopes   (E · E, E) float32
    """

    bias: Floats32
    slopes: Floats32

    @classmethod
    def fixed(cls, weights: Sequence[float]) -> Gate:
        """A gate with the same `weights` (E,) at every token."""
        return cls(
            np.array(weights, np.float32), np.zeros((len(weights) ** 2, len(weights)), np.float32)
        )

    @classmethod
    def of_tensors(cls, tensors: Tensors, experts: int) -> Gate:
        """The gate of `bias` and `slopes`. Raises ValueError where it is not one of so many
        experts.
        """
        given = {name: (array.shape, str(array.dtype)) for name, array in tensors.items()}
        expected = {"bias": ((experts,), "float32"), "slopes": ((experts**2, experts), "float32")}
        if given != expected:
            raise ValueError(f"gate: the weights are {given}, and should be {expected}")
        return cls(**tensors)

    def tensors(self) -> Tensors:
        """`gate.bias` and `gate.slopes`."""
        return {"gate.bias": self.bias, "gate.slopes": self.slopes}

    def mix(self, logs: Floats32) -> Floats32:
        """Logits (M, V) from log probabilities (M, E, V), which are written into.

        Each row is as if alone.
        """
        weights = np.matmul(_features(logs)[:, None], self.slopes)  # (M, 1, E)
        weights += self.bias
        mixed: Floats32 = np.matmul(weights, logs)[:, 0]
        return mixed


def gate_size(tokens: int, experts: int, vocab_size: int) -> int:
    """Number of training tokens to set aside, at their end, for a gate, which has few
    weights.
    """
    return min(tokens // 20, _MAX_TOKENS, _VALUES // (experts * vocab_size))


def fit(logs: Floats, targets: Ids, prior: Sequence[float]) -> Gate:
    """The gate with the lowest cross-entropy of `targets` (N,), for log probabilities `logs`
    (N, E, V).

    The loss is convex in the weights, so Newton's method with a backtracking search finds the least
    of it. The more tokens there are, the further the weights move from `prior` (E,).
    """
    met = _features(logs).astype(np.float64)  # (N, E · E)
    middle, spread = met.mean(axis=0), met.std(axis=0)
    spread = np.maximum(spread, _LEAST_SPREAD)
    inputs = np.concatenate([np.ones((len(met), 1)), (met - middle) / spread], axis=1)  # (N, J)
    problem = _Problem(logs, targets, inputs, np.zeros((len(prior), inputs.shape[1])))
    problem.prior[:, 0] = prior
    theta = problem.prior
    if len(targets) > 2 * _FIRST_TOKENS:  # most of the way at a fraction of the work
        some = slice(None, None, len(targets) // _FIRST_TOKENS)
        theta = _minimum(_Problem(logs[some], targets[some], inputs[some], problem.prior), theta)
    theta = _minimum(problem, theta)
    slopes = theta[:, 1:] / spread
    bias = theta[:, 0] - slopes @ middle
    return Gate(bias.astype(np.float32), slopes.T.astype(np.float32, order="C"))


def _features(logs: Floats) -> Floats:
    """(M, E · E) the entropies and cross-entropies of `logs` (M, E, V), negative; raises what is
    below _MIN_BIAS in it.
    """
    np.maximum(logs, _MIN_BIAS, out=logs)
    met = np.matmul(np.exp(logs), logs.swapaxes(1, 2))
    np.maximum(met, _MIN_DISAGREEMENT, out=met)
    flat: Floats = met.reshape(len(logs), -1)
    return flat


@attrs.frozen(eq=False)
class _Problem:
    """The loss of a gate's parameters theta (E, J), where the weights of the experts are `inputs`
    (N, J) · theta.
    """

    logs: Floats  # (N, E, V)
    targets: Ids
    inputs: Floats
    prior: Floats  # (E, J)

    def loss(self, theta: Floats) -> float:
        """The loss in nats, of all tokens, with the pull towards the prior."""
        return self._mixed(theta)[0]

    def derivatives(self, theta: Floats) -> tuple[float, Floats, Floats]:
        """The loss, its gradient (E, J) and its Hessian (E · J, E · J)."""
        loss, mixed = self._mixed(theta)
        experts, size = theta.shape
        weighed = self.logs * mixed[:, None]
        means = weighed.sum(axis=-1)  # (N, E) of the experts' logs under the mixture
        spreads = (
            np.matmul(weighed, self.logs.swapaxes(1, 2)) - means[:, :, None] * means[:, None]
        )  # (N, E, E)
        given = self.logs[np.arange(len(means)), :, self.targets]  # (N, E)
        gradient = _product(means - given, self.inputs) + _PRIOR_WEIGHT * (theta - self.prior)
        hessian, inputs = np.empty((experts, size, experts, size)), self.inputs.astype(np.float32)
        for i in range(experts):
            for j in range(i + 1):
                hessian[i, :, j] = _product(inputs, spreads[:, i, j, None] * inputs)
                hessian[j, :, i] = hessian[i, :, j].T
        flat = hessian.reshape(experts * size, -1)
        return loss, gradient, flat + _PRIOR_WEIGHT * np.eye(len(flat))

    def _mixed(self, theta: Floats) -> tuple[float, Floats]:
        """The loss, and the mixture's probabilities (N, V)."""
        weights = np.matmul(self.inputs[:, None], theta.T)[:, 0].astype(self.logs.dtype)
        logits = np.matmul(weights[:, None], self.logs)[:, 0]
        logits -= logits.max(axis=-1, keepdims=True)
        given = logits[np.arange(len(logits)), self.targets].sum(dtype=np.float64)
        mixed = np.exp(logits)
        totals = mixed.sum(axis=-1, keepdims=True)
        mixed /= totals
        loss = np.log(totals).sum(dtype=np.float64) - given
        return float(loss + _PRIOR_WEIGHT / 2 * ((theta - self.prior) ** 2).sum()), mixed


def _product(left: Floats, right: Floats) -> Floats:
    """left.T @ right of (N, A) and (N, C), in small parts."""
    rows = max(1, _PRODUCT_VALUES // (left.shape[1] * right.shape[1]))
    whole = len(left) // rows * rows
    parts = [each[:whole].reshape(-1, rows, each.shape[1]) for each in (left, right)]
    products: Floats = np.matmul(parts[0].swapaxes(1, 2), parts[1]).sum(axis=0)
    return products + left[whole:].T @ right[whole:]


def _minimum(problem: _Problem, theta: Floats) -> Floats:
    """(E, J) where the loss is least, from `theta` on."""
    for _ in range(_ITERATIONS):
        loss, gradient, hessian = problem.derivatives(theta)
        step = np.linalg.solve(hessian, gradient.ravel()).reshape(theta.shape)
        expected = float(
            (gradient * step).sum()
        )  # twice what the loss would fall by, were it quadratic
        length = 1.0
        while (
            problem.loss(theta - length * step) > loss - 0.25 * length * expected and length > 1e-3
        ):
            length /= 2
        if expected < 1e-4 * max(1.0, len(problem.targets) / 100) or length <= 1e-3:
            break
        theta = theta - length * step
    return theta
