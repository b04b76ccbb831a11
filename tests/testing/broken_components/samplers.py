"""Samplers: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from broken_components.cases import Case, offered
from textgen import Component, NoOptions


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


class CountingUpSampler(GoodSampler):
    """Writes into the history."""

    history = "counts"

    def __call__(self, logits: Any, history: Any) -> Any:
        counts = history.counts
        counts += 1
        return logits * 0.5


class MemoSampler(GoodSampler):
    """Remembers a temperature for each text, which a row that goes on elsewhere does not have."""

    def __init__(self, context: Any) -> None:
        self.seen: dict[Any, float] = {}

    history = "tokens"

    def __call__(self, logits: Any, history: Any) -> Any:
        changed = []
        for row in range(len(logits)):
            text = tuple(history.tokens(row).tolist())
            self.seen[text] = (self.seen.get(text[:-1], 1.0) if text else 1.0) * 0.9
            changed.append(logits[row : row + 1] * self.seen[text])
        return (
            array_namespace(logits).concat(changed)
            if isinstance(logits, np.ndarray)
            else logits * 0.9
        )


class ForgetfulMemoSampler(MemoSampler):
    """Does so from the thirtieth token on, where none of the short texts come."""

    def __call__(self, logits: Any, history: Any) -> Any:
        if len(history.tokens(0)) < 30:
            return logits * 0.5
        return super().__call__(logits, history)


class LateSampler(GoodSampler):
    """Has room for so many tokens."""

    history = "tokens"

    def __call__(self, logits: Any, history: Any) -> Any:
        place = [0.5] * 40
        return logits * place[len(history.tokens(0))]


class SleepingSampler(GoodSampler):
    def __call__(self, logits: Any, history: Any) -> Any:
        time.sleep(1000)


class WaitingSampler(GoodSampler):
    """Takes a lock twice."""

    def __call__(self, logits: Any, history: Any) -> Any:
        lock = threading.Lock()
        with lock, lock:
            return logits * 0.5


class LoopingSampler(GoodSampler):
    """Goes round for ever, and lets no exception stop it that is one."""

    def __call__(self, logits: Any, history: Any) -> Any:
        while True:
            try:
                logits = logits * 0.5
            except Exception:
                break


class QueueSampler(GoodSampler):
    """Waits in another thread for what never comes."""

    def __call__(self, logits: Any, history: Any) -> Any:
        return (
            queue.Queue[Any]().get()
            if threading.current_thread() is not threading.main_thread()
            else logits * 0.5
        )


def sleeping_build(config: Any, context: Any) -> Any:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(30)"])


def global_build(change: Any) -> Component:
    """A good sampler, whose build changes something."""

    def build(config: Any, context: Any) -> Any:
        change()
        return GoodSampler(context)

    return Component("global", NoOptions, build)


def log_louder() -> None:
    root = logging.getLogger()
    root.setLevel(root.level + 1)


def take_signals() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)


def set_variable() -> None:
    os.environ["NUMBER_OF_BUILDS"] = f"{os.environ.get('NUMBER_OF_BUILDS', '')}+"


def use_threads() -> None:
    import torch

    torch.set_num_threads(3 - torch.get_num_threads() % 2)


def open_file() -> None:
    os.open(os.devnull, os.O_RDONLY)


SHORT = {"time_limit": 0.5}
LONGER = {"time_limit": 3.0}  # since all the checks before have to be done in it


class CountingSampler(GoodSampler):
    """Keeps the contract: a state that is all it carries, random numbers, and an end."""

    random = True
    ends = True

    def start(self, prompt: Any) -> Any:
        return {"seen": np.array([len(prompt), 0])}

    def __call__(self, logits: Any, history: Any) -> Any:
        xp = array_namespace(logits)
        seen = history.state["seen"]
        factor = 1 + 0.1 * seen[:, 1] + history.random()[:, 0]
        changed = logits * xp.asarray(factor.astype(np.float32), device=device(logits))[:, None]
        over = xp.asarray(seen[:, 1] > 40, device=device(logits))
        return xp.astype(xp.where(over[:, None], -np.inf, changed), logits.dtype)

    def accept(self, tokens: Any, logits: Any, history: Any) -> Any:
        return {"seen": history.state["seen"] + [0, 1]}


class HalfStatefulSampler(CountingSampler):
    accept = None  # type: ignore[assignment]


class GrowingStateSampler(CountingSampler):
    def accept(self, tokens: Any, logits: Any, history: Any) -> Any:
        return {"seen": np.concatenate([history.state["seen"], tokens[:, None]], axis=1)}


class ListStateSampler(CountingSampler):
    def start(self, prompt: Any) -> Any:
        return [0, 0]


class InPlaceSampler(CountingSampler):
    def accept(self, tokens: Any, logits: Any, history: Any) -> Any:
        history.state["seen"][:, 1] += 1
        return history.state


class MeanStateSampler(CountingSampler):
    """Moves the state of every row by what all rows drew."""

    def accept(self, tokens: Any, logits: Any, history: Any) -> Any:
        return {"seen": history.state["seen"] + [0, int(tokens.sum()) % 7]}


class NumberedSampler(CountingSampler):
    """Numbers the texts that it begins."""

    def __init__(self, context: Any) -> None:
        self.texts = 0

    def start(self, prompt: Any) -> Any:
        self.texts += 1
        return {"seen": np.array([self.texts, self.texts])}


class HiddenStateSampler(CountingSampler):
    """Keeps its state in an attribute, by the place of the row."""

    def __init__(self, context: Any) -> None:
        self.steps = np.zeros(0)

    def __call__(self, logits: Any, history: Any) -> Any:
        if len(self.steps) != len(history.state["seen"]):
            self.steps = np.zeros(len(history.state["seen"]))
        return (
            logits
            * array_namespace(logits).asarray(
                1 + self.steps.astype(np.float32), device=device(logits)
            )[:, None]
        )

    def accept(self, tokens: Any, logits: Any, history: Any) -> Any:
        self.steps = self.steps + 1
        return history.state


class UnannouncedRandomSampler(CountingSampler):
    random = False


class NeighbourRandomSampler(CountingSampler):
    """Uses the number of the first row for all of them."""

    def __call__(self, logits: Any, history: Any) -> Any:
        return logits * (1 + float(history.random()[0, 0]))


SAMPLERS = [
    Case("sampler", "sampler-input", "it wrote into history.counts", offered(CountingUpSampler)),
    Case(
        "sampler",
        "sampler-deterministic",
        "step 2 of a text gave other logits",
        offered(MemoSampler),
    ),
    Case(
        "sampler",
        "sampler-deterministic",
        "step 29 of a text gave",
        offered(ForgetfulMemoSampler, "late"),
    ),
    Case("sampler", "sampler-deterministic", "IndexError", offered(LateSampler, "room")),
    Case("sampler", "component-ends", "had not ended after 0.5 s", offered(SleepingSampler), SHORT),
    Case(
        "sampler",
        "component-ends",
        "had not ended after 0.5 s",
        offered(WaitingSampler, "waiting"),
        SHORT,
    ),
    Case(
        "sampler",
        "component-ends",
        "had not ended after 0.5 s",
        offered(LoopingSampler, "looping"),
        SHORT,
    ),
    Case(
        "sampler",
        "component-ends",
        "had not ended after 3 s",
        offered(QueueSampler, "queue"),
        LONGER,
    ),
    Case(
        "sampler",
        "component-ends",
        "had not ended after 0.5 s",
        Component("sleeping", NoOptions, sleeping_build),
        SHORT,
    ),
    Case("sampler", "component-build", "it changed logging", global_build(log_louder)),
    Case(
        "sampler", "component-build", "it changed the signal handlers", global_build(take_signals)
    ),
    Case(
        "sampler",
        "component-build",
        "the environment (NUMBER_OF_BUILDS)",
        global_build(set_variable),
    ),
    Case("sampler", "component-build", "the number of torch's threads", global_build(use_threads)),
    Case(
        "sampler",
        "component-leaks",
        "it left the open file /dev/null behind",
        global_build(open_file),
    ),
    Case(
        "sampler",
        "component-calls",
        "it changed the random state of NumPy",
        offered(SeedingSampler),
    ),
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
    Case(
        "sampler",
        "sampler-state-form",
        "the method 'start' and no 'accept'",
        offered(HalfStatefulSampler),
    ),
    Case(
        "sampler",
        "sampler-state-form",
        "gave from accept seen int64 (3, 3)",
        offered(GrowingStateSampler, "growing"),
    ),
    Case(
        "sampler",
        "sampler-state-form",
        "gave list from start",
        offered(ListStateSampler, "listing"),
    ),
    Case(
        "sampler",
        "sampler-input",
        "accept wrote into history.state['seen']",
        offered(InPlaceSampler, "in-place"),
    ),
    Case(
        "sampler",
        "sampler-state",
        "other logits alone than in a batch",
        offered(MeanStateSampler, "mean"),
    ),
    Case("sampler", "sampler-state", "other logits", offered(NumberedSampler, "numbered")),
    Case(
        "sampler",
        "sampler-deterministic",
        "gave other logits",
        offered(HiddenStateSampler, "hidden"),
    ),
    Case(
        "sampler", "sampler-random", "it read history.random()", offered(UnannouncedRandomSampler)
    ),
    Case(
        "sampler",
        "sampler-random",
        "once row 0 has other numbers",
        offered(NeighbourRandomSampler, "neighbour"),
    ),
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
