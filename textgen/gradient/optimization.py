"""Optimizers as the loop drives them: made for parameters by role, clipped, scheduled, saved and restored."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import torch
from torch import Tensor, nn

from textgen.errors import TrainingError
from textgen.files.opening import UNFORESEEN
from textgen.gradient.arrays import to_numpy
from textgen.gradient.options import GradientOptions
from textgen.gradient.schedules import Schedule
from textgen.protocols import Tensors

MakeOptimizer: TypeAlias = (
    "Callable[[Parameters], torch.optim.Optimizer | Sequence[torch.optim.Optimizer]]"
)
"""Makes one optimizer, or several that share the parameters out among them."""

_Optimizer = TypeVar("_Optimizer", bound=torch.optim.Optimizer)
_ROLES: Final = ("embedding", "head", "matrix", "vector")


class Parameters(list[Tensor]):
    """The parameters to train, a list for any torch optimizer, and the role of each.

    Roles are "embedding", "head", "matrix" (other weights of two or more dimensions) and "vector" (biases, gains). A
    model may name its own: `parameter_roles() -> dict[str, str]`, by the names of `named_parameters`.
    """

    def __init__(self, parameters: Iterable[Tensor], roles: Sequence[str]) -> None:
        super().__init__(parameters)
        self.roles = tuple(roles)

    @classmethod
    def of(cls, model: Any) -> Parameters:
        """The parameters of a module that require a gradient."""
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        given = model.parameter_roles() if hasattr(model, "parameter_roles") else {}
        if unknown := sorted(given.keys() - dict(model.named_parameters()).keys()):
            raise ValueError(
                f"parameter_roles names {', '.join(unknown)}, which are not parameters of the model"
            )
        roles = [
            given.get(
                name, "vector" if p.ndim < 2 else "embedding" if id(p) in embeddings else "matrix"
            )
            for name, p in named.items()
        ]
        return cls(named.values(), roles)

    def of_role(self, *roles: str) -> list[Tensor]:
        """Those of one or several roles; none where the model has none. Raises ValueError for a role there is not."""
        known = dict.fromkeys((*_ROLES, *self.roles))
        if unknown := [role for role in roles if role not in known]:
            raise ValueError(f"there is no role {unknown[0]!r}; the roles are {', '.join(known)}")
        return [
            parameter for parameter, role in zip(self, self.roles, strict=True) if role in roles
        ]


@cache
def eager(kind: type[_Optimizer]) -> type[_Optimizer]:
    """The same optimizer, which cannot be compiled: `eager(torch.optim.AdamW)(parameters, lr=0.01)`.

    The first use of any optimizer imports torch's compiler, to tell it to keep out, which takes a second or two and
    some 80 MB of memory. What is around these methods is left out here, but that a step has no gradients of its own.
    """
    around = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in around}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**plain, "step": step, "__module__": kind.__module__})


class StateError(TrainingError):
    """What a checkpoint holds of training does not fit the model and the optimizers."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(
            f"it does not fit the model and the optimizers ({cause})", step=0, refuses_state=True
        )


