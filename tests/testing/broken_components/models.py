"""Models and decoders: one that keeps the contract, and some that break one statement of it each."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from broken_components.cases import Case, offered
from textgen import Component


class GoodModel:
    """Logits from a decaying memory of the tokens so far. Neither torch nor training."""

    decoder_class: Any = None

    def __init__(self, context: Any) -> None:
        rng = np.random.default_rng(context.seed)
        self.weights = rng.normal(size=(context.vocab_size, context.vocab_size))

    def decoder(self, batch_size: int) -> Any:
        return (self.decoder_class or GoodDecoder)(self, batch_size)

    def tensors(self) -> Any:
        return {"weights": self.weights}

    def load_tensors(self, tensors: Any) -> None:
        if set(tensors) != {"weights"} or tensors["weights"].shape != self.weights.shape:
            raise ValueError("these are other weights")
        self.weights = tensors["weights"]


class GoodDecoder:
    def __init__(self, model: Any, batch_size: int) -> None:
        self.model = model
        self.memory = np.zeros((batch_size, len(model.weights)))

    @property
    def batch_size(self) -> int:
        return len(self.memory)

    def extend(self, tokens: Any) -> Any:
        for column in tokens.T:
            self.memory = 0.5 * self.memory
            self.memory[np.arange(len(column)), column] += 1
        return np.stack([row @ self.model.weights for row in self.memory])

    def score(self, tokens: Any) -> Any:
        return np.stack([self.extend(tokens[:, t : t + 1]) for t in range(tokens.shape[1])], axis=1)

    def read_state(self) -> Any:
        return {"memory": self.memory.copy()}

    def write_state(self, state: Any) -> None:
        self.memory = state["memory"].copy()


def with_decoder(decoder: type) -> Component:
    """A model that is good but for its decoders."""
    return offered(type("Model", (GoodModel,), {"decoder_class": decoder}))


class LastOnlyDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        return super().extend(tokens)[:, None]


class HalfDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        return super().extend(tokens).astype(np.float16)


class NaNDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.log(super().extend(tokens))


class NoisyDecoder(GoodDecoder):
    noise = np.random.default_rng()

    def extend(self, tokens: Any) -> Any:
        logits = super().extend(tokens)
        return logits + self.noise.normal(size=logits.shape)


class WritingDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        tokens[tokens < 1] = 1
        return super().extend(tokens)


class SharedOutputDecoder(GoodDecoder):
    """Remembers its logits where the caller may write into them."""

    logits: Any = None

    def extend(self, tokens: Any) -> Any:
        if tokens.shape[1] or self.logits is None:
            self.logits = super().extend(tokens)
        return self.logits

    def write_state(self, state: Any) -> None:
        super().write_state(state)
        self.logits = None


class LastTokenDecoder(GoodDecoder):
    """Fed at once, all but the last token is forgotten."""

    def extend(self, tokens: Any) -> Any:
        return super().extend(tokens[:, -1:])


class MeanDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        logits = super().extend(tokens)
        return logits - logits.mean(axis=0) * 0.1


class StatelessDecoder(GoodDecoder):
    def read_state(self) -> Any:
        return {}


class TransposedDecoder(GoodDecoder):
    def read_state(self) -> Any:
        return {"memory": self.memory.T.copy()}

    def write_state(self, state: Any) -> None:
        self.memory = state["memory"].T.copy()


class ForgetfulDecoder(GoodDecoder):
    """Part of what it carries is not in its state."""

    count = 0

    def extend(self, tokens: Any) -> Any:
        self.count += tokens.shape[1]
        return super().extend(tokens) * (1 + self.count)


class FixedBatchDecoder(GoodDecoder):
    def write_state(self, state: Any) -> None:
        self.memory[:] = state["memory"][: len(self.memory)]


class AliasDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        for column in tokens.T:
            self.memory *= 0.5
            self.memory[np.arange(len(column)), column] += 1
        return super().extend(tokens[:, :0])

    def read_state(self) -> Any:
        return {"memory": self.memory}


class SecondBestDecoder(GoodDecoder):
    """Takes what is least likely."""

    def continue_greedily(self, tokens: Any, steps: int, forbidden: Any) -> Any:
        made = []
        for _ in range(steps):
            tokens = self.extend(tokens[:, None]).argmin(axis=-1)
            made.append(tokens)
        return np.stack(made, axis=1)


class OverfedDecoder(GoodDecoder):
    """Feeds the last token that it returns."""

    def continue_greedily(self, tokens: Any, steps: int, forbidden: Any) -> Any:
        made = []
        logits = self.extend(tokens[:, None])
        for _ in range(steps):
            logits = logits.copy()
            logits[:, forbidden] = -np.inf
            made.append(logits.argmax(axis=-1))
            logits = self.extend(made[-1][:, None])
        return np.stack(made, axis=1)


class RowDecoder(GoodDecoder):
    """Keeps its contract, and offers to take rows out and in."""

    def take(self, rows: Any) -> Any:
        taken = type(self)(self.model, len(rows))
        taken.memory = self.memory[rows]
        return taken

    def join(self, other: Any) -> None:
        self.memory = np.concatenate([self.memory, other.memory])


class OneWayDecoder(GoodDecoder):
    take = RowDecoder.take


class EmptiedDecoder(RowDecoder):
    """Hands its rows out and keeps none of what they hold."""

    def take(self, rows: Any) -> Any:
        taken = super().take(rows)
        self.memory[rows] = 0
        return taken


class PrependingDecoder(RowDecoder):
    def join(self, other: Any) -> None:
        self.memory = np.concatenate([other.memory, self.memory])


class RoundingDecoder(RowDecoder):
    """Joined rows are not the same to the last bit."""

    def join(self, other: Any) -> None:
        super().join(other)
        self.memory = self.memory.astype(np.float32).astype(np.float64) * (1 + 1e-9)


class PaddedDecoder(RowDecoder):
    """The state of a row that was joined tells how many rows there were."""

    rows = 1

    def take(self, rows: Any) -> Any:
        taken = super().take(rows)
        taken.rows = self.rows
        return taken

    def join(self, other: Any) -> None:
        super().join(other)
        self.rows = self.batch_size

    def read_state(self) -> Any:
        return {"memory": self.memory.copy(), "padding": np.zeros((self.batch_size, self.rows))}


class SharedDecoder(GoodDecoder):
    """One memory for all decoders of a batch size, cleared when one begins."""

    memories: ClassVar[dict[int, Any]] = {}

    def __init__(self, model: Any, batch_size: int) -> None:
        self.model, self.size = model, batch_size
        self.memory = np.zeros((batch_size, len(model.weights)))

    @property
    def memory(self) -> Any:
        return self.memories[self.size]

    @memory.setter
    def memory(self, value: Any) -> None:
        self.size = len(value)
        self.memories[self.size] = value


class ShortDecoder(GoodDecoder):
    fed = 0

    def extend(self, tokens: Any) -> Any:
        self.fed += tokens.shape[1]
        if self.fed > 100:
            raise IndexError("more than 100 positions")
        return super().extend(tokens)


class UnsavedModel(GoodModel):
    def load_tensors(self, tensors: Any) -> None:
        if set(tensors) != {"weights"} or tensors["weights"].shape != self.weights.shape:
            raise ValueError("these are other weights")


class TrustingModel(GoodModel):
    def load_tensors(self, tensors: Any) -> None:
        self.weights = tensors.get("weights", self.weights)


class UnseededModel(GoodModel):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.weights = np.random.default_rng().normal(size=self.weights.shape)


class NoisyExtendDecoder(GoodDecoder):
    """Scores well, and draws only where it is fed."""

    noise = np.random.default_rng()

    def extend(self, tokens: Any) -> Any:
        logits = super().extend(tokens)
        return logits + self.noise.normal(size=logits.shape)

    def score(self, tokens: Any) -> Any:
        return np.stack(
            [GoodDecoder.extend(self, tokens[:, t : t + 1]) for t in range(tokens.shape[1])], axis=1
        )


class GlobalDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        np.random.normal()
        return super().extend(tokens)


class TensorDecoder(GoodDecoder):
    """Gives tensors, on a CPU too."""

    def extend(self, tokens: Any) -> Any:
        import torch

        return torch.from_numpy(super().extend(tokens))

    def score(self, tokens: Any) -> Any:
        import torch

        steps = [GoodDecoder.extend(self, tokens[:, t : t + 1]) for t in range(tokens.shape[1])]
        return torch.from_numpy(np.stack(steps, axis=1))


class PausingDecoder(GoodDecoder):
    """Scores without feeding."""

    def score(self, tokens: Any) -> Any:
        kept = self.memory.copy()
        scored = super().score(tokens)
        self.memory = kept
        return scored


class ForesightDecoder(GoodDecoder):
    """Lacks a causal mask: each place sees the whole of what is scored."""

    def score(self, tokens: Any) -> Any:
        scored = super().score(tokens)
        return scored + scored.mean(axis=1, keepdims=True)


class CapacityDecoder(GoodDecoder):
    """Has places for 1,024 tokens."""

    fed = 0

    def extend(self, tokens: Any) -> Any:
        self.fed += tokens.shape[1]
        if self.fed > 1024:
            raise IndexError("more than 1,024 positions")
        return super().extend(tokens)


class StaleModel(GoodModel):
    """Makes a copy for its decoders, once."""

    copy: Any = None

    def decoder(self, batch_size: int) -> Any:
        if self.copy is None:
            self.copy = GoodModel.__new__(GoodModel)
            self.copy.weights = self.weights.astype(np.float32)
        return GoodDecoder(self.copy, batch_size)


MODELS = [
    Case("model", "model-stepwise", "after score() of", with_decoder(PausingDecoder)),
    Case(
        "model",
        "model-causal",
        "and those that follow gave logits that differ",
        with_decoder(ForesightDecoder),
    ),
    Case("model", "model-length", "more than 1,024 positions", with_decoder(CapacityDecoder)),
    Case("model", "model-saved", "has the weights from before", offered(StaleModel, "stale")),
    Case(
        "model",
        "model-deterministic",
        "extend() of a second decoder",
        with_decoder(NoisyExtendDecoder),
    ),
    Case(
        "model",
        "component-calls",
        "it changed the random state of NumPy",
        with_decoder(GlobalDecoder),
    ),
    Case("model", "model-dtype", "extend() gave a Tensor on a CPU", with_decoder(TensorDecoder)),
    Case(
        "model",
        "model-shape",
        "extend() of tokens (1, 0) gave (1, 1, ",
        with_decoder(LastOnlyDecoder),
    ),
    Case("model", "model-dtype", "extend() gave float16", with_decoder(HalfDecoder)),
    Case("model", "model-finite", "NaN after", with_decoder(NaNDecoder)),
    Case("model", "model-input", "changed the tokens", with_decoder(WritingDecoder)),
    Case("model", "model-deterministic", "a second decoder", with_decoder(NoisyDecoder)),
    Case("model", "model-output", "after the caller wrote", with_decoder(SharedOutputDecoder)),
    Case("model", "model-stepwise", "than score()", with_decoder(LastTokenDecoder)),
    Case("model", "model-greedy", "not the likeliest", with_decoder(SecondBestDecoder)),
    Case("model", "model-greedy", "extend() gave logits", with_decoder(OverfedDecoder)),
    Case("model", "model-rows", "than it gives alone", with_decoder(MeanDecoder)),
    Case("model", "model-state-form", "is empty", with_decoder(StatelessDecoder)),
    Case(
        "model", "model-state-form", "memory of a batch of 3 is (", with_decoder(TransposedDecoder)
    ),
    Case("model", "model-state", "took the state over", with_decoder(ForgetfulDecoder)),
    Case("model", "model-state-rows", "batch_size is 3", with_decoder(FixedBatchDecoder)),
    Case("model", "model-state-copy", "changed memory", with_decoder(AliasDecoder)),
    Case("model", "model-take-join", "offers take() alone", with_decoder(OneWayDecoder)),
    Case("model", "model-take-join", "after a second take() of rows", with_decoder(EmptiedDecoder)),
    Case(
        "model",
        "model-take-join",
        "after join() gave logits that differ",
        with_decoder(PrependingDecoder),
    ),
    Case(
        "model", "model-take-join", "though exact_rows is not False", with_decoder(RoundingDecoder)
    ),
    Case("model", "model-take-join", "padding of a row's state", with_decoder(PaddedDecoder)),
    Case("model", "model-decoders", "other decoders at work", with_decoder(SharedDecoder)),
    Case("model", "model-length", "more than 100 positions", with_decoder(ShortDecoder)),
    Case("model", "model-saved", "the weights from before (training=True)", offered(UnsavedModel)),
    Case("model", "model-refuses", "were taken", offered(TrustingModel)),
    Case("model", "model-seed", "of the same seed differs", offered(UnseededModel)),
]


class AllNaNDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        return super().extend(tokens) * np.nan


class RaisingDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        return super().extend(tokens) * (1 / 0)


class RaisingModel(GoodModel):
    decoder_class = RaisingDecoder
