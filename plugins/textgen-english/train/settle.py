"""The end of the training: a text keeps one kind of marks, and of lines.

    python settle.py RUN WEIGHTS [--steps 400] [--rate 0.0006] [--strength 20] [--seed 0]

Goes on from WEIGHTS, the model.safetensors of a checkpoint or of RUN itself or what this program
wrote, on pieces of pieces.txt in random order, and writes settled.safetensors. Those of the first
books of mix.py come twice, since the training before has read them five times and would forget
them; of those with wrapped lines comes one of twenty, since `textgen init` joins such lines.

The loss has one part more: for each token -log(1 - p), where p is what the model gives to tokens
that the piece cannot have there. After its first mark these are the tokens with marks of the other
kind, and in a sentence, if its lines are not broken, line breaks. The windows are twice as long as
in the training: a kind is to be remembered through paragraphs without a mark. The rate falls to
zero from the start on.
"""

import argparse
import random
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn.functional import cross_entropy

import textgen
from textgen.gradient import eager, warmup_stable_decay
from textgen_builtins.models.rnn.config import RNNConfig
from textgen_builtins.models.rnn.torch_model import TorchRNN

KINDS = "[\"']|--|\\.\\.\\.", "[\u201c\u201d\u2018\u2019\u2014\u2026]"  # plain, typographic
IN_SENTENCE = re.compile("[a-z,;]$")
BROKEN = re.compile("[a-z,;]\n[a-z]")  # a line
TIMES = {"0": 2, "1": 1}  # that a piece comes, by the digits of kinds.txt
WRAPPED = 0.05  # of the wrapped pieces
FEW = 3  # of them, in a piece whose lines are not broken
BATCH, WINDOW, APART = 32, 128, 800
SHOWN = 25  # steps


def pieces(tokenizer: Any, chance: random.Random) -> Iterator[Any]:
    """The ids (T,) of the pieces of mix.py, cut at random as by cuts.py, (2,) which kind of
    marks each lacks, and whether its lines are whole.
    """
    texts = Path("pieces.txt").read_text(encoding="utf-8").split("\f")[1:-1]
    kinds = Path("kinds.txt").read_text(encoding="ascii")[:-1]  # the last ends in held-out text
    texts = [text for text, kind in zip(texts, kinds, strict=True) for _ in range(TIMES[kind])]
    chance.shuffle(texts)
    for text in texts:
        is_whole = len(BROKEN.findall(text)) <= FEW
        if not is_whole and chance.random() > WRAPPED:
            continue
        cuts = [0]
        while cuts[-1] < len(text):
            cuts.append(cuts[-1] + 1 + int(chance.expovariate(1 / APART)))
        parts = [tokenizer.encode(text[a:b]) for a, b in pairwise(cuts)]
        lacks = np.argmin([len(re.findall(kind, text)) for kind in KINDS])
        yield np.concatenate(parts).astype(np.int64), lacks, is_whole


def windows(drawn: Iterator[Any], chance: random.Random) -> Iterator[Any]:
    """The next windows (B, T + 1) of the rows, (B,) whether each goes on from the one before, and
    what `pieces` tells of them. The first windows begin anywhere.
    """
    rows = [next(drawn) for _ in range(BATCH)]
    starts = [chance.randrange(len(row) - WINDOW) for row, *_ in rows]
    goes_on = [False] * BATCH
    while True:
        parts = [row[p : p + WINDOW + 1] for (row, *_), p in zip(rows, starts, strict=True)]
        facts = [torch.tensor([row[i] for row in rows]) for i in (1, 2)]
        yield torch.from_numpy(np.stack(parts)), torch.tensor(goes_on), *facts
        for i in range(BATCH):
            starts[i] += WINDOW
            goes_on[i] = starts[i] + WINDOW + 1 <= len(rows[i][0])
            if not goes_on[i]:
                rows[i], starts[i] = next(drawn), 0


def losses(model: Any, texts: list[str], read: Any, carried: Any) -> Any:
    """The mean loss of windows, that of tokens that cannot be there, and what is carried to the
    next windows: the state, and (B,) whether there was a mark.

    texts  of the tokens
    """
    (batch, goes_on, lacks, is_whole), (state, seen) = read, carried
    marks = torch.tensor([[bool(re.search(kind, text)) for kind in KINDS] for text in texts])
    breaks = torch.tensor(["\n" in text for text in texts])
    in_sentence = torch.tensor([bool(IN_SENTENCE.search(text)) for text in texts])[batch[:, :-1]]
    state = state and tuple(part * goes_on[:, None] for part in state)
    with torch.autocast("cpu", torch.bfloat16):
        logits, after = model(batch[:, :-1], state)
    scores = torch.log_softmax(logits.float(), -1)
    loss = cross_entropy(scores.transpose(1, 2), batch[:, 1:])
    given = scores.exp()
    begun = (marks.any(1)[batch[:, :-1]].cumsum(1) > 0) | (seen & goes_on)[:, None]
    wrong = torch.einsum("btv,vb->bt", given, marks[:, lacks].float()) * begun
    has_no_break = in_sentence & is_whole[:, None] & ~breaks[batch[:, 1:]]
    wrong = wrong + given @ breaks.float() * has_no_break
    extra = -torch.log1p(-wrong.clamp(max=0.999)).mean()
    return loss, extra, (tuple(part.detach() for part in after), begun[:, -1])


def settle(model: Any, tokenizer: Any, given: Any) -> None:
    """Train the weights."""
    texts = [tokenizer.decode(np.array([token])) for token in range(tokenizer.vocab_size)]
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = eager(torch.optim.AdamW)(groups, betas=(0.9, 0.99), weight_decay=0.02, fused=True)
    schedule, chance = warmup_stable_decay(warmup=20, decay=0.9), random.Random(given.seed)
    carried, shown, begun = (None, torch.zeros(BATCH, dtype=torch.bool)), [], time.process_time()
    batches = windows(pieces(tokenizer, chance), chance)
    for step in range(1, given.steps + 1):
        loss, extra, carried = losses(model, texts, next(batches), carried)
        optimizer.zero_grad(set_to_none=True)
        (loss + given.strength * extra).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = given.rate * schedule(step, given.steps)
        optimizer.step()
        shown.append((loss.item(), extra.item()))
        if step % SHOWN == 0:
            mean, other = np.mean(shown[-SHOWN:], axis=0)
            seconds = time.process_time() - begun
            print(f"step {step}: {mean:.3f}, other kinds {other:.6f}, {seconds:.0f} s", flush=True)


def main() -> None:
    """Train, and write the weights."""
    options = argparse.ArgumentParser()
    options.add_argument("run", type=Path)
    options.add_argument("weights", type=Path)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--rate", type=float, default=6e-4)
    options.add_argument("--strength", type=float, default=20.0)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.set_num_threads(1)
    with textgen.load(given.run, tokenizer="bpe") as generator:
        tokenizer, table = generator.tokenizer, generator.tables["model"]
    sizes = {name: table[name] for name in ("cell", "hidden_size", "embedding_size")}
    model = TorchRNN.create(RNNConfig(**sizes), tokenizer.vocab_size, seed=0, device="cpu")
    model.load_tensors({k: np.float32(v) for k, v in load_file(given.weights).items()})
    settle(model, tokenizer, given)
    made = {name: np.ascontiguousarray(array) for name, array in model.tensors().items()}
    save_file(made, "settled.safetensors")


if __name__ == "__main__":
    main()
