"""Characters a second of a run's model, the time to a first piece and the memory of a stream, for
several asynchronous streams at once; the medians.

Usage: python benchmarks/generation.py [--run RUN] [--repeats 7] [--tokens 2000]

Without a run, the model is a GRU of 64 units, and the seconds of a plain loop of torch over ours,
in turn, for one text from the same weights, are printed too. The figures are in docs/benchmarks.md.
"""

import asyncio
import statistics
import time
import tracemalloc

import torch
from torch import nn

import textgen
from shared import parser, seconds, show

_UNITS = 64
_GRU = {"type": "rnn", "cell": "gru", "hidden_size": _UNITS}


def main():
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--run", help="a run directory")
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--tokens", type=int, default=2000)
    given = options.parse_args()
    generator = textgen.load(given.run) if given.run else untrained()
    print("| streams at once | characters a second | first piece, ms | memory of a stream, kB |")
    print("| --- | --- | --- | --- |")
    for count in (1, 32, 256):
        asked = {"prompt": "it has", "max_new_tokens": max(20, given.tokens // count)}
        speeds, firsts = [], []
        for _ in range(given.repeats):
            begun = time.perf_counter()
            texts, first = asyncio.run(read_all(generator, count, asked))
            speeds.append(sum(map(len, texts)) / (time.perf_counter() - begun))
            firsts += first
        tracemalloc.start()
        asyncio.run(read_all(generator, count, asked | {"max_new_tokens": 20}))
        memory = tracemalloc.get_traced_memory()[1] / count / 1000
        tracemalloc.stop()
        speed, first_piece = statistics.median(speeds), statistics.median(firsts)
        print(f"| {count} | {speed:,.0f} | {first_piece:.1f} | {memory:,.0f} |")
    if not given.run:
        size = given.tokens
        pairs = [
            (seconds(lambda: torch_loop(generator, size)), seconds(lambda: one(generator, size)))
            for _ in range(given.repeats + 1)
        ]
        show("one text, a loop of torch over ours", [loop / ours for loop, ours in pairs[1:]])


def untrained():
    """How well a model is trained does not matter to its speed."""
    trainer = {"type": "sgd", "length": "1 steps"}
    return textgen.train(corpus={"type": "story"}, model=_GRU, trainer=trainer).generator


def one(generator, count):
    """A text of so many characters, without a stream."""
    return generator.generate(max_new_tokens=count)


@torch.inference_mode()
def torch_loop(generator, count):
    """The tokens of such a text, by the layers of torch, which are called once for each."""
    size = generator.tokenizer.vocab_size
    network = nn.ModuleDict({"rnn": nn.GRU(size, _UNITS), "head": nn.Linear(_UNITS, size)})
    weights = {name: torch.tensor(each) for name, each in generator.model.tensors().items()}
    network.load_state_dict(weights)
    made, state = [0], None
    for _ in range(count):
        given = nn.functional.one_hot(torch.tensor([made[-1:]]), size).float()
        out, state = network["rnn"](given, state)
        made.append(int(torch.multinomial(torch.softmax(network["head"](out[0, 0]), -1), 1)))
    return made


async def read_all(generator, count, options):
    """The texts, and the milliseconds to each first piece."""
    firsts = []
    begun = time.perf_counter()

    async def read(index):
        pieces = []
        async for piece in await generator.astream(index=index, **options):
            if not pieces:
                firsts.append(1000 * (time.perf_counter() - begun))
            pieces.append(piece)
        return "".join(pieces)

    return await asyncio.gather(*map(read, range(count))), firsts


if __name__ == "__main__":
    main()
