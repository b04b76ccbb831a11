"""Tokens a second of one text and of many against a loop of torch, and of asynchronous streams.

Usage: python benchmarks/generation.py [--only one|batch|streams] [--repeats 7] [--tokens 2000]
       [--many 1024] [--device cpu]
       python benchmarks/generation.py --run RUN [--repeats 7] [--tokens 2000] [--prompt TEXT]

`one` and `batch` set textgen against an nn.RNN (GRU, LSTM) step per character in a Python loop
under torch.inference_mode, from the same weights, in turn: seconds of the loop over ours, of a
batch per token. `streams` sets concurrent streams on one event loop against generate_many of the
same texts, and prints the time to each first piece; stalls.py has how long the loop waits. With a
run, the characters a second of its model, the time to a first piece and the memory of a stream: a
table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import textgen
from shared import parser, ratios, show

_PROMPT = "it has"
_SAMPLED = {"temperature": 0.8, "top_k": 10}


def trained(folder: Path, cell: str, units: int, device: str) -> textgen.Generator:
    """A run with a model of that size; how well it is trained does not matter here."""
    tables = {
        "device": device,
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char", "letters_only": True, "lower_case": True},
        "data": {"window_length": 32, "windows": [64, 0]},
        "model": {"type": "rnn", "cell": cell, "hidden_size": units},
        "trainer": {"type": "sgd", "length": "1 epoch"},
        "sampler": [{"type": "greedy"}],
        "observer": [],
        "generate": {"max_new_tokens": 1},
    }
    return textgen.run(tables, output=folder / f"{cell}-{units}").generator


def torch_loop(
    generator: textgen.Generator, cell: str, units: int, device: str
) -> Callable[..., list[int]]:
    """Generates from the same weights: one-hot input, the framework's layer called once a
    character.
    """
    size = generator.tokenizer.vocab_size
    layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](size, units)
    network = nn.ModuleDict({"rnn": layer, "head": nn.Linear(units, size)}).to(device)
    weights = {name: torch.tensor(each) for name, each in generator.model.tensors().items()}
    network.load_state_dict(weights)

    def step(token: int, state: Any) -> tuple[torch.Tensor, Any]:
        ids = torch.tensor([[token]], device=device)
        out, state = network["rnn"](nn.functional.one_hot(ids, size).float(), state)
        return network["head"](out[0]), state

    @torch.inference_mode()
    def generate(count: int, temperature: float = 0.0, top_k: int = 0) -> list[int]:
        state, made = None, []
        for token in generator.tokenizer.encode(_PROMPT).tolist():
            logits, state = step(token, state)
        for _ in range(count):
            if temperature:
                values, ids = torch.topk(logits / temperature, top_k)
                token = int(ids[0, torch.multinomial(torch.softmax(values, -1), 1)[0, 0]])
            else:
                token = int(logits.argmax())
            made.append(token)
            logits, state = step(token, state)
        return made

    return generate


def one(folder: Path, given: argparse.Namespace) -> None:
    """One text, greedy and sampled."""
    cases = (("rnn", 32, 12, 4), ("rnn", 256, 7, 3.5), ("lstm", 512, 8, 6))
    for cell, units, target_greedy, target_sampled in cases:
        generator = trained(folder, cell, units, given.device)
        loop = torch_loop(generator, cell, units, given.device)
        count = given.tokens if units < 512 else given.tokens // 6
        assert list(generator.generate(_PROMPT, max_new_tokens=50).tokens) == loop(50)
        ways = (("greedy", target_greedy, {}), ("sampled", target_sampled, _SAMPLED))
        for way, target, options in ways:
            ours = partial(generator.generate, _PROMPT, max_new_tokens=count, **options)
            found = ratios(partial(loop, count, **options), ours, given.repeats)
            show(f"{cell} {units}, {way}, one text", found, target)


def batch(folder: Path, given: argparse.Namespace) -> None:
    """Many texts at once, per token, against the loop's one."""
    generator = trained(folder, "rnn", 32, given.device)
    loop = torch_loop(generator, "rnn", 32, given.device)

    def ours() -> None:
        options = {"n": given.many, "batch_size": given.many, "max_new_tokens": given.tokens}
        list(generator.generate_many([_PROMPT], **options))

    found = [
        given.many * ratio for ratio in ratios(lambda: loop(given.tokens), ours, given.repeats)
    ]
    show(f"rnn 32, greedy, {given.many} texts, per token", found, "250 for 1,024")


