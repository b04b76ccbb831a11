"""The loss of the held-out text, by one process or shared out among several."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from textgen import devices
from textgen.data import Dataset, Ids
from textgen.gradient.batches import validation_batches
from textgen.gradient.computing import Computation, to_device
from textgen.gradient.options import GradientOptions


def validation_loss(
    computation: Computation, options: GradientOptions, data: Dataset
) -> float | None:
    """Mean loss per token of the held-out text, in float32; None if there is none. To be called within its `run`."""
    total, count = (
        torch.zeros((), dtype=devices.widest(computation.device), device=computation.device),
        0,
    )
    batches = validation_batches(options, data.validation_windows())
    share = computation.share()
    for windows, counts in islice(batches, share.start, None, share.step):
        models = computation.replicas[: len(windows)]
        parts = zip(
            models,
            np.array_split(windows, len(models)),
            np.array_split(counts, len(models)),
            strict=True,
        )
        calls = [partial(_total, *part, computation.device, data.window_length) for part in parts]
        total += torch.stack(computation.side_by_side(calls)).sum()
        count += int(counts.sum())
    whole, count = computation.summed(total, count)
    return whole / count if count else None


@torch.no_grad()
def _total(
    model: Any, windows: npt.NDArray[np.int64], counts: Ids, device: str, context: int
) -> Tensor:
    """The sum of the losses of windows (B, T + 1), of which `counts` (B,) at the end of each row count.

    A model's context may hold no more than `context` tokens at once.
    """
    model.eval()
    wide, carried = devices.widest(device), None
    total = torch.zeros((), dtype=wide, device=device)
    tokens, length = to_device(windows, device), windows.shape[1] - 1
    for start in range(0, length, context):
        stop = min(start + context, length)
        logits, carried = model(tokens[:, start:stop], carried)
        losses = F.cross_entropy(
            logits.transpose(1, 2).float(), tokens[:, start + 1 : stop + 1], reduction="none"
        )
        counted = np.arange(start, stop) >= length - counts[:, None]
        total += (losses * torch.from_numpy(counted).to(device)).sum(dtype=wide)
    return total
