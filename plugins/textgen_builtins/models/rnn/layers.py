"""Recurrent layers that a package offers in place of torch's, to train on a CPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final, Protocol, cast

from textgen import BuildContext, ContractError, Engine, PluginWarning

if TYPE_CHECKING:
    from torch import Tensor

_KIND: Final = "recurrent-layers"


class RecurrentLayers(Protocol):
    """What a plugin's component of the kind `recurrent-layers` builds."""

    def is_faster(self, cell: str, hidden_size: int, in_bfloat16: bool) -> bool:
        """Whether `run` can compute such a layer, faster than torch.

        cell         "rnn", "gru" or "lstm"
        in_bfloat16  whether products are of bfloat16, within torch's autocast
        """

    def run(
        self,
        cell: str,
        x: Tensor,
        rows: Tensor | None,
        weights: tuple[Tensor, Tensor, Tensor, Tensor],
        carried: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """The hidden states (T, B, H), and the layer's state after them, (B, H) each; all with
        gradients.

        x        (T, B, E); or (N, E), of which `rows` (T, B) int64 says what each step reads
        weights  weight_ih (G H, E), weight_hh (G H, H), bias_ih and bias_hh (G H,), as torch has
                 them, with G gates
        carried  the state before: h, and c of an LSTM; none to begin with zeros
        """


def offered_layers(context: BuildContext) -> RecurrentLayers | None:
    """The layers that an installed package offers; None where there is none that works."""
    if context.plugins is None:
        return None
    for component in context.plugins.offers(_KIND):
        try:
            table = {"type": component.qualified_name}
            return cast("RecurrentLayers", Engine(context.plugins).build(_KIND, table, context))
        except ContractError as error:
            message = f"torch computes recurrent layers: {error}"
            warnings.warn(message, PluginWarning, stacklevel=2)
    return None
