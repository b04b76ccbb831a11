"""Texts of requests by chance: features of generation together, in every way that a text is made.

    python -m campaigns.features [--cases N] [--minutes M] [--seed S] [--only CASE]

A case is a request, drawn from the seed and its number: a kind of model, a strategy, samplers, what
ends the text, a form, a prompt of text or ids. Its text must be the same alone, in a batch beside
others, streamed, by asyncio and in threads, and in parts that are cut off, saved and loaded; and it
must be what the options say. A case that goes wrong is printed; `--seed S --only CASE` does it
again.
"""

import asyncio
import itertools
import json
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from unittest import mock

import attrs
import numpy as np

import textgen

from . import cases

RNN = {"type": "rnn", "hidden_size": 16}
LSTM = {"type": "rnn", "cell": "lstm", "hidden_size": 16}
NGRAM = {"type": "ngram", "order": 4}
BPE = {"type": "bpe", "vocab_size": 300}
MIXTURE = {"type": "mixture", "first": RNN, "second": NGRAM}
DESCENT = {"type": "adamw", "length": "30 steps", "batch_size": 8}
KINDS = {
    "char-rnn": {"model": RNN},
    "char-ngram": {"model": NGRAM},
    "char-mixture": {"model": MIXTURE},
    "documents-lstm": {"model": LSTM, "documents": True},
    "documents-mixture": {"model": MIXTURE, "documents": True},
    "bpe-rnn": {"model": RNN, "tokenizer": BPE},
    "bpe-ngram": {"model": NGRAM, "tokenizer": BPE},
}
STRATEGIES = (
    "none",
    "sample",
    "beam",
    "best-of",
    "fill",
    *("guidance", "never", "bans") * 2,
    "bans",
)
NEVER = "qzq"  # a phrase that no text has


@attrs.frozen
class Case:
    """A request, and where its text is cut into parts.

    options   of the request, those of a strategy among them
    strategy  the name of the strategy
    cuts      for each part the steps after which it is cancelled, over and over
    length    number of tokens of a part, where it ends by itself
    """

    kind: str
    prompt: str
    as_ids: bool
    strategy: str
    options: dict
    cuts: tuple[int, ...]
    length: int

    @property
    def phrases(self):
        """What is banned."""
        return [phrase.lower() for phrase in self.options.get("ban_phrase", ())]


def text_of_story():
    """The text that all models are trained on, and all pieces are of."""
    from textgen_builtins.corpora.plugin import STORY

    return STORY.read_text()[:20_000]


@cache
def generator_of(kind):
    """A generator of a kind of model, trained for a moment."""
    parts = {**KINDS[kind]}
    trainer = {"ngram": {"type": "count"}, "rnn": DESCENT}.get(parts["model"]["type"])
    if trainer is None:
        trainer = {"type": "mixture", "first": DESCENT}
    corpus = text_of_story()
    with tempfile.TemporaryDirectory() as folder:
        if parts.pop("documents", False):
            path = Path(folder, "documents.jsonl")
            paragraphs = [part for part in corpus.split("\n\n") if part.strip()]
            path.write_text("".join(json.dumps({"text": part}) + "\n" for part in paragraphs))
            corpus = {"type": "file", "path": str(path), "documents": "jsonl"}
        return textgen.train(corpus=corpus, trainer=trainer, device="cpu", **parts).generator


def draw(seed):
    """The case of a seed."""
    chance, text = random.Random(seed), text_of_story()

    def piece(least, most):
        begin = chance.randrange(len(text) - most)
        return text[begin : begin + chance.randint(least, most)]

    strategy = chance.choice([*STRATEGIES])
    return Case(
        kind=chance.choice([*KINDS, *["char-ngram", "bpe-ngram"] * 2]),
        prompt=chance.choice(["", piece(1, 20), piece(1, 20).strip() + " ", "The "]),
        as_ids=chance.random() < 0.4,
        strategy=strategy,
        options={
            "max_new_tokens": chance.choice([1, 7, 24, 40, 40]),
            "index": chance.randrange(99),
            **drawn_strategy(strategy, chance, piece),
            **drawn_samplers(chance),
            **drawn_ends(chance, piece),
        },
        cuts=(*(chance.choice([0, 4, 5, 7, 12]) for _ in range(5)), 12),
        length=chance.choice([1, 4, 6]),
    )


