"""The seed's recipe, trained by textgen and by a plain PyTorch loop, epoch by epoch in turn.

Usage: python benchmarks/training.py CORPUS [--epochs 20] [--set trainer.precision=bfloat16]

CORPUS is The Time Machine. The recipe is that of docs/seed.md: windows of 32 characters at stride
1, 10,000 to train on and the next 5,000 to validate on, batches of 1,024, a tanh RNN of 32 units
over one-hot input, SGD at rate 1 with the gradient clipped. The loop cuts its batches from tensors,
which is faster than a DataLoader. Prints its seconds over ours for an epoch, without validation and
with: above 1 we are the faster.
"""

import re
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from shared import parser, show
from textgen import BuildContext, Engine
from textgen.events import Evaluated
from textgen.protocols import TrainingContext
from textgen.runs.splitting import split_tokens

_STEPS, _TRAIN, _VALIDATION, _BATCH, _HIDDEN = 32, 10_000, 5_000, 1024, 32
_SEED = Path(__file__).parents[1] / "docs/pipelines/seed.toml"


def plain(corpus):
    """(seconds of an epoch's steps, seconds of its validation), for ever."""
    text = re.sub("[^A-Za-z]+", " ", corpus.read_text(encoding="utf-8")).lower()
    index = {token: i for i, token in enumerate(sorted({*text, "<unk>"}))}
    windows = torch.tensor([index[c] for c in text]).unfold(0, _STEPS + 1, 1)
    training, held_out = windows[:_TRAIN], windows[_TRAIN : _TRAIN + _VALIDATION]
    rnn, head = nn.RNN(len(index), _HIDDEN), nn.Linear(_HIDDEN, len(index))
    parameters = [*rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1.0)

    def loss_of(batch):
        logits = head(rnn(F.one_hot(batch[:, :-1].T, len(index)).float())[0]).swapaxes(0, 1)
        return F.cross_entropy(logits.reshape(-1, len(index)), batch[:, 1:].reshape(-1))

    while True:
        start = time.perf_counter()
        for rows in torch.randperm(_TRAIN).split(_BATCH):
            optimizer.zero_grad()
            loss_of(training[rows]).backward()
            norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
            for p in parameters:
                p.grad.mul_(torch.clamp(1 / norm, max=1))
            optimizer.step()
        stepped = time.perf_counter()
        with torch.no_grad():
            for batch in held_out.split(_BATCH):
                loss_of(batch).item()
        yield stepped - start, time.perf_counter() - stepped


def ours(corpus, changes):
    """The same of the pipeline docs/pipelines/seed.toml."""
    engine, context = Engine(), BuildContext(folder=None, requested_device="cpu")
    pipeline = engine.pipeline(_SEED, ["trainer.length=1000 epochs", *changes])
    tables, text = pipeline.to_dict(), corpus.read_text(encoding="utf-8")
    tokenizer = engine.build("tokenizer", tables["tokenizer"], context)
    tokenizer.fit([text])
    data = split_tokens(tokenizer.encode(text).astype("uint8"), pipeline.data, tokenizer)
    context = BuildContext(folder=None, requested_device="cpu", tokenizer=tokenizer)
    model, trainer = (engine.build(kind, tables[kind], context) for kind in ("model", "trainer"))
    start = stepped = time.perf_counter()
    for event in trainer.train(model, data, TrainingContext(seed=0, device="cpu")):
        if isinstance(event, Evaluated):
            now = time.perf_counter()
            yield stepped - start, now - stepped
            start = time.perf_counter()
        else:
            stepped = time.perf_counter()


def main():
    """Print the ratios."""
    options = parser(__doc__)
    options.add_argument("corpus", type=Path)
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--set", action="append", default=[], help="KEY=VALUE for our pipeline")
    given = options.parse_args()
    turns = zip(plain(given.corpus), ours(given.corpus, given.set), strict=False)
    pairs = [pair for pair, _ in zip(turns, range(given.epochs + 1), strict=False)][1:]
    for name, share in (("without validation", 0), ("with validation", 1)):
        found = [(a[0] + share * a[1]) / (b[0] + share * b[1]) for a, b in pairs]
        threads = torch.get_num_threads()
        show(f"the seed's recipe, an epoch {name}, {threads} threads", found)


if __name__ == "__main__":
    main()
