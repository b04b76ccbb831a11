"""Components that keep their contracts, and for each kind some that break one statement of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import attrs
import click
import numpy as np
from array_api_compat import array_namespace, device

from textgen import Component, NoOptions, PromptError, UsageError, option
from textgen.events import Evaluated, Evaluation, RunFinished, RunStarted, StepDone
from textgen.protocols import TrainerState


@attrs.frozen
class Case:
    """A component that breaks the statement of this anchor, and what must be said to have been seen."""

    kind: str
    statement: str
    seen: str
    component: Component
    arguments: dict[str, Any] = attrs.field(factory=dict)

    @property
    def id(self) -> str:
        return f"{self.statement}-{self.component.name}"


def offered(made: Any, name: str = "good") -> Component:
    """A component without options; a class is called with the context, anything else is what is built."""
    return Component(name, NoOptions, lambda config, context: made(context) if isinstance(made, type) else made)


# Records


@attrs.frozen
class SilentConfig:
    """Has an option without help."""

    size: int = 3


@attrs.define
class ChangingConfig:
    """Is not frozen."""

    size: int = option(3, help="how many")


@attrs.frozen
class ForgetfulConfig:
    """Refuses its own default."""

    size: int = option("three", help="how many")


@attrs.frozen
class RequiredConfig:
    """Needs an option."""

    size: int = option(help="how many")


# Corpora


class GoodCorpus:
    def __init__(self, context: Any) -> None:
        pass

    def read(self) -> Any:
        yield from ("The first piece.\n", "", "And the second.\n")


class BytesCorpus(GoodCorpus):
    def read(self) -> Any:
        yield b"not text"


class HugePieceCorpus(GoodCorpus):
    def read(self) -> Any:
        yield "a" * 20_000_000


class EmptyCorpus(GoodCorpus):
    def read(self) -> Any:
        yield ""


class SurrogateCorpus(GoodCorpus):
    def read(self) -> Any:
        yield "half of a character: \ud83d"


class OtherEachTimeCorpus(GoodCorpus):
    numbers = iter(range(10**6))

    def read(self) -> Any:
        yield f"text {next(self.numbers)}"


class OnceCorpus(GoodCorpus):
    def __init__(self, context: Any) -> None:
        self.pieces = iter(["the only", " text"])

    def read(self) -> Any:
        return self.pieces


class OneReaderCorpus(GoodCorpus):
    """Reads well, if one reader is done before the next begins."""

    place = 0

    def read(self) -> Any:
        self.place = 0
        while self.place < 200:
            self.place += 1
            yield f"line {self.place}"


def unreadable(config: Any, context: Any) -> Any:
    raise FileNotFoundError(2, "No such file", "nowhere.txt")


class StrCorpus(GoodCorpus):
    def read(self) -> Any:
        return "one character per piece"


class NoneCorpus(GoodCorpus):
    def read(self) -> Any:
        pass


class SeedingCorpus(GoodCorpus):
    def read(self) -> Any:
        random.seed(3)
        yield f"{random.random()}"


CORPORA = [
    Case("corpus", "corpus-pieces", "read() gave a str", offered(StrCorpus)),
    Case("corpus", "corpus-pieces", "read() gave None", offered(NoneCorpus)),
    Case("corpus", "component-calls", "it changed the random state of `random`", offered(SeedingCorpus)),
    Case("corpus", "corpus-pieces", "of type bytes", offered(BytesCorpus)),
    Case("corpus", "corpus-pieces", "20,000,000 characters", offered(HugePieceCorpus)),
    Case("corpus", "corpus-text", "no character", offered(EmptyCorpus)),
    Case("corpus", "corpus-text", "U+D83D", offered(SurrogateCorpus)),
    Case("corpus", "corpus-again", "another text a second time", offered(OtherEachTimeCorpus)),
    Case("corpus", "corpus-again", "another text a second time", offered(OnceCorpus)),
    Case("corpus", "corpus-readers", "in turn", offered(OneReaderCorpus)),
    Case("corpus", "corpus-errors", "it raised nothing", offered(GoodCorpus), {"unreadable": {}}),
]


# Tokenizers


class GoodTokenizer:
    """One token per character seen, 0 for others."""

    unknown_id: Any = 0

    def __init__(self, context: Any = None) -> None:
        self.characters: str | None = None

    @property
    def vocab_size(self) -> Any:
        if self.characters is None:
            raise ValueError("not fitted")
        return len(self.characters) + 1

    def fit(self, pieces: Any) -> None:
        self.characters = "".join(sorted(set("".join(pieces))))

    def encode(self, text: str) -> Any:
        assert self.characters is not None
        return np.array([self.characters.find(c) + 1 for c in text], np.int64)

    def encode_pieces(self, pieces: Any) -> Any:
        return map(self.encode, pieces)

    def decode(self, ids: Any) -> Any:
        return "".join(("?" + str(self.characters))[i] for i in ids)

    def incremental_decoder(self) -> Any:
        return Stream(self)

    def to_dict(self) -> Any:
        return {"characters": self.characters}

    def from_dict(self, state: Any) -> Any:
        made = type(self)()
        made.characters = state["characters"]
        return made


@attrs.define
class Stream:
    tokenizer: Any

    def decode(self, ids: Any, final: bool = False) -> str:
        return str(self.tokenizer.decode(ids))


class HashOrderedTokenizer(GoodTokenizer):
    """Numbers a set, in an order that holds as long as the process."""

    def fit(self, pieces: Any) -> None:
        self.characters = "".join(sorted(set("".join(pieces)), key=hash))


class NothingReadTokenizer(GoodTokenizer):
    def fit(self, pieces: Any) -> None:
        self.characters = "abc"


class CutTokenizer(GoodTokenizer):
    """Learns the first character of each piece."""

    def fit(self, pieces: Any) -> None:
        self.characters = "".join(sorted({piece[0] for piece in pieces if piece}))


class FloatSizeTokenizer(GoodTokenizer):
    @property
    def vocab_size(self) -> Any:
        return float(super().vocab_size)


class FloatIdsTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return super().encode(text).astype(float)


class MatrixTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return super().encode(text)[None]


class OutOfRangeTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return super().encode(text) + self.vocab_size


class UnsortedTokenizer(GoodTokenizer):
    def fit(self, pieces: Any) -> None:
        shuffled = sorted(set("".join(pieces)))
        random.Random(next(self.seeds)).shuffle(shuffled)
        self.characters = "".join(shuffled)

    seeds: ClassVar[Any] = iter(range(10**6))


class StumblingTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        if any(c not in str(self.characters) for c in text):
            raise KeyError(text)
        return super().encode(text)


class RefusingTokenizer(GoodTokenizer):
    """Keeps the contract: it says what it cannot encode."""

    unknown_id = None

    def encode(self, text: str) -> Any:
        if lacking := [c for c in text if c not in str(self.characters)]:
            raise PromptError(lacking)
        return super().encode(text)


class RewordingTokenizer(GoodTokenizer):
    def decode(self, ids: Any) -> Any:
        return super().decode(ids).replace("e", "i")


class PieceMarkTokenizer(GoodTokenizer):
    """Puts a mark at the beginning of every text, and so of every piece."""

    def encode(self, text: str) -> Any:
        return np.concatenate([[1], super().encode(text)])

    def decode(self, ids: Any) -> Any:
        return super().decode(ids[1:])


class LosingStream(Stream):
    def decode(self, ids: Any, final: bool = False) -> str:
        return "" if final else super().decode(ids)


class LosingTokenizer(GoodTokenizer):
    def incremental_decoder(self) -> Any:
        return LosingStream(self)


class UnsavedTokenizer(GoodTokenizer):
    def to_dict(self) -> Any:
        return {"characters": "".join(reversed(str(self.characters)))}


class ObjectTokenizer(GoodTokenizer):
    def to_dict(self) -> Any:
        return {"characters": {self.characters}}


class WritingTokenizer(GoodTokenizer):
    def decode(self, ids: Any) -> Any:
        ids[ids < 0] = 0
        return super().decode(ids)


class SeedingTokenizer(GoodTokenizer):
    def fit(self, pieces: Any) -> None:
        np.random.seed(0)
        super().fit(pieces)


class ForgetfulTokenizer(GoodTokenizer):
    def from_dict(self, state: Any) -> Any:
        super().from_dict(state)


TOKENIZERS = [
    Case("tokenizer", "component-calls", "it changed the random state of NumPy", offered(SeedingTokenizer)),
    Case("tokenizer", "tokenizer-saved", "what from_dict() gave is None", offered(ForgetfulTokenizer)),
    Case("tokenizer", "tokenizer-fit", "left pieces unread", offered(NothingReadTokenizer)),
    Case("tokenizer", "tokenizer-fit", "in pieces of 7 characters", offered(CutTokenizer, "cut")),
    Case("tokenizer", "tokenizer-vocabulary", "after fit()", offered(FloatSizeTokenizer)),
    Case("tokenizer", "tokenizer-ids", "gave float64", offered(FloatIdsTokenizer)),
    Case("tokenizer", "tokenizer-ids", "gave int64 (1, ", offered(MatrixTokenizer)),
    Case("tokenizer", "tokenizer-ids", "gave ids from", offered(OutOfRangeTokenizer)),
    Case("tokenizer", "tokenizer-deterministic", "a second time", offered(UnsortedTokenizer)),
    Case("tokenizer", "tokenizer-any-text", "raised KeyError", offered(StumblingTokenizer)),
    Case("tokenizer", "tokenizer-decode", "read-only", offered(WritingTokenizer)),
    Case("tokenizer", "tokenizer-round-trip", "which decodes to", offered(RewordingTokenizer)),
    Case("tokenizer", "tokenizer-pieces", "joined", offered(PieceMarkTokenizer)),
    Case("tokenizer", "tokenizer-stream", "at once", offered(LosingTokenizer)),
    Case("tokenizer", "tokenizer-saved", "encodes or decodes otherwise", offered(UnsavedTokenizer)),
    Case("tokenizer", "tokenizer-saved", "what JSON cannot", offered(ObjectTokenizer)),
]


# Models


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
        return np.stack([GoodDecoder.extend(self, tokens[:, t : t + 1]) for t in range(tokens.shape[1])], axis=1)


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


MODELS = [
    Case("model", "model-deterministic", "extend() of a second decoder", with_decoder(NoisyExtendDecoder)),
    Case("model", "component-calls", "it changed the random state of NumPy", with_decoder(GlobalDecoder)),
    Case("model", "model-dtype", "extend() gave a Tensor on a CPU", with_decoder(TensorDecoder)),
    Case("model", "model-shape", "extend() of tokens (1, 0) gave (1, 1, ", with_decoder(LastOnlyDecoder)),
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
    Case("model", "model-state-form", "memory of a batch of 3 is (", with_decoder(TransposedDecoder)),
    Case("model", "model-state", "took the state over", with_decoder(ForgetfulDecoder)),
    Case("model", "model-state-rows", "batch_size is 3", with_decoder(FixedBatchDecoder)),
    Case("model", "model-state-copy", "changed memory", with_decoder(AliasDecoder)),
    Case("model", "model-decoders", "other decoders at work", with_decoder(SharedDecoder)),
    Case("model", "model-length", "more than 100 positions", with_decoder(ShortDecoder)),
    Case("model", "model-saved", "logits that differ", offered(UnsavedModel)),
    Case("model", "model-refuses", "were taken", offered(TrustingModel)),
    Case("model", "model-seed", "of the same seed differs", offered(UnseededModel)),
]


# Trainers


class GoodTrainer:
    """Moves the head's bias towards the logarithm of the tokens' frequency, in four steps."""

    steps = 4
    rate = 0.5

    def __init__(self, context: Any) -> None:
        self.step = 0
        self.evaluated = False

    def train(self, model: Any, data: Any, context: Any) -> Any:
        if not hasattr(model, "tensors"):
            raise UsageError("there is nothing to train: the model has no tensors")
        goal = np.log(np.bincount(data.training, minlength=data.vocab_size) + 1.0)
        while self.step < self.steps:
            self.step += 1
            self.update(model, goal, context)
            yield self.done(data)
        if not self.evaluated:
            self.evaluated = True
            held_out = 2.0 if len(data.validation) else None
            yield Evaluated(step=self.step, epoch=self.step, training_loss=2.0, validation_loss=held_out)

    def update(self, model: Any, goal: Any, context: Any) -> None:
        bias = model.tensors()["head.bias"]
        model.load_tensors({**model.tensors(), "head.bias": (bias + self.rate * (goal - bias)).astype(np.float32)})

    def done(self, data: Any) -> Any:
        return StepDone(step=self.step, steps=self.steps, epoch=self.step, loss=2.0, tokens=len(data.training))

    def state(self) -> Any:
        return TrainerState({}, {"step": self.step, "evaluated": self.evaluated})

    def load_state(self, state: Any) -> None:
        self.step, self.evaluated = state.values["step"], state.values["evaluated"]


class DictTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return {"step": self.step}


class FromZeroTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return attrs.evolve(super().done(data), step=self.step - 1)


class NaNTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return attrs.evolve(super().done(data), loss=float("nan"))


class BlindTrainer(GoodTrainer):
    """Never evaluates."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.evaluated = True


