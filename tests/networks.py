"""Torch modules: one made for textgen, with a cache that grows, and two that know nothing of it."""

import torch
from torch import nn

from textgen.gradient import GradientModel


class Attention(nn.Module, GradientModel):
    """One causal head over a cache that grows: the state is all keys and values so far."""

    def __init__(self, vocab_size, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(vocab_size, 8, generator=generator))
        self.parts = nn.Parameter(torch.randn(24, 8, generator=generator) * 0.3)
        self.head = nn.Parameter(torch.randn(vocab_size, 8, generator=generator))

    def forward(self, tokens, state=None):
        query, key, value = (self.table[tokens] @ self.parts.T).chunk(3, dim=-1)
        before = 0
        if state is not None:
            before = state[0].shape[1]
            key, value = torch.cat([state[0], key], 1), torch.cat([state[1], value], 1)
        length = tokens.shape[1]
        mask = torch.ones(length, before + length, dtype=torch.bool, device=tokens.device).tril(
            before
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return seen @ self.head.T, (key, value)


class Recurrent(nn.Module):
    """A module that knows nothing of textgen."""

    def __init__(self, vocab_size, **options):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 6)
        self.cell = nn.GRU(6, 7, batch_first=True, **options)
        self.head = nn.Linear(7, vocab_size)

    def forward(self, tokens, state=None):
        carried = None if state is None else state[0].transpose(0, 1).contiguous()
        seen, after = self.cell(self.embedding(tokens), carried)
        return self.head(seen), (after.transpose(0, 1),)


class Dropping(Recurrent):
    """Drops out by a module, by a function and within a stacked GRU."""

    def __init__(self, vocab_size, seed, p=0.3):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            super().__init__(vocab_size, num_layers=2, dropout=p)
        self.embedding = nn.Sequential(self.embedding, nn.Dropout(p))
        self.p = p

    def forward(self, tokens, state=None):
        logits, after = super().forward(tokens, state)
        return nn.functional.dropout(logits, self.p, self.training), after
