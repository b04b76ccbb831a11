"""Components that break what holds for every kind: their record, options and methods."""

from __future__ import annotations

from typing import Any

import attrs

from broken_components.cases import Case, offered
from broken_components.models import GoodDecoder, GoodModel, with_decoder
from broken_components.tokenizers import GoodTokenizer
from broken_components.trainers import GoodTrainer
from textgen import Component, NoOptions, option


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
class DivergingConfig:
    """Refuses its own defaults together."""

    least: int = option(4, help="how many at least")
    most: int = option(3, help="how many at most")

    def __attrs_post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError("least is above most")


@attrs.frozen
class RequiredConfig:
    """Needs an option."""

    size: int = option(help="how many")


RECORDS = [
    Case(
        "sampler",
        "component-record",
        "no help for size",
        Component("silent", SilentConfig, lambda c, x: None),
    ),
    Case(
        "corpus",
        "component-record",
        "can be changed",
        Component("changing", ChangingConfig, lambda c, x: None),
    ),
    Case(
        "model",
        "component-record",
        "words joined by hyphens",
        Component("Bad_Name", NoOptions, lambda c, x: None),
    ),
    Case(
        "trainer",
        "component-record",
        "the default of size: expected an integer",
        Component("late", ForgetfulConfig, lambda c, x: GoodTrainer(x)),
    ),
    Case(
        "trainer",
        "component-options",
        "least is above most",
        Component("apart", DivergingConfig, lambda c, x: GoodTrainer(x)),
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


def unbuildable(config: Any, context: Any) -> Any:
    return 1 / 0