@attrs.define(eq=False)
class Optimization:
    """The update rule of a training: optimizers, the schedule of their rates, and gradient clipping."""

    options: GradientOptions
    parameters: Parameters
    optimizers: tuple[torch.optim.Optimizer, ...]
    schedule: Schedule
    _rates: list[list[float]] = attrs.field(factory=list)
    _restored: bool = False

    @classmethod
    def of(
        cls, model: Any, options: GradientOptions, make: MakeOptimizer, schedule: Schedule
    ) -> Optimization:
        """The optimizers for a model's parameters. Raises TypeError or ValueError for what is none."""
        parameters = Parameters.of(model)
        made = make(parameters)
        optimizers = tuple(made) if isinstance(made, Sequence) else (made,)
        for optimizer in optimizers:
            if not hasattr(optimizer, "param_groups"):
                raise TypeError(
                    f"make_optimizer gave {optimizer!r}, and must give a torch.optim.Optimizer, or several"
                )
        rates = [
            [_rate(optimizer, place) for place in range(len(optimizer.param_groups))]
            for optimizer in optimizers
        ]
        return cls(options, parameters, optimizers, schedule, rates)

    def left_out(self, model: Any) -> list[str]:
        """The names of the parameters that want a gradient and that no optimizer updates."""
        updated = {
            id(p)
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        return [
            name for name, p in model.named_parameters() if p.requires_grad and id(p) not in updated
        ]

    def step(self, step: int, steps: int) -> tuple[float, Tensor | None]:
        """Update the parameters from their gradients; return the first learning rate, and the norm before clipping.

        The norm stays on the device.
        """
        factor = self._factor(step, steps)
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        norm = self._clip()
        try:
            for optimizer in self.optimizers:
                optimizer.step()
        except (RuntimeError, *UNFORESEEN) as error:
            if self._restored and not isinstance(error, torch.OutOfMemoryError):
                raise StateError(error) from error
            raise
        self._restored = False
        return self._rates[0][0] * factor, norm

    def _clip(self) -> Tensor | None:
        """g <- min(1, c / norm(g)) g with the global norm over all parameters."""
        if not self.options.max_grad_norm:
            return None
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        scale = self.options.max_grad_norm / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        scale = scale.clamp(max=1)
        torch._foreach_mul_(gradients, scale)
        return norm

    def _factor(self, step: int, steps: int) -> float:
        given: Any = self.schedule(step, steps)
        try:
            return float(given)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the schedule gave {given!r} for step {step} of {steps}, and must give a number, the factor of the "
                "learning rate"
            ) from error

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """What the optimizers keep: arrays, and JSON values, by names that `restore` understands.

        Raises TypeError if an optimizer keeps something else.
        """
        arrays: Tensors = {}
        values: dict[str, Any] = {}
        for place, optimizer in enumerate(self.optimizers):
            kept = optimizer.state_dict()
            states = [
                (index, name, value)
                for index, state in kept["state"].items()
                for name, value in state.items()
            ]
            for index, name, value in states:
                key = f"{place}.{index}.{name}"
                if isinstance(value, Tensor):
                    arrays[key] = to_numpy(value)
                elif value is not None:
                    values[key] = _json(value, optimizer, name)
            for index, group in enumerate(kept["param_groups"]):
                counters = {k: v for k, v in group.items() if type(v) in (int, float) and k != "lr"}
                values |= {
                    f"{place}.group.{index}.{name}": value for name, value in counters.items()
                }
        return arrays, values

    def restore(self, arrays: Tensors, values: dict[str, Any]) -> None:
        """Continue from what `state` gave. What fails in it, or in the first step after it, raises StateError."""
        try:
            self._restore(arrays, values)
        except UNFORESEEN as error:
            raise StateError(error) from error
        self._restored = True

    def _restore(self, arrays: Tensors, values: dict[str, Any]) -> None:
        kept = [optimizer.state_dict() for optimizer in self.optimizers]
        states: list[dict[int, dict[str, Any]]] = [{} for _ in kept]
        everything: dict[str, Any] = {
            **values,
            **{k: torch.from_numpy(array.copy()) for k, array in arrays.items()},
        }
        for key, value in everything.items():
            place, index, name = key.split(".", 2)
            if index == "group":
                group, _, name = name.partition(".")
                kept[int(place)]["param_groups"][int(group)][name] = value
            else:
                states[int(place)].setdefault(int(index), {})[name] = value
        for optimizer, own, state in zip(self.optimizers, kept, states, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})


def _rate(optimizer: torch.optim.Optimizer, place: int) -> float:
    group = optimizer.param_groups[place]
    if "lr" not in group:
        raise ValueError(
            f"{type(optimizer).__name__} has no 'lr' in param_groups[{place}], and must have one: the schedule writes "
            "the learning rate of each step into it"
        )
    return float(group["lr"])


def _json(value: Any, optimizer: torch.optim.Optimizer, name: str) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        kind = type(optimizer).__name__
        raise TypeError(
            f"{kind} keeps {name!r}, a {type(value).__name__}; tensors and JSON values can be saved"
        ) from error
