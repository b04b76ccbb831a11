"""The events of a run: what trainers yield, and what observers see.

trainers yield    StepDone, Evaluated
observers see     RunStarted, StepDone, Evaluation, Checkpointed, RunFinished; or RunSkipped
                  alone
observers return  None, or Stop
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, SupportsFloat, TypeAlias

import attrs
from attrs.validators import instance_of, optional


@attrs.frozen(kw_only=True)
class StepDone:
    """One update of the weights.

    step, steps     1-based number of this update, and how many there will be as far as is known
    epoch           1-based pass over the training data that it belongs to
    loss            mean cross-entropy of its batch, in nats per token
    tokens          number of tokens in the batch
    learning_rate   of this update; None if the trainer has none
    gradient_norm   global norm before clipping; None if it was not computed
    steps_before_decay   number of steps, from the first, that do not depend on the number of all
                    steps: those before the learning rate decays. The state after them is kept,
                    and a finished run is trained on from it. None or 0 if there is no such state
    evaluates       whether an Evaluated of this step comes next. Checkpoints of the step wait for
                    it, since it may change the model

    A trainer may give `loss` and `gradient_norm` as tensors of one element. They stay on the device
    until an observer reads the attribute, which then waits for the device; the engine reads the
    loss of a step a few steps later.
    """

    step: int = attrs.field(validator=instance_of(int))
    steps: int = attrs.field(validator=instance_of(int))
    epoch: int
    _loss: SupportsFloat
    tokens: int
    learning_rate: float | None = None
    _gradient_norm: SupportsFloat | None = None
    steps_before_decay: int | None = attrs.field(default=None, validator=optional(instance_of(int)))
    evaluates: bool = False

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the batch."""
        return float(self._loss)

    @property
    def gradient_norm(self) -> float | None:
        """Global norm before clipping."""
        return None if self._gradient_norm is None else float(self._gradient_norm)

    @property
    def is_read(self) -> bool:
        """Whether the loss can be read without waiting for a device."""
        return isinstance(self._loss, float | int)


@attrs.frozen(kw_only=True)
class Evaluated:
    """The trainer has evaluated the model.

    Losses are in nats per token; `validation_loss` is None without held-out data.

    figures    other numbers by name, which metrics.jsonl and observers get
    objective  the value by which the best weights are chosen, lower is better; the validation loss
               by default
    """

    step: int
    epoch: int
    training_loss: float
    validation_loss: float | None = None
    figures: Mapping[str, float] = attrs.field(factory=dict)
    objective: float | None = None


@attrs.frozen(kw_only=True)
class RunStarted:
    """Training begins, or resumes from `step` with `evaluations` made before it.

    since_best      number of those evaluations after the best one
    parameters      number of learnt parameters; None where the model is not trained by gradient, as
                    one of counts
    training_tokens, validation_tokens   sizes of the split
    """

    step: int
    evaluations: int
    device: str
    parameters: int | None
    vocab_size: int
    training_tokens: int
    validation_tokens: int
    since_best: int = 0


@attrs.frozen(kw_only=True)
class Evaluation:
    """An evaluation, with figures computed from it.

    training_loss, validation_loss   nats per token; validation_loss is None if nothing is held out
    perplexity, bits_per_character   from the validation loss, or from the training loss if nothing
                                     is held out
    characters_per_second            of training since the previous evaluation, validation not
                                     included
    seconds                          of training so far, including the earlier parts of a resumed
                                     run
    best                             whether the loss, or the trainer's objective, is the lowest so
                                     far; of training losses, the latest is the best
    figures                          other numbers of the trainer by name
    since_best                       number of evaluations since the best one; 0 where this one is
    sample                           `sample(prompt, max_new_tokens)` continues a prompt with the
                                     model as it is now
    model                            the model itself, such as a torch module, to read until
                                     `observe` returns. What is kept for longer is copied:
                                     `model.tensors()` may be views of the weights
    """

    step: int
    epoch: int
    training_loss: float
    validation_loss: float | None
    perplexity: float
    bits_per_character: float
    characters_per_second: float
    seconds: float
    best: bool
    sample: Callable[[str, int], str] = attrs.field(repr=False, eq=False)
    since_best: int = 0
    figures: Mapping[str, float] = attrs.field(factory=dict)
    model: Any = attrs.field(default=None, repr=False, eq=False)


@attrs.frozen(kw_only=True)
class Checkpointed:
    """A checkpoint was written, complete and durable, to the folder `path`."""

    step: int
    path: Path


@attrs.frozen(kw_only=True)
class RunFinished:
    """Training ended: all of it ("finished"), by request ("interrupted") or by an error ("failed").

    A finished run is in its directory by then, and can be loaded. `stopped_by` is the observer that
    stopped the run early, and `cause` the exception of a failed run; otherwise they are "".
    """

    step: int
    status: Literal["finished", "interrupted", "failed"]
    stopped_by: str = ""
    cause: str = ""


@attrs.frozen(kw_only=True)
class RunSkipped:
    """The run in the folder `path` was finished already, at `step`, and is not trained again.

    Nothing is written.
    """

    step: int
    path: Path


@attrs.frozen
class Stop:
    """Returned by `observe` to stop a run early, as finished.

    The best weights become the model, and run.json has the reason.
    """

    reason: str = ""


TrainingEvent: TypeAlias = StepDone | Evaluated
Event: TypeAlias = RunStarted | StepDone | Evaluation | Checkpointed | RunFinished | RunSkipped
