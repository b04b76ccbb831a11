"""The training loop of all gradient trainers, which differ in optimizer and learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from textgen.data import Dataset, Windows, shuffled
from textgen.errors import CorpusError, UsageError
from textgen.events import Evaluated, StepDone, TrainingEvent
from textgen.protocols import TrainerState, TrainingContext
from textgen_builtins.trainers.config import GradientConfig


@attrs.define(eq=False)
class GradientTrainer:
    """textgen.protocols.Trainer for a torch module.

    Its state is a position: the order of epoch e is keyed by the seed and e, the dropout of step s by the seed and s,
    so no generator's state has to be saved.
    """

    config: GradientConfig
    make_optimizer: Callable[[Any], torch.optim.Optimizer]
    learning_rate: Callable[[int, int], float]
    _step: int = 0
    _training_loss: float = float("nan")
    _evaluated_step: int = -1
    _carried: tuple[Tensor, ...] | None = None
    _optimizer: torch.optim.Optimizer | None = None
    _loaded: TrainerState | None = None

    def train(self, model: Any, data: Dataset, context: TrainingContext) -> Iterator[TrainingEvent]:
        """See textgen.protocols.Trainer."""
        if not hasattr(model, "parameters"):
            raise UsageError("this trainer trains by gradient, and the model has none; choose a trainer made for it")
        batches = _batches(self.config, data.training_windows(), context.seed)
        validation = _batches(self.config, data.validation_windows(), None)
        steps = self.config.epochs * batches.per_epoch
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = self.make_optimizer(parameters)
        self._restore(context.device)
        every = self.config.evaluate_every or batches.per_epoch
        while True:
            if self._step and self._step != self._evaluated_step and (self._step % every == 0 or self._step == steps):
                self._evaluated_step = self._step
                yield Evaluated(
                    step=self._step,
                    epoch=(self._step - 1) // batches.per_epoch + 1,
                    training_loss=self._training_loss,
                    validation_loss=self._validate(model, validation, context.device),
                )
            if self._step >= steps:
                return
            epoch, batch = divmod(self._step, batches.per_epoch)
            windows = _to_device(batches.batch(epoch, batch), context.device)
            yield self._update(model, parameters, windows, epoch, batch, steps, context.seed)

    def state(self) -> TrainerState:
        """The position, the optimizer's moments and the carried state."""
        arrays = {}
        if self._optimizer is not None:
            for index, moments in self._optimizer.state_dict()["state"].items():
                for name, value in moments.items():
                    if value is not None:
                        arrays[f"optimizer.{index}.{name}"] = torch.as_tensor(value).detach().cpu().numpy()
        for i, part in enumerate(self._carried or ()):
            arrays[f"carried.{i}"] = part.cpu().numpy()
        values = {
            "step": self._step,
            "training_loss": self._training_loss,
            "evaluated_step": self._evaluated_step,
        }
        return TrainerState(arrays, values)

    def load_state(self, state: TrainerState) -> None:
        """Continue from `state` in the next `train`."""
        self._loaded = state

    def _restore(self, device: str) -> None:
        if self._loaded is None:
            return
        assert self._optimizer is not None
        arrays, values = self._loaded.arrays, self._loaded.values
        self._step, self._training_loss = values["step"], values["training_loss"]
        self._evaluated_step = values["evaluated_step"]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, array in arrays.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                moments.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
        state = self._optimizer.state_dict()
        self._optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
        carried = sorted((int(n.removeprefix("carried.")), a) for n, a in arrays.items() if n.startswith("carried."))
        self._carried = tuple(torch.from_numpy(a.copy()).to(device) for _, a in carried) or None
        self._loaded = None

    def _update(
        self, model: Any, parameters: list[Tensor], windows: Tensor, epoch: int, batch: int, steps: int, seed: int
    ) -> StepDone:
        """One step on `windows` (B, T + 1)."""
        assert self._optimizer is not None
        step = self._step + 1
        rate = self.learning_rate(step, steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        model.train()
        if hasattr(model, "set_dropout_seed"):
            model.set_dropout_seed(_step_seed(seed, step))
        carried = self._carried if self.config.order == "streams" and batch else None
        logits, after = model(windows[:, :-1], carried)
        loss = _loss(logits, windows[:, 1:])
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._clip(parameters)
        self._optimizer.step()
        if self.config.order == "streams":
            self._carried = tuple(part.detach() for part in after)
        self._step, self._training_loss = step, float(loss.detach())
        return StepDone(
            step=step,
            steps=steps,
            epoch=epoch + 1,
            loss=self._training_loss,
            tokens=windows.shape[0] * (windows.shape[1] - 1),
            learning_rate=rate,
            gradient_norm=norm,
        )

    def _clip(self, parameters: list[Tensor]) -> float | None:
        """g <- min(1, c / norm(g)) g with the global norm over all parameters, or its unconditional form."""
        if self.config.gradient_clipping == "off":
            return None
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        scale = self.config.gradient_norm / norm
        if self.config.gradient_clipping == "norm":
            scale = scale.clamp(max=1)
        torch._foreach_mul_(gradients, scale)
        return float(norm)

    @torch.no_grad()
    def _validate(self, model: Any, batches: _Batches, device: str) -> float | None:
        """Mean loss per token over the validation windows; None if there are none."""
        if not batches.per_epoch:
            return None
        model.eval()
        total, count, carried = 0.0, 0, None
        limit = self.config.validation_batches or batches.per_epoch
        for batch in range(min(limit, batches.per_epoch)):
            windows = _to_device(batches.batch(0, batch), device)
            logits, after = model(windows[:, :-1], carried)
            carried = after if self.config.order == "streams" else None
            size = windows[:, 1:].numel()
            total += float(_loss(logits, windows[:, 1:])) * size
            count += size
        return total / count


@attrs.frozen
class _Batches:
    """The batches of an epoch, each determined by its number alone."""

    per_epoch: int
    batch: Callable[[int, int], npt.NDArray[np.int64]]


def _batches(config: GradientConfig, windows: Windows, seed: int | None) -> _Batches:
    """Batches of windows (B, T + 1) along streams, or shuffled by `seed` and epoch; in order without a seed."""
    size = config.batch_size
    if config.order == "streams":
        return _streams(windows, size, training=seed is not None)
    orders: dict[int, Callable[[int, int], npt.NDArray[np.int64]]] = {}

    def batch(epoch: int, number: int) -> npt.NDArray[np.int64]:
        start, stop = number * size, min((number + 1) * size, len(windows))
        if seed is None:
            return windows.take(np.arange(start, stop))
        if epoch not in orders:
            orders.clear()
            orders[epoch] = shuffled(len(windows), seed, epoch)
        return windows.take(orders[epoch](start, stop))

    return _Batches(-(-len(windows) // size), batch)


def _streams(windows: Windows, size: int, *, training: bool) -> _Batches:
    """Batch k contains the k-th window of each of `size` equal parts of the text."""
    tokens, length = windows.tokens, windows.length
    if len(tokens) <= length:
        return _Batches(0, lambda epoch, number: windows.take(np.arange(0)))  # nothing is held out
    size = size if training else max(1, min(size, (len(tokens) - 1) // length))
    stretch = (len(tokens) - 1) // size
    if training and stretch < length:
        raise CorpusError(
            f"the corpus is too short for {size} streams: {len(tokens):,} training tokens leave {stretch} to each, and "
            f"data.window_length is {length}; lower trainer.batch_size or data.window_length"
        )
    starts = np.arange(size) * stretch
    view = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)

    def batch(epoch: int, number: int) -> npt.NDArray[np.int64]:
        return view[starts + number * length].astype(np.int64)

    return _Batches(stretch // length, batch)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, T, V) for targets (B, T)."""
    if logits.transpose(0, 1).is_contiguous():  # time is first in memory: flattening in that order copies nothing
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def _to_device(windows: npt.NDArray[np.int64], device: str) -> Tensor:
    return torch.from_numpy(windows).to(device)


def _step_seed(seed: int, step: int) -> int:
    """A seed for one step that differs from every other step's, and from the seed of the weights."""
    return int(np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))
