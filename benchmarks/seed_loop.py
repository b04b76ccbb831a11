"""The seed's experiment as a plain PyTorch loop: what textgen is timed against.

The recipe is that of docs/seed.md: windows of 32 characters at stride 1, 10,000 to train on and the next 5,000 to
validate on, batches of 1,024, a tanh RNN of 32 units over one-hot input, SGD at rate 1 with the gradient clipped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, TRAIN, VALIDATION, BATCH, HIDDEN = 32, 10_000, 5_000, 1024, 32


class SeedModel(nn.Module):
    """One-hot input, the framework's RNN layer, a linear head."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.rnn = nn.RNN(vocab_size, HIDDEN)
        self.head = nn.Linear(HIDDEN, vocab_size)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of (B, T) targets."""
        one_hot = F.one_hot(tokens.T, self.vocab_size).float()
        logits = self.head(self.rnn(one_hot)[0]).swapaxes(0, 1)
        return F.cross_entropy(logits.reshape(-1, self.vocab_size), targets.reshape(-1))


def epochs(corpus: Path, loader: str) -> Iterator[tuple[float, float]]:
    """(seconds of an epoch's steps, seconds of its validation), for ever."""
    text = re.sub("[^A-Za-z]+", " ", corpus.read_text(encoding="utf-8")).lower()
    vocabulary = sorted({*text, "<unk>"})
    index = {token: i for i, token in enumerate(vocabulary)}
    windows = torch.tensor([index[c] for c in text]).unfold(0, STEPS + 1, 1)
    x, y = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    held = slice(TRAIN, TRAIN + VALIDATION)
    model = SeedModel(len(vocabulary))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    while True:
        start = time.perf_counter()
        for tokens, targets in _batches(x[:TRAIN], y[:TRAIN], loader, shuffle=True):
            loss = model.loss(tokens, targets)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
            for p in model.parameters():
                p.grad.mul_(torch.clamp(1 / norm, max=1))
            optimizer.step()
        stepped = time.perf_counter()
        with torch.no_grad():
            for tokens, targets in _batches(x[held], y[held], loader, shuffle=False):
                model.loss(tokens, targets).item()
        yield stepped - start, time.perf_counter() - stepped


def _batches(
    x: Tensor, y: Tensor, loader: str, *, shuffle: bool
) -> Iterable[tuple[Tensor, Tensor]]:
    if loader == "dataloader":
        return DataLoader(TensorDataset(x, y), BATCH, shuffle=shuffle)
    order = torch.randperm(len(x)) if shuffle else torch.arange(len(x))
    return ((x[i], y[i]) for i in order.split(BATCH))
