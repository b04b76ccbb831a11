"""Recurrent layers in machine code, which LLVM compiles for this processor when they are first
needed.

A plugin of textgen: the model `rnn` trains by these layers where they are faster than torch's. LLVM
and torch are imported when a model is built, never by listing the plugins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textgen import BuildContext, Component, NoOptions, hookimpl


class CompiledLayers(NoOptions):
    """Layers of the model `rnn` that LLVM compiles for the processor, to train on a CPU."""


def build(config: CompiledLayers, context: BuildContext) -> Any:
    """The layers. Raises what loading LLVM raises, where its library is of another processor."""
    from textgen_fast.layer import Layers

    return Layers()


@hookimpl
def textgen_kinds() -> Mapping[str, list[Component]]:
    """Offer what the model `rnn` asks for."""
    return {"recurrent-layers": [Component("compiled", CompiledLayers, build)]}