class IdleTrainer(GoodTrainer):
    rate = 0.0


class NoisyTrainer(GoodTrainer):
    noise = np.random.default_rng()

    def update(self, model: Any, goal: Any, context: Any) -> None:
        super().update(model, goal + self.noise.normal(size=goal.shape) * 0.01, context)


class GlobalTrainer(GoodTrainer):
    def update(self, model: Any, goal: Any, context: Any) -> None:
        np.random.seed(context.seed)
        super().update(model, goal + np.random.normal(size=goal.shape) * 0.01, context)


class TalkingTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        print("step", self.step)
        return super().done(data)


class MomentumTrainer(GoodTrainer):
    """Its momentum is not in its state."""

    momentum: Any = 0.0

    def update(self, model: Any, goal: Any, context: Any) -> None:
        bias = model.tensors()["head.bias"]
        self.momentum = 0.5 * self.momentum + 0.2 * (goal - bias)
        model.load_tensors({**model.tensors(), "head.bias": (bias + self.momentum).astype(np.float32)})


class EndlessTrainer(GoodTrainer):
    """Begins again when it is done."""

    def load_state(self, state: Any) -> None:
        super().load_state(state)
        if self.evaluated:
            self.step, self.evaluated = 0, False


class ObjectStateTrainer(GoodTrainer):
    def state(self) -> Any:
        return TrainerState({}, {"step": self.step, "evaluated": self.evaluated, "self": self})