def streams(folder: Path, given: argparse.Namespace) -> None:
    """A fifth of the texts, each of them a fifth as long, for two models."""
    count = given.many // 5
    options = {"max_new_tokens": given.tokens // 5, "temperature": 0.8}
    for cell, units in (("gru", 64), ("lstm", 256)):
        generator = trained(folder, cell, units, given.device)
        shares, firsts = [], []
        for _ in range(given.repeats):
            begun = time.perf_counter()
            whole = list(generator.generate_many([_PROMPT], n=count, **options))
            alone = time.perf_counter() - begun
            begun = time.perf_counter()
            texts, first = asyncio.run(read_all(generator, count, {"prompt": _PROMPT, **options}))
            shares.append(alone / (time.perf_counter() - begun))
            assert texts == [each.text for each in whole]
            firsts += first
        name = f"{cell} {units}, {count} streams"
        show(f"{name}: share of generate_many's tokens a second", shares, 0.7)
        show(f"{name}: first piece, ms", firsts, "median at most 50")


def absolute(given: argparse.Namespace) -> None:
    """Asynchronous streams of a run, several at once; the medians."""
    generator = textgen.load(given.run, device=given.device)
    print("| streams at once | characters a second | first piece, ms | memory of a stream, kB |")
    print("| --- | --- | --- | --- |")
    for count in (1, 32, 256):
        options = {"prompt": given.prompt, "max_new_tokens": max(20, given.tokens // count)}
        speeds, firsts = [], []
        for _ in range(given.repeats):
            begun = time.perf_counter()
            texts, first = asyncio.run(read_all(generator, count, options))
            speeds.append(sum(map(len, texts)) / (time.perf_counter() - begun))
            firsts += first
        tracemalloc.start()
        asyncio.run(read_all(generator, count, options | {"max_new_tokens": 20}))
        memory = tracemalloc.get_traced_memory()[1] / count / 1000
        tracemalloc.stop()
        speed, first_piece = statistics.median(speeds), statistics.median(firsts)
        print(f"| {count} | {speed:,.0f} | {first_piece:.1f} | {memory:,.0f} |")


async def read_all(
    generator: textgen.Generator, count: int, options: Any
) -> tuple[list[str], list[float]]:
    """The texts, and the milliseconds to each first piece."""
    firsts: list[float] = []
    begun = time.perf_counter()

    async def read(index: int) -> str:
        pieces = []
        async for piece in await generator.astream(index=index, **options):
            if not pieces:
                firsts.append(1000 * (time.perf_counter() - begun))
            pieces.append(piece)
        return "".join(pieces)

    return await asyncio.gather(*map(read, range(count))), firsts


def main() -> None:
    """Print the figures."""
    ways = {"one": one, "batch": batch, "streams": streams}
    options = parser(__doc__)
    options.add_argument("--only", action="append", choices=ways, help="what is measured")
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--tokens", type=int, default=2000)
    options.add_argument("--many", type=int, default=1024)
    options.add_argument("--device", default="cpu")
    options.add_argument("--run", help="a run directory")
    options.add_argument("--prompt", default=_PROMPT)
    given = options.parse_args()
    torch.set_num_threads(1)  # a step is too small to share out
    if given.run:
        absolute(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, way in enumerate(given.only or ways):
            ways[way](Path(folder, str(number)), given)


if __name__ == "__main__":
    main()
