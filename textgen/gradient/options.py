"""The options that all trainers by gradient share. Loads no torch."""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal

import attrs
from attrs.validators import ge, optional

from textgen.plugin.component import option

_LENGTH: Final = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h|steps?|epochs?)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}


@attrs.frozen
class Length:
    """The length of a training, which ends at whichever limit is reached first.

    A length is greater than another if none of its limits is lower, and they are not equal.
    """

    seconds: float = math.inf
    steps: float = math.inf
    epochs: float = math.inf

    @classmethod
    def of(cls, text: str) -> Length:
        """The length that a text such as "60s", "5 min", "2000 steps", "10 epochs" or "10 epochs
        or 5 min" says.

        Raises ValueError.
        """
        amounts: dict[str, float] = {}
        for part in text.split(" or "):
            found = _LENGTH.fullmatch(part)
            number, unit = found.groups() if found else ("0", "s")
            name = "seconds" if unit in _SECONDS else f"{unit.rstrip('s')}s"
            if not float(number) or name in amounts or not (unit in _SECONDS or number.isdecimal()):
                raise ValueError(
                    'must be a time such as "60s", "5 min" or "1.5h", a number such as "2000 '
                    'steps" or "10 epochs", or both, "10 epochs or 5 min"'
                )
            amounts[name] = float(number) * _SECONDS.get(unit, 1)
        return cls(**amounts)

    def __gt__(self, other: Length) -> bool:
        limits = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return self != other and all(limit >= other_limit for limit, other_limit in limits)


def _check_length(instance: Any, attribute: Any, value: str) -> None:
    Length.of(value)


@attrs.frozen(kw_only=True)
class GradientOptions:
    """The options of the training loop.

    A trainer's config class is a subclass, `@attrs.frozen(kw_only=True)`.
    """

    length: str = option(
        "10 epochs",
        help='how long to train: "60s", "5 min" or "1.5h" for the whole run, "2000 steps" '
        '(updates), "10 epochs" (passes over the training data), or what comes first, '
        '"10 epochs or 5 min"',
        validator=_check_length,
        extends_training=Length.of,
    )
    batch_size: int = option(64, help="number of windows, or streams, per step", validator=ge(1))
    accumulate: int = option(
        1,
        help="number of batches of batch_size whose gradients add up to a step: as one batch with "
        "all their rows, in less memory",
        validator=ge(1),
    )
    order: Literal["shuffled", "streams"] = option(
        "shuffled",
        help='"shuffled": windows in random order, each from the start state; "streams": the text '
        "is read from batch_size positions in parallel, with the state carried from window to "
        "window",
    )
    max_grad_norm: float = option(
        1.0,
        help="global norm to which a gradient with a larger one is scaled down; 0 is off",
        validator=ge(0),
    )
    evaluate_every: int | None = option(
        None,
        help="steps between evaluations; if not set, an epoch or an eighth of all steps, "
        "whichever is less; for a time, ten in a run, or fewer if they take long",
        validator=optional(ge(1)),
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "float32",
        help='"bfloat16" computes in it and keeps float32 weights (torch.autocast); "auto" does '
        "where the device is much faster in it",
    )

    objective: Any = option(
        None,
        kind="objective",
        help="what a step sums, if not the cross-entropy of the next token",
    )

    @property
    def rows(self) -> int:
        """The number of rows of a step."""
        return self.batch_size * self.accumulate