class WritingTrainer(GoodTrainer):
    def train(self, model: Any, data: Any, context: Any) -> Any:
        data.training.sort()
        yield from super().train(model, data, context)


class StumblingTrainer(GoodTrainer):
    def train(self, model: Any, data: Any, context: Any) -> Any:
        model.tensors()
        yield from super().train(model, data, context)


class YieldlessTrainer(GoodTrainer):
    def train(self, model: Any, data: Any, context: Any) -> Any:
        for _ in super().train(model, data, context):
            pass


class FloatTrainer(GoodTrainer):
    def done(self, data: Any) -> Any:
        return 2.0


class DictStateTrainer(GoodTrainer):
    def state(self) -> Any:
        return {"step": self.step}


TRAINERS = [
    Case("trainer", "trainer-events", "train() gave None; is a `yield` missing?", offered(YieldlessTrainer)),
    Case("trainer", "trainer-events", "it yielded float", offered(FloatTrainer)),
    Case("trainer", "trainer-state-form", "state() gave dict", offered(DictStateTrainer)),
    Case("trainer", "trainer-events", "yielded dict", offered(DictTrainer)),
    Case("trainer", "trainer-data", "read-only", offered(WritingTrainer)),
    Case("trainer", "trainer-steps", "[0, 1, 2, 3", offered(FromZeroTrainer)),
    Case("trainer", "trainer-steps", "is nan", offered(NaNTrainer)),
    Case("trainer", "trainer-evaluates", "the last event is StepDone", offered(BlindTrainer)),
    Case("trainer", "trainer-learns", "the loss was", offered(IdleTrainer)),
    Case("trainer", "trainer-quiet", "to stdout", offered(TalkingTrainer)),
    Case("trainer", "trainer-quiet", "random state of NumPy", offered(GlobalTrainer)),
    Case("trainer", "trainer-deterministic", "another head.bias", offered(NoisyTrainer)),
    Case("trainer", "trainer-state-form", "more than JSON can hold", offered(ObjectStateTrainer)),
    Case("trainer", "trainer-resumes", "another head.bias", offered(MomentumTrainer)),
    Case("trainer", "trainer-finished", "yielded StepDone", offered(EndlessTrainer)),
    Case("trainer", "trainer-refuses", "raised AttributeError", offered(StumblingTrainer)),
]