def drawn_strategy(name, chance, piece):
    """Options of a strategy."""
    match name:
        case "sample":
            return {"strategy": "sample"}
        case "beam":
            groups = chance.choice([1, 1, 2])
            return {"beams": groups * chance.randint(1, 3), "beam_groups": groups}
        case "best-of":
            return {"best_of": chance.randint(1, 4)}
        case "guidance":
            return {"negative_prompt": chance.choice(["", piece(1, 12)]), "guidance_scale": 3.0}
        case "bans":
            return {"ban_phrase": overlapping(chance.choice([1, 3, 10, 10]), chance, piece)}
        case "never":
            return chance.choice([{"ban_phrase": [NEVER]}, {"best_of": 1}])
        case "fill":
            return {"suffix": piece(1, 6), "candidates": chance.randint(1, 3)}
    return {}


def overlapping(count, chance, piece):
    """Phrases of which each begins within the one before, most of them short."""
    text, begin, made = piece(60, 60), 0, []
    for _ in range(count):
        made.append(text[begin : begin + chance.choice([2, 2, 3, 3, 4, 8])])
        begin += chance.randint(1, 3)
    return made


def drawn_samplers(chance):
    """Options of samplers, and a form now and then."""
    samplers = [
        {"temperature": 0},
        {"temperature": 1.3, "top_k": 20},
        {"temperature": 0.7, "top_p": 0.9, "min_p": 0.01},
        {"repetition_penalty": 1.3, "presence_penalty": 0.3},
        {"xtc_probability": 0.5, "xtc_threshold": 0.05, "dry_multiplier": 0.8},
    ]
    form = {"regex": "[A-Za-z ,.]{8,40}"} if chance.random() < 0.1 else {}
    return form | chance.choice([{}, {}, *samplers])


def drawn_ends(chance, piece):
    """What ends a text, and what is told of it."""
    stops = [*(piece(1, 3) for _ in range(chance.randint(1, 3))), " " + piece(1, 1)]
    options = {
        "stop": (0.3, stops),
        "stop_tokens": (0.2, [chance.randint(5, 50)]),
        "min_new_tokens": (0.3, chance.randint(1, 12)),
        "logprobs": (0.2, chance.randint(0, 3)),
        "echo": (0.2, True),
        "ignore_end": (0.2, True),
    }
    return {name: value for name, (share, value) in options.items() if chance.random() < share}


def fault(case):
    """What is wrong with the texts of a case; "" if nothing."""
    generator = generator_of(case.kind)
    prompt = case.prompt
    if case.as_ids:
        prompt = generator.prepare(prompt, unknown_characters="skip").ids
    options = {"unknown_characters": "skip", **case.options}
    alone = generator.generate(prompt, **options)
    expected = seen(alone)
    for way in (batched, streamed, in_threads, asynchronous):
        for made in way(generator, prompt, options):
            if said := difference(expected, made):
                return f"{way.__name__}: {said}"
    if said := difference(expected, cut_off(generator, prompt, options, case.cuts)):
        return f"cut off and resumed: {said}"
    for check in (not_as_asked, not_as_sampled, not_in_parts):
        if said := check(generator, prompt, options, case, alone):
            return f"{check.__name__}: {said}"
    return ""


def seen(made):
    """What two texts must have in common, by name."""
    return {
        "tokens": [*made.tokens],
        "text": made.text,
        "reason": made.finish_reason,
        "logprobs": made.logprobs[-len(made.tokens) :] if made.tokens else (),  # not of the prompt
        "ranked": [each.text for each in made.ranked],
        "chosen": [each.tokens for each in made.ranked],
    }


def difference(expected, made):
    """Where something differs that two texts both have; "" if nowhere."""
    for name in [name for name in expected if name in made]:
        ours, theirs = expected[name], made[name]
        if name == "logprobs":
            ours, theirs = ([each.token for each in entries] for entries in (ours, theirs))
            nats = [[entry.logprob for entry in it[name]] for it in (expected, made)]
            if ours == theirs and not np.allclose(*nats, atol=1e-4):
                return f"{name}: {nats[1]}, and {nats[0]} alone"
        if ours != theirs:
            return f"{name}: {theirs!r}, and {ours!r} alone"
    return ""


# The ways in which a text is made.


def batched(generator, prompt, options):
    """In a batch, between others."""
    shorter, longer = {"prompt": "a", "max_new_tokens": 5}, {"prompt": "", "max_new_tokens": 45}
    mine, bans = {"prompt": prompt, **options}, {"ban_phrase": ["e", "th"]}
    made = [*generator.generate_many([shorter, mine, longer | bans, mine])]
    yield seen(made[1])
    yield seen(made[3])


def streamed(generator, prompt, options):
    """In pieces."""
    stream = generator.stream(prompt, **options)
    text = "".join(stream)
    yield {"text": text, "reason": stream.finish_reason}


def in_threads(generator, prompt, options):
    """By three threads at once."""
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(generator.generate, prompt, **options) for _ in range(3)]
        yield from (seen(future.result()) for future in futures)


