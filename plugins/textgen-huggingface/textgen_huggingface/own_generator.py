"""Random numbers of torch from a generator of one's own, in code that only knows the global one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class OwnGenerator(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every random operation of this thread draws from `generator`.

    transformers initialises weights and drops units out by operations that take the global
    generator, which belongs to the user: seeding it, even for a moment, would reach into other
    threads. A dispatch mode sees each operation of its own thread alone and hands the generator in.
    What can't be handed one is an error, never a silent draw.

    rows    which rows of a whole batch the tensors hold: the first, their number, and that of the
            batch. What is drawn for a tensor with as many rows is then drawn for the batch, so that
            it does not depend on who computes what
    """

    def __init__(
        self, generator: torch.Generator, rows: tuple[int, int, int] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator, self.rows = generator, rows

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func is torch.ops.aten.bernoulli_.float:
            return self._drop(*args, **kwargs)
        arguments = [argument.name for argument in func._schema.arguments]
        if "generator" in arguments:
            return func(*args, **{**kwargs, "generator": self.generator})
        if func is torch.ops.aten.native_dropout.default:
            return self._dropout(*args, **kwargs)
        overload = (
            "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
        )
        if overload in func.overloadpacket.overloads():
            return getattr(func.overloadpacket, overload)(*args, **kwargs, generator=self.generator)
        given = {**dict(zip(arguments, args, strict=False)), **kwargs}
        if given.get("dropout_p") == 0:  # fused attention, which then draws nothing
            return func(*args, **kwargs)
        raise NotImplementedError(f"{func} draws from torch's global generator, and takes no other")

    def _dropout(self, x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
        """The result of torch.native_dropout on a GPU, and the mask that its gradient
        needs.
        """
        if train is False or p == 0:
            return x.clone(), torch.ones_like(x, dtype=torch.bool)
        mask = self._drop(torch.empty_like(x), 1 - p)
        return x * mask / (1 - p), mask.bool()

    def _drop(self, mask: Tensor, p: float = 0.5, generator: Any = None) -> Tensor:
        """Fill a mask of dropout with ones, with the probability p, and zeros."""
        if self.rows is None or mask.shape[:1] != self.rows[1:2]:
            return mask.bernoulli_(p, generator=self.generator)
        first, count, total = self.rows
        whole = torch.empty((total, *mask.shape[1:]), dtype=mask.dtype, device=mask.device)
        return mask.copy_(whole.bernoulli_(p, generator=self.generator)[first : first + count])