# Samplers


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


# Observers


class GoodObserver:
    def __init__(self, context: Any) -> None:
        self.path: Path = context.directory / "seen.txt"
        self.console = context.console

    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted):
            rows = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
            self.path.write_text("".join(row for row in rows if int(row.split()[0]) <= event.step))
        if isinstance(event, Evaluation):
            with self.path.open("a") as file:
                file.write(self.row(event))

    def row(self, event: Any) -> str:
        return f"{event.step} {event.training_loss}\n"


class HeldOutObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        if isinstance(event, Evaluation):
            self.path.write_text(f"{event.validation_loss:.3f}")


class KnowingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        {"RunStarted": 0, "StepDone": 0, "Evaluation": 0, "Checkpointed": 0, "RunFinished": 0}[type(event).__name__]


class FromTheStartObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted) and event.step:
            self.path.read_text()


class DividingObserver(GoodObserver):
    steps = 0

    def observe(self, event: Any) -> None:
        self.steps += isinstance(event, StepDone)
        if isinstance(event, RunFinished):
            self.path.write_text(str(1 / self.steps))


class PrintingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        print(type(event).__name__)


class ConsoleObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        if self.console is not None:
            self.console.write(event)


class StrayObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        Path("seen.txt").write_text("here")


class TidyingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        (self.path.parent / "run.json").write_text("{}")