def asynchronous(generator, prompt, options):
    """Whole and in pieces, at once."""

    async def pieces():
        stream = await generator.astream(prompt, **options)
        text = "".join([piece async for piece in stream])
        return {"text": text, "reason": stream.finish_reason}

    async def whole():
        return seen(await generator.agenerate(prompt, **options))

    async def both():
        return await asyncio.gather(pieces(), whole())

    yield from asyncio.run(both())


def cut_off(generator, prompt, options, cuts):
    """In parts that are cancelled, saved, loaded and resumed; without the text, of which stays what
    was shown.
    """
    left, asked = options["max_new_tokens"], {"prompt": prompt, "echo": options.get("echo", False)}
    options = {name: value for name, value in options.items() if name != "echo"}
    tokens, logprobs, cut = [], (), itertools.cycle(cuts)
    with mock.patch.object(time, "perf_counter", itertools.count().__next__):  # a step at a time
        while True:
            steps = itertools.count(-next(cut))
            made = generator.generate(
                **asked,
                **{**options, "max_new_tokens": left - len(tokens)},
                cancelled=lambda steps=steps: next(steps) >= 0,
                keep_state=True,
            )
            tokens += made.tokens
            logprobs += seen(made)["logprobs"]
            if made.finish_reason != "cancelled":
                break
            asked = {"state": reloaded(made.state)}
    return {
        "tokens": tokens,
        "reason": made.finish_reason,
        "logprobs": logprobs,
        "chosen": [each.tokens for each in made.ranked],
    }


def reloaded(state):
    """A state that was saved."""
    with tempfile.TemporaryDirectory(dir=cases.FAST) as folder:
        state.save(Path(folder, "state"))
        return textgen.GenerationState.load(Path(folder, "state"))


# What a text must be by its options.


def not_as_asked(generator, prompt, options, case, made):
    """What of a text is not as its options say."""
    text = made.text[len(made.prompt) :] if made.echo else made.text
    if len(made.tokens) > options["max_new_tokens"]:
        return f"{len(made.tokens)} tokens"
    if written := [phrase for phrase in case.phrases if phrase in text.lower()]:
        return f"{written} in {text!r}"
    stops = () if "min_new_tokens" in options else options.get("stop", ())
    if shown := [stop for stop in stops if stop in text]:
        return f"the stop texts {shown} in {text!r}"
    if made.ranked and made.ranked[0].text != text:
        return f"the best text is {made.ranked[0].text!r}, and {text!r} came"
    told = [entry.token for entry in seen(made)["logprobs"]]
    if "logprobs" in options and told != [*made.tokens]:
        return f"log-probabilities of {told}, and not of {made.tokens}"
    return ""


def not_as_sampled(generator, prompt, options, case, made):
    """What of a strategy that changes nothing differs from sampling."""
    if case.strategy not in ("sample", "never"):
        return ""
    names = ("strategy", "ban_phrase", "best_of")
    plain = {name: value for name, value in options.items() if name not in names}
    sampled = seen(generator.generate(prompt, **plain))
    made = seen(made)
    return difference(sampled, {name: made[name] for name in ("tokens", "text", "reason")})


def not_in_parts(generator, prompt, options, case, made):
    """What differs in parts of a few tokens, each from the state of the one before."""
    options = {name: value for name, value in options.items() if name != "echo"}
    left, asked, tokens, text = options["max_new_tokens"], {"prompt": prompt}, [], ""
    reason = "length"
    while reason == "length" and left:
        size = min(case.length, left)
        part = generator.generate(**asked, **{**options, "max_new_tokens": size}, keep_state=True)
        tokens += part.tokens
        text += part.text
        reason, left, asked = part.finish_reason, left - size, {"state": reloaded(part.state)}
    if written := [phrase for phrase in case.phrases if phrase in text.lower()]:
        return f"{written} in {text!r}"
    is_chosen = "best_of" in options or case.strategy in ("beam", "best-of", "bans", "fill")
    if not is_chosen and (tokens, reason) != ([*made.tokens], made.finish_reason):
        return f"{tokens} ({reason}), and {made.tokens} ({made.finish_reason}) at once"
    return ""


def tried(seed):
    """What is wrong in the case of a seed, and the case."""
    case = draw(seed)
    try:
        said = fault(case)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return said and f"{said}\n  {case}"


def numbered(seed, only=None):
    """The cases of a seed, or one of them."""
    for number in itertools.count() if only is None else [only]:
        name = f"--seed {seed} --only {number}"
        yield name, partial(tried, f"{seed} {number}")


if __name__ == "__main__":
    parser = cases.arguments(__doc__)
    parser.add_argument("--only", type=int, help="the number of a case")
    given = parser.parse_args()
    cases.do(numbered(given.seed, given.only), given)
