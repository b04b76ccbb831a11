"""The decoding half of a model, for a torch module that trains by gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from textgen.protocols import Decoder, Tensors

if TYPE_CHECKING:
    import torch

_BASE: Final = "base_sha256"  # the name, among the weights, of what identifies the frozen ones
_OFFERED: Final = frozenset(
    {
        "token_losses",
        "parameter_roles",
        "published",
        "set_dropout_seed",
        "set_rows",
        "context_length",
        "distributed",
    }
)


class GradientModel:
    """Makes a textgen.protocols.Model of a `torch.nn.Module` with `forward(tokens, state=None) ->
    (logits, state)`.

    Inherit from both: `class Network(torch.nn.Module, GradientModel)`. `GradientModel.of(module)`
    wraps a module of another class. Weights are all parameters and persistent buffers, by torch's
    names.

    tokens is (B, T) int64, logits (B, T, V), and state a flat tuple of tensors with B as their
    first axis. Copies by `copy.deepcopy`, with the same parameters, may share out the rows of a
    batch, each in a thread of its own. The module may also have:

    token_losses        `(tokens, targets, state) -> (losses, state)`, the cross-entropies (B, T) of
                        the targets, where the logits of all are not to be in memory. While it
                        trains, other terms may be added
    parameter_roles     `() -> dict[str, str]`, the roles of parameters by name, see Parameters
    set_dropout_seed    `(seed)`, seeds the module's own generator for the next step. Without it,
                        torch's global generator is seeded for each step, and restored afterwards
    set_rows            `(first, total)`, the rows of the batch to compute next, in several
                        processes
    published           `() -> Tensors`, what the run's model has in place of `tensors()`, such as
                        adapters merged into their base. To be trained on from, `load_tensors` has
                        to take these too
    base                the SHA-256, in hexadecimal, of what the frozen parameters were read from,
                        those without requires_grad: they are then not saved, and weights that were
                        saved with another base are refused
    context_length      the tokens that it attends to at most: held-out text is read in spans of no
                        more, nor of more than 2,048. None without a limit, as recurrent ones
    distributed         False if the module cannot be trained in several processes
    """

    @staticmethod
    def of(module: Any) -> Any:
        """A model that shares the module's parameters and offers what it has.

        A GradientModel stays as it is.
        """
        import torch

        if isinstance(module, GradientModel):
            return module

        class Wrapped(torch.nn.Module, GradientModel):
            def __init__(self) -> None:
                super().__init__()
                self.module = module

            def forward(self, tokens: torch.Tensor, state: Any = None) -> Any:
                return self.module(tokens, state)

            def named_parameters(self, *args: Any, **options: Any) -> Any:
                return self.module.named_parameters(*args, **options)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.module, name) if name in _OFFERED else super().__getattr__(name)

            def unwrapped(self) -> Any:
                return self.module

        return Wrapped()

    def unwrapped(self) -> Any:
        """The module that was given to `of`; any other model itself."""
        return self

    def decoder(self, batch_size: int) -> Decoder:
        """A ForwardDecoder at the start state."""
        from textgen.gradient.decoder import ForwardDecoder

        return ForwardDecoder(self, batch_size)

    def tensors(self) -> Tensors:
        """The weights as NumPy arrays; bfloat16 ones become float32.

        Tied weights occur once, under one name.
        """
        from textgen.gradient.arrays import to_numpy

        module, kept = self.unwrapped(), dict[str, Any]()
        base, once = getattr(module, "base", ""), dict(module.named_parameters())
        if base:
            kept[_BASE] = np.frombuffer(bytes.fromhex(base), np.uint8).copy()
        left_out = {
            name
            for name, parameter in module.named_parameters(remove_duplicate=False)
            if name not in once or (base and not parameter.requires_grad)
        }
        weights = module.state_dict().items()
        return kept | {name: to_numpy(each) for name, each in weights if name not in left_out}

    def load_tensors(self, tensors: Tensors) -> None:
        """Copy weights in. Raises ValueError if names, shapes or dtypes differ."""
        import torch

        kept = self.tensors()
        if not np.array_equal(tensors.get(_BASE, ()), kept.get(_BASE, ())):
            raise ValueError("they were trained with another base")
        given, wanted = (
            {name: (array.shape, str(array.dtype)) for name, array in each.items()}
            for each in (tensors, kept)
        )
        wrong = sorted(name for name in {*given, *wanted} if given.get(name) != wanted.get(name))
        if wrong:
            first = wrong[0]
            raise ValueError(
                f"{len(wrong)} weights differ, such as {first}: it is {given.get(first)}, and "
                f"should be {wanted.get(first)}"
            )
        own = self.unwrapped().state_dict()
        with torch.no_grad():
            for name in tensors.keys() - {_BASE}:
                own[name].copy_(torch.from_numpy(np.asarray(tensors[name], order="C")))