class OneFileObserver(GoodObserver):
    """All observers write to the file that the first of their runs has opened."""

    file: ClassVar[Any] = None

    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted) and OneFileObserver.file is None:
            OneFileObserver.file = self.path
        if isinstance(event, StepDone) and OneFileObserver.file is not None:
            OneFileObserver.file.write_text("seen")
        if isinstance(event, RunFinished):
            OneFileObserver.file = None


class AppendingObserver(GoodObserver):
    """Keeps what it wrote after the step where the run goes on."""

    def observe(self, event: Any) -> None:
        if isinstance(event, Evaluation):
            with self.path.open("a") as file:
                file.write(self.row(event))


class MetricsObserver(GoodObserver):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.path = context.directory / "metrics.jsonl"


class EarlyObserver(GoodObserver):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.path.touch()


class CountingObserver(GoodObserver):
    """Numbers its rows for as long as the process lives."""

    count: ClassVar[int] = 0

    def row(self, event: Any) -> str:
        CountingObserver.count += 1
        return f"{event.step} {CountingObserver.count}\n"


class SharedCountObserver(GoodObserver):
    """Numbers its rows from the beginning of whichever run began last."""

    count: ClassVar[int] = 0

    def observe(self, event: Any) -> None:
        if isinstance(event, RunStarted):
            SharedCountObserver.count = event.step
        super().observe(event)

    def row(self, event: Any) -> str:
        SharedCountObserver.count += 1
        return f"{event.step} {SharedCountObserver.count}\n"


class SeedingObserver(GoodObserver):
    def observe(self, event: Any) -> None:
        random.seed(0)


OBSERVERS = [
    Case("observer", "observer-resumed", "has the line '6 0.5' twice", offered(AppendingObserver)),
    Case("observer", "observer-files", "it wrote metrics.jsonl, a name that textgen", offered(MetricsObserver)),
    Case("observer", "observer-files", "build made seen.txt", offered(EarlyObserver)),
    Case("observer", "observer-apart", "CountingObserver.count had changed", offered(CountingObserver, "counting")),
    Case("observer", "observer-apart", "seen.txt came out otherwise than alone", offered(SharedCountObserver)),
    Case("observer", "component-calls", "the random state of `random`", offered(SeedingObserver)),
    Case("observer", "observer-run", "observe(Evaluation of step 2) raised TypeError", offered(HeldOutObserver)),
    Case("observer", "observer-run", "observe(RunStarted of step 0) raised TypeError", offered(ConsoleObserver)),
    Case("observer", "observer-unknown", "observe(UnknownEvent", offered(KnowingObserver)),
    Case("observer", "observer-resumed", "raised FileNotFoundError", offered(FromTheStartObserver)),
    Case("observer", "observer-failed", "raised ZeroDivisionError", offered(DividingObserver)),
    Case("observer", "observer-console", "with no console it wrote 'RunStarted", offered(PrintingObserver)),
    Case("observer", "observer-files", "seen.txt, outside the run directory", offered(StrayObserver)),
    Case("observer", "observer-files", "it changed run.json", offered(TidyingObserver)),
    Case("observer", "observer-apart", "beside another run", offered(OneFileObserver)),
]


# Commands


def commanded(build: Any, config: type = NoOptions) -> Component:
    """A command."""
    return Component("good", config, build)


def good_command(config: Any, context: Any) -> Any:
    @click.command("good")
    @click.option("--fail", is_flag=True)
    def command(fail: bool) -> None:
        """Do nothing in particular."""
        if fail:
            raise RuntimeError("as asked")

    return command


def silent_command(config: Any, context: Any) -> Any:
    return click.Command("good", callback=lambda: None)


