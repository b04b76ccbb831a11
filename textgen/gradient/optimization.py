"""Optimizers as the loop drives them: made for parameters by role, clipped, scheduled, saved and
restored.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import torch
from torch import Tensor, nn

from textgen.gradient.arrays import to_numpy
from textgen.gradient.options import GradientOptions
from textgen.protocols import Table, Tensors

MakeOptimizer: TypeAlias = (
    "Callable[[Parameters], torch.optim.Optimizer | Sequence[torch.optim.Optimizer]]"
)
"""Makes one optimizer, or several that share the parameters out among them."""

_Optimizer = TypeVar("_Optimizer", bound=torch.optim.Optimizer)
_ROLES: Final = ("embedding", "head", "matrix", "vector")


class Parameters(list[Tensor]):
    """The parameters to train, a list for any torch optimizer, and the role of each.

    Roles are "embedding", "head", "matrix" (other weights of two or more dimensions) and "vector"
    (biases, gains). A model may name its own: `parameter_roles() -> dict[str, str]`, by the names
    of `named_parameters`.
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
        """The parameters of one or several roles, maybe none.

        Raises ValueError for an unknown role.
        """
        known = dict.fromkeys((*_ROLES, *self.roles))
        if unknown := [role for role in roles if role not in known]:
            raise ValueError(f"there is no role {unknown[0]!r}; the roles are {', '.join(known)}")
        return [
            parameter for parameter, role in zip(self, self.roles, strict=True) if role in roles
        ]


@cache
def eager(kind: type[_Optimizer]) -> type[_Optimizer]:
    """A subclass of an optimizer without torch's compiler: `eager(torch.optim.AdamW)(parameters,
    lr=0.01)`.

    The first use of a plain optimizer imports the compiler, which takes a second or two and about
    80 MB of memory. This class leaves out torch's wrappers of these methods, except that a step
    records no gradients.
    """
    around = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in around}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**plain, "step": step, "__module__": kind.__module__})


@attrs.define(eq=False)
class Optimization:
    """The update rule of a training: optimizers and gradient clipping."""

    options: GradientOptions
    parameters: Parameters
    optimizers: tuple[torch.optim.Optimizer, ...]

    @classmethod
    def of(cls, model: Any, options: GradientOptions, make: MakeOptimizer) -> Optimization:
        """The optimizers for a model's parameters.

        Warns of parameters that none of them updates.
        """
        parameters = Parameters.of(model)
        made = make(parameters)
        optimizers = tuple(made) if isinstance(made, Sequence) else (made,)
        for optimizer in optimizers:
            if not hasattr(optimizer, "param_groups"):
                raise TypeError(
                    f"make_optimizer gave {optimizer!r}, and must give torch optimizers"
                )
        optimization = cls(options, parameters, optimizers)
        for optimizer in optimization._averaging():
            optimizer.train()
        updated = {id(p) for group in optimization._groups() for p in group["params"]}
        left_out = [
            name for name, p in model.named_parameters() if p.requires_grad and id(p) not in updated
        ]
        if left_out:
            names = ", ".join(left_out[:5])
            if len(left_out) > 5:
                names += ", …"
            warnings.warn(
                f"no optimizer has these parameters, which stay as they are: {names}", stacklevel=3
            )
        return optimization

    def _groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self.optimizers:
            yield from optimizer.param_groups

    def _averaging(self) -> list[Any]:
        return [each for each in self.optimizers if hasattr(each, "eval")]

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[bool]:
        """A block in which the parameters are those that optimizers with `eval` and `train` put in
        their place, such as a mean of the last steps; afterwards they are, bit for bit, what they
        were. Yields whether there are such optimizers.
        """
        averaging = self._averaging()
        kept = [parameter.detach().clone() for parameter in self.parameters if averaging]
        for optimizer in averaging:
            optimizer.eval()
        try:
            yield bool(averaging)
        finally:
            for optimizer in averaging:
                optimizer.train()
            for parameter, before in zip(self.parameters, kept, strict=False):
                parameter.detach().copy_(before)

    def step(self, factor: float) -> tuple[float, Tensor | None]:
        """Update the parameters from their gradients, with a factor of the learning rates; return
        the first rate, and the norm before clipping.

        The norm stays on the device.
        """
        for group in self._groups():
            group["lr"] = group.setdefault("initial_lr", float(group["lr"])) * factor
        norm = self._clip()
        for optimizer in self.optimizers:
            optimizer.step()
        return next(self._groups())["lr"], norm

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

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """State of the optimizers: arrays, and JSON values, by names that `restore`
        understands.
        """
        kept = {
            f"{number}.{key}": value
            for number, optimizer in enumerate(self.optimizers)
            for key, value in _kept(optimizer)
        }
        arrays = {key: to_numpy(value) for key, value in kept.items() if isinstance(value, Tensor)}
        return arrays, {key: value for key, value in kept.items() if key not in arrays}

    def restore(self, arrays: Tensors, values: Table) -> None:
        """Continue from what `state` gave."""
        kept = [each.state_dict() | {"state": defaultdict(dict)} for each in self.optimizers]
        tensors = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
        for key, value in {**values, **tensors}.items():
            number, part, index, name = key.split(".", 3)
            kept[int(number)][part][int(index)][name] = value
        for optimizer, own in zip(self.optimizers, kept, strict=True):
            optimizer.load_state_dict(own)


def _kept(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    """What an optimizer keeps for each parameter, and the numbers of its groups but the rates, by
    their indices in its `state_dict`.
    """
    kept = optimizer.state_dict()
    for index, state in kept["state"].items():
        for name, value in state.items():
            if value is not None:
                yield f"state.{index}.{name}", value
    for index, group in enumerate(kept["param_groups"]):
        for name, value in group.items():
            if type(value) in (int, float) and name not in ("lr", "initial_lr"):
                yield f"param_groups.{index}.{name}", value
