"""Samplers: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from broken_components.cases import Case, offered


class GoodSampler:
    history = "none"

    def __init__(self, context: Any) -> None:
        pass

    def __call__(self, logits: Any, history: Any) -> Any:
        return logits * 0.5


class ShortSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        return logits[:, :-1]


class WideSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        return logits.astype(np.float64) if isinstance(logits, np.ndarray) else logits.double()


class WritingSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        logits[:, 0] -= 1
        return logits


class CuriousSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        return logits * (0.5 if history.counts.any() else 1)


class MisspeltSampler(GoodSampler):
    history = "all"


class NoisySampler(GoodSampler):
    noise = np.random.default_rng()

    def __call__(self, logits: Any, history: Any) -> Any:
        return logits * float(self.noise.uniform(0.5, 1))


class WarmingSampler(GoodSampler):
    """Another temperature at each call."""

    calls = 0

    def __call__(self, logits: Any, history: Any) -> Any:
        self.calls += 1
        return logits / self.calls


class SquareRootSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        with np.errstate(all="ignore"):
            return logits**0.5


class MaskAllSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        return logits - np.inf


class RevivingSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        return logits.clip(-100)


class BatchSampler(GoodSampler):
    """Forbids what is less likely than the mean of the whole batch."""

    def __call__(self, logits: Any, history: Any) -> Any:
        best = logits.max()
        return logits - (best if abs(float(best)) < 1e30 else 0)


class BoastingSampler(GoodSampler):
    deterministic = True


class NumpySampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        return np.asarray(logits) * np.asarray(logits).dtype.type(0.5)


class SeedingSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        np.random.seed(0)
        return logits * float(np.random.uniform(0.5, 1))


class ThroughNumpySampler(GoodSampler):
    """Computes in NumPy, and gives back what it got."""

    def __call__(self, logits: Any, history: Any) -> Any:
        changed = np.asarray(logits) * np.asarray(logits).dtype.type(0.5)
        return changed if isinstance(logits, np.ndarray) else type(logits)(changed).to(logits.dtype)


class DevicelessSampler(GoodSampler):
    """Makes a new array where torch makes one by itself."""

    def __call__(self, logits: Any, history: Any) -> Any:
        xp = array_namespace(logits)
        return xp.where(xp.arange(logits.shape[1]) == 0, logits * 0.5, logits)


class DeviceSampler(GoodSampler):
    """Keeps the contract: it makes a new array on the device, and looks at a number."""

    def __call__(self, logits: Any, history: Any) -> Any:
        xp = array_namespace(logits)
        places = xp.arange(logits.shape[1], device=device(logits))
        changed = xp.where(places == 0, logits * 0.5, logits)
        return changed if bool(xp.any(places > 0)) else logits


SAMPLERS = [
    Case("sampler", "component-calls", "it changed the random state of NumPy", offered(SeedingSampler)),
    Case("sampler", "sampler-device", "can't convert meta device", offered(ThroughNumpySampler)),
    Case("sampler", "sampler-device", "is not on the expected device", offered(DevicelessSampler)),
    Case("sampler", "sampler-shape", "came back as (", offered(ShortSampler)),
    Case("sampler", "sampler-dtype", "of float32 came back as float64", offered(WideSampler)),
    Case("sampler", "sampler-input", "it wrote into the logits", offered(WritingSampler)),
    Case("sampler", "sampler-history", "it read history.counts", offered(CuriousSampler)),
    Case("sampler", "sampler-history", "history is 'all'", offered(MisspeltSampler)),
    Case("sampler", "sampler-deterministic", "a second time", offered(NoisySampler)),
    Case("sampler", "sampler-deterministic", "a second time", offered(WarmingSampler, "warming")),
    Case("sampler", "sampler-finite", "made NaN", offered(SquareRootSampler)),
    Case("sampler", "sampler-possible", "every token of a row", offered(MaskAllSampler)),
    Case("sampler", "sampler-forbidden", "came back possible", offered(RevivingSampler)),
    Case("sampler", "sampler-rows", "alone than in the batch", offered(BatchSampler)),
    Case("sampler", "sampler-promise", "it left the tokens", offered(BoastingSampler)),
    Case("sampler", "sampler-torch", "a tensor of torch.float", offered(NumpySampler)),
]


class RaisingSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        return logits * (1 / 0)


class SeldomRaisingSampler(GoodSampler):
    """Takes everyday logits, and not those that an earlier sampler has thinned out."""

    def __call__(self, logits: Any, history: Any) -> Any:
        if (np.asarray(logits) == -np.inf).sum() > 1:
            return logits * (1 / 0)
        return super().__call__(logits, history)


class PrintingSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        print("here")
        return super().__call__(logits, history)


class NaNSampler(GoodSampler):
    deterministic = True

    def __call__(self, logits: Any, history: Any) -> Any:
        return logits * float("nan")