def function_command(config: Any, context: Any) -> Any:
    return lambda: None


def lenient_command(config: Any, context: Any) -> Any:
    made = good_command(config, context)
    made.context_settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return made


def talking_command(config: Any, context: Any) -> Any:
    print("built")
    return good_command(config, context)


def writing_command(config: Any, context: Any) -> Any:
    Path("log.txt").write_text("built")
    return good_command(config, context)


def helpless_command(config: Any, context: Any) -> Any:
    return click.Command("good", help="Cannot say what it does.", add_help_option=False)


def counting_command(config: Any, context: Any, numbers: Any = iter(range(10**6))) -> Any:  # noqa: B008
    return click.Command("good", help=f"Number {next(numbers)}.", callback=lambda: None)


COMMANDS = [
    Case(
        "command",
        "command-build",
        "fill in its option size",
        commanded(good_command, RequiredConfig),
    ),
    Case("command", "command-build", "build() gave function", commanded(function_command)),
    Case("command", "component-build", "it wrote 'built", commanded(talking_command)),
    Case("command", "command-help", "its help text is empty", commanded(silent_command)),
    Case("command", "command-help", "--help exits with 2", commanded(helpless_command)),
    Case("command", "command-usage", "exits with 0", commanded(lenient_command)),
    Case("command", "command-files", "it wrote log.txt", commanded(writing_command)),
    Case("command", "command-again", "another help", commanded(counting_command)),
    Case("command", "command-runs", "as asked", commanded(good_command), {"arguments": ["--fail"]}),
]

RECORDS = [
    Case("sampler", "component-record", "no help for size", Component("silent", SilentConfig, lambda c, x: None)),
    Case("corpus", "component-record", "can be changed", Component("changing", ChangingConfig, lambda c, x: None)),
    Case("model", "component-record", "words joined by hyphens", Component("Bad_Name", NoOptions, lambda c, x: None)),
    Case(
        "trainer",
        "component-options",
        "an integer",
        Component("late", ForgetfulConfig, lambda c, x: GoodTrainer(x)),
    ),
    Case("sampler", "component-methods", "what is built is None", offered(None)),
    Case(
        "tokenizer",
        "component-methods",
        "what is built is the class GoodTokenizer itself",
        Component("good", NoOptions, lambda config, context: GoodTokenizer),
    ),
    Case(
        "tokenizer",
        "component-methods",
        "of type Speechless, which has no method 'to_dict'",
        offered(type("Speechless", (GoodTokenizer,), {"to_dict": None})),
    ),
    Case(
        "model",
        "component-methods",
        "has no method 'load_tensors'",
        offered(type("Unloadable", (GoodModel,), {"load_tensors": None})),
    ),
    Case(
        "model",
        "component-methods",
        "its decoder is of type Fixed, which has no method 'read_state'",
        with_decoder(type("Fixed", (GoodDecoder,), {"read_state": None})),
    ),
    Case(
        "model",
        "component-methods",
        "its decoder is None",
        offered(type("Decoderless", (GoodModel,), {"decoder": lambda self, batch_size: None})),
    ),
]


# One fault that every call meets


def unbuildable(config: Any, context: Any) -> Any:
    return 1 / 0


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


class AllNaNDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        return super().extend(tokens) * np.nan


class RaisingDecoder(GoodDecoder):
    def extend(self, tokens: Any) -> Any:
        return super().extend(tokens) * (1 / 0)


class RaisingModel(GoodModel):
    decoder_class = RaisingDecoder


class RaisingTokenizer(GoodTokenizer):
    def encode(self, text: str) -> Any:
        return np.full(len(text), 1 / 0)


class RaisingTrainer(GoodTrainer):
    def update(self, model: Any, goal: Any, context: Any) -> None:
        self.rate = 1 / 0


class PrintingCorpus(GoodCorpus):
    def read(self) -> Any:
        print("here")
        return super().read()


class RaisingCorpus(GoodCorpus):
    def read(self) -> Any:
        yield str(1 / 0)


GOOD = {
    "corpus": offered(GoodCorpus),
    "tokenizer": offered(GoodTokenizer),
    "model": offered(GoodModel),
    "trainer": offered(GoodTrainer),
    "sampler": offered(GoodSampler),
    "observer": offered(GoodObserver),
    "command": commanded(good_command),
}
BROKEN = [*RECORDS, *CORPORA, *TOKENIZERS, *MODELS, *TRAINERS, *SAMPLERS, *OBSERVERS, *COMMANDS]
