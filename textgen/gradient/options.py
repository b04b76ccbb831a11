"""The options that all trainers by gradient share. Loads no torch."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import attrs
from attrs.validators import ge, gt, optional

from textgen.plugin.component import option
from textgen.plugin.structure import plain

_TIME: Final = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}


def _check_time(instance: Any, attribute: Any, value: str) -> None:
    if not _TIME.fullmatch(value) or not seconds_of(value):
        raise ValueError('must be a time such as "60s", "5min" or "1.5h"')


def seconds_of(time: str) -> float:
    """The seconds of a time such as "60s", "5min" or "1.5h"."""
    number, unit = _TIME.fullmatch(time).groups()  # type: ignore[union-attr]
    return float(number) * _SECONDS[unit]


@attrs.frozen(kw_only=True)
class GradientOptions:
    """The options of the training loop. A trainer's config class is a subclass, `@attrs.frozen(kw_only=True)`."""

    epochs: int = option(
        10,
        help="passes over the training data, without steps or a budget",
        validator=ge(1),
        more=True,
    )
    steps: int | None = option(
        None,
        help="updates in all, in place of epochs and a budget",
        validator=optional(ge(1)),
        more=True,
    )
    budget: str | None = option(
        None,
        help='time for the whole run, such as "60s" or "5min", in place of epochs; the number of steps is measured '
        "at the start, and again until the learning rate falls",
        validator=optional(_check_time),
        more=seconds_of,
    )
    batch_size: int = option(64, help="number of windows, or streams, per step", validator=ge(1))
    order: Literal["shuffled", "streams"] = option(
        "shuffled",
        help='"shuffled": windows in random order, each from the start state; "streams": the text is read '
        "from batch_size positions in parallel, with the state carried from window to window",
    )
    gradient_clipping: Literal["norm", "normalize", "off"] = option(
        "norm",
        help='"norm" scales a gradient with a larger global norm down to gradient_norm, as the book defines it; '
        '"normalize" always rescales to it, as the book\'s code did',
    )
    gradient_norm: float = option(1.0, help="global norm for gradient_clipping", validator=gt(0))
    evaluate_every: int | None = option(
        None,
        help="steps between evaluations; if not set, an epoch or an eighth of all steps, whichever is less; with a "
        "budget, ten in a run, or fewer if they take long",
        validator=optional(ge(1)),
    )
    validation_batches: int | None = option(
        None, help="number of batches to validate on, from the start", validator=optional(ge(1))
    )
    compute: Literal["auto", "float32", "bfloat16"] = option(
        "float32",
        help='"bfloat16" computes in it and keeps float32 weights (torch.autocast); "auto" takes the faster of both, '
        "tried on the first batch",
    )
    settled: dict[str, int | str] = option(
        factory=dict,
        help='what an earlier run decided for "auto" and budget; written by a run, so that it can be repeated',
    )

    def fingerprint(self) -> dict[str, Any]:
        """Every option but what was decided for them."""
        return {key: value for key, value in plain(self).items() if key != "settled"}
