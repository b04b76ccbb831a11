"""Measures `textgen serve` beside llama.cpp's server, under the same concurrent streams.

    pip install xllamacpp gguf
    python benchmarks/peer.py RUN --streams 256 --tokens 100 --repeats 5

llama.cpp gets a Llama with random weights: two layers of 32 units, about as many weights as a GRU
of 64 units has, and the vocabulary of the run. It has a slot for each stream, up to its 256, and
its caches of prompts are off, which makes it faster here. Each stream asks for the same number of
tokens, at temperature 0.8 without other samplers. The servers answer in turns, each in a process of
its own.

Prints one JSON object. It has the medians for each server: tokens a second of one stream, of all
streams, and of as many requests without streams; and the times from the request to the first text.
Then it has the ratios of tokens a second, textgen's by llama.cpp's: median, least and most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import textgen

LLAMA = """
import os, signal, sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
slots, tokens, threads = map(int, sys.argv[2:])
parameters.n_parallel = slots
parameters.n_ctx = slots * tokens
parameters.cache_prompt, parameters.cache_ram_mib, parameters.n_ctx_checkpoints = False, 0, 0
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(parameters)
print(server.listening_address, file=sys.stderr, flush=True)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # its log
signal.pause()
"""
TEXT = re.compile(rb'"text": ?"[^"]')
USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
PLAIN = {  # no sampler but the temperature, and no end
    "prompt": "the ",
    "temperature": 0.8,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "ignore_eos": True,
}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
Address = tuple[str, int]


def main() -> int:
    """Start both servers, and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of llama.cpp")
    options = parser.parse_args()
    vocabulary = textgen.load(options.run).tokenizer.vocab_size
    with ExitStack() as stack:
        model = Path(stack.enter_context(tempfile.TemporaryDirectory()), "llama.gguf")
        write_llama(model, vocabulary)
        context = -(-(options.tokens + 8) // 256) * 256
        slots = [min(options.streams, 256), context, options.threads]
        lines = {
            "textgen": ["-m", "textgen", "serve", options.run, "--port", "0"],
            "llama.cpp": ["-c", LLAMA, model, *slots],
        }
        addresses = {name: stack.enter_context(serving(line)) for name, line in lines.items()}
        made = asyncio.run(measured(addresses, options))
    print(json.dumps(made, indent=2))
    return 0


def write_llama(path: Path, vocabulary: int, layers: int = 2, width: int = 32) -> None:
    """A Llama with random weights, whose tokens are characters."""
    writer, rng = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    hidden, heads = 3 * width, 4
    writer.add_context_length(1 << 16)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    characters = ["Ġ", *map(chr, range(126, 32, -1))]  # the space, as GPT-2 spells it
    others = [f"<{i}>" for i in range(len(characters), vocabulary)]
    writer.add_token_list([*characters, *others][:vocabulary])
    writer.add_token_merges(["t h"])
    shapes = {"token_embd": (vocabulary, width), "output": (vocabulary, width)}
    for i in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{i}.{name}"] = (width, width)
        shapes |= {f"blk.{i}.{name}": (hidden, width) for name in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{i}.ffn_down"] = (width, hidden)
        shapes |= {f"blk.{i}.{name}": (width,) for name in ("attn_norm", "ffn_norm")}
    shapes["output_norm"] = (width,)
    for name, shape in shapes.items():
        weights = rng.normal(0, 0.2, shape) if len(shape) == 2 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


async def measured(servers: dict[str, Address], options: argparse.Namespace) -> dict[str, Any]:
    """The medians of each server, and the ratios of tokens a second."""
    count, tokens = options.streams, options.tokens
    loads = {"one_stream": (1, STREAM), "streams": (count, STREAM), "whole": (count, {})}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for repeat in range(-1, options.repeats):  # the first one warms
        for name in sorted(servers, reverse=repeat % 2 > 0):
            made = {}
            for kind, (requests, body) in loads.items():
                rate, firsts = await load(servers[name], requests, {**body, "max_tokens": tokens})
                made[f"{kind}_tokens_per_second"] = rate
                if kind == "streams":
                    made["first_text_ms_median"] = 1000 * statistics.median(firsts)
                    made["first_text_ms_p99"] = 1000 * firsts[int(0.99 * (count - 1))]
            if repeat >= 0:
                turns[name].append(made)
    medians = {
        name: {key: round(statistics.median(turn[key] for turn in made)) for key in made[0]}
        for name, made in turns.items()
    }
    ratios = {}
    for key in (f"{kind}_tokens_per_second" for kind in loads):
        each = sorted(a[key] / b[key] for a, b in zip(*turns.values(), strict=True))
        spread = {"median": statistics.median(each), "least": each[0], "most": each[-1]}
        ratios[key] = {name: round(ratio, 2) for name, ratio in spread.items()}
    return {"streams": count, "tokens_each": tokens, **medians, "ratios": ratios}


async def load(address: Address, count: int, body: dict[str, Any]) -> tuple[float, list[float]]:
    """Tokens a second of concurrent requests, and the sorted seconds until their first texts."""
    begun = time.perf_counter()
    firsts = await asyncio.gather(*(request(address, {**body, "seed": i}) for i in range(count)))
    return count * body["max_tokens"] / (time.perf_counter() - begun), sorted(firsts)


async def request(address: Address, body: dict[str, Any]) -> float:
    """The seconds until the first text. Decoding the events would cost more than the servers."""
    data = json.dumps({**PLAIN, **body}).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
    )
    begun, first, last = time.perf_counter(), 0.0, b""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(head + data)
        while part := await reader.read(1 << 16):
            last = last[-2000:] + part
            if not first and TEXT.search(last):
                first = time.perf_counter() - begun
    finally:
        writer.close()
    found = USAGE.findall(last)
    if not found or int(found[-1]) != body["max_tokens"]:
        raise SystemExit(f"{address} gave fewer tokens than asked for: {last.decode()}")
    return first


@contextmanager
def serving(line: list[object]) -> Iterator[Address]:
    """A server that says its address on standard error."""
    with subprocess.Popen(
        [sys.executable, *map(str, line)], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            for said in server.stderr:
                if found := re.search(r"http://([\d.]+):(\d+)", said):
                    break
            yield found[1], int(found[2])
        finally:
            server.terminate()


if __name__ == "__main__":
    raise SystemExit(main())
