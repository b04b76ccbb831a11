"""The loss of the held-out text, by one process or shared out among several."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from textgen.data import Dataset
from textgen.gradient.batches import validation_batches
from textgen.gradient.computing import Computation, State, to_device
from textgen.gradient.options import GradientOptions


@torch.no_grad()
def validation_loss(computation: Computation, options: GradientOptions, data: Dataset) -> float | None:
    """Mean loss per token of the held-out text, in float32; None if there is none."""
    model, device = computation.replicas[0], computation.device
    model.eval()
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    batches = validation_batches(options, data.validation_windows())
    for windows, counts in islice(batches, *computation.announce_evaluation()):
        carried: State | None = None
        tokens, length = to_device(windows, device), windows.shape[1] - 1
        for start in range(0, length, data.window_length):  # a model's context may hold no more
            stop = min(start + data.window_length, length)
            logits, carried = model(tokens[:, start:stop], carried)
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2).float(), tokens[:, start + 1 : stop + 1], reduction="none"
            )
            counted = np.arange(start, stop) >= length - counts[:, None]
            total += (losses * torch.from_numpy(counted).to(device)).sum(dtype=torch.float64)
        count += int(counts.sum())
    total, count = computation.summed(total, count)
    return float(total) / count if count else None
