"""What strategies give, beside plain decoding, of a run and a text that it has not read.

    python benchmarks/strategies.py RUN TEXT [--prompts 100] [--tokens 40]
    python benchmarks/strategies.py RUN TEXT --ahead ahead.py
    python benchmarks/strategies.py RUN TEXT --contrastive contrastive.py

Prints mean log-probabilities in nats, by the model, and for how many prompts a strategy is ahead.
With the plugin file `ahead.py` of docs/plugin-recipes.md, only the speed of its drafts; with
`contrastive.py`, only what repeats itself.
"""

import statistics
import time
from pathlib import Path

from shared import parser
from textgen import Engine, PluginSet


def main():
    """Measure each strategy."""
    options = parser(__doc__)
    options.add_argument("run")
    options.add_argument("text", type=Path)
    options.add_argument("--prompts", type=int, default=100)
    options.add_argument("--tokens", type=int, default=40)
    options.add_argument("--ahead", type=Path, help="the file of a strategy with `drafts`")
    options.add_argument("--contrastive", type=Path, help="the file of a contrastive search")
    asked = options.parse_args()
    plugins = PluginSet.discover()
    if file := asked.ahead or asked.contrastive:
        plugins.register_file(file)
    with Engine(plugins).load(asked.run, sampler=[]) as generator:
        text = asked.text.read_text(encoding="utf-8")
        prompts = [*excerpts(text, asked.prompts, 200)]
        if asked.ahead:
            drafts(generator, prompts, asked.tokens)
            return
        if asked.contrastive:
            repeats(generator, prompts, asked.tokens)
            return
        beams(generator, prompts, asked.tokens)
        best_of(generator, prompts, asked.tokens)
        banned(generator, 1000, asked.tokens)
        gaps(generator, [*excerpts(text, 200, 240)])


def excerpts(text, count, length):
    """Parts of a text, at positions evenly apart."""
    for number in range(count):
        begin = text.index(" ", number * (len(text) - 2 * length) // count) + 1
        yield text[begin : begin + length]


def drafts(generator, prompts, tokens):
    """Time greedy texts without and with drafts, in turn, by the processor's time."""
    ratios, same = [], 0
    for prompt in prompts:
        spent, texts = [], []
        for more in ({}, {"drafts": 8}):
            begun = time.process_time()
            made = generator.generate(prompt, temperature=0, max_new_tokens=tokens, **more)
            spent.append(time.process_time() - begun)
            texts.append(made.tokens)
        ratios.append(spent[0] / spent[1])
        same += texts[0] == texts[1]
    low, *_, high = sorted(ratios)
    print(
        f"drafts: {same} of {len(ratios)} texts the same, at {statistics.median(ratios):.2f} "
        f"({low:.2f}-{high:.2f}) times the speed"
    )


def repeats(generator, prompts, tokens):
    """Share of runs of four words that came before in the same text."""
    for name, more in (("greedy", {"temperature": 0}), ("contrastive search", {"contrastive": 4})):
        texts, seconds = timed(generator.generate_many(prompts, max_new_tokens=tokens, **more))
        each = [text.text.split() for text in texts]
        runs = [[*zip(*(words[i:] for i in range(4)), strict=False)] for words in each]
        again, count = sum(len(own) - len({*own}) for own in runs), sum(map(len, runs))
        print(f"{name}: {again / count:.1%} of {count:,} runs of four words, in {seconds:.1f} s")


def beams(generator, prompts, tokens):
    """Compare the total log-probability of beams with that of the likeliest token at each step."""
    options = {"max_new_tokens": tokens, "logprobs": 0}
    greedy, seconds = timed(generator.generate_many(prompts, temperature=0, **options))
    found, more = timed(generator.generate_many(prompts, beams=4, **options))
    compare("greedy", totals(greedy), "4 beams", totals(found), more / seconds)


def best_of(generator, prompts, tokens):
    """Compare the mean of the best of 8 texts with the mean of all 8."""
    made, _ = timed(generator.generate_many(prompts, best_of=8, max_new_tokens=tokens))
    means = [statistics.fmean(each.score for each in text.ranked) for text in made]
    compare("mean of 8", means, "best of 8", [text.ranked[0].score for text in made])


def banned(generator, count, tokens):
    """Count phrases that are banned, and texts that are other than without."""
    phrases = (" said", " he ", "the door", "in the", " was")
    asked = [{"prompt": "", "index": index} for index in range(count)]
    plain, seconds = timed(generator.generate_many(asked, max_new_tokens=tokens))
    made, more = timed(generator.generate_many(asked, max_new_tokens=tokens, ban_phrase=phrases))
    clean = [not any(phrase in text.text.lower() for phrase in phrases) for text in plain]
    held = sum(any(phrase in text.text.lower() for phrase in phrases) for text in made)
    changed = sum(
        one.tokens != other.tokens
        for one, other, is_clean in zip(plain, made, clean, strict=True)
        if is_clean
    )
    print(
        f"banned phrases: in {count - sum(clean)} of {count} texts without, in {held} with; "
        f"{changed} of {sum(clean)} texts without any changed; {more / seconds:.1f} times the time"
    )


def gaps(generator, parts):
    """Compare how likely the text after a gap of 40 characters is."""
    plain, filled = list[float](), list[float]()
    for part in parts:
        before, after = part[:160], part[200:]
        options = {"max_new_tokens": 16}
        for losses, more in ((plain, {}), (filled, {"suffix": after, "candidates": 8})):
            made = generator.generate(before, **options, **more)
            score = generator.score(after, prompt=before + made.text)
            losses.append(-score.loss * score.tokens)
    compare("a gap, one text", plain, "fill, of 8", filled)


def totals(texts):
    """The log-probability of each text."""
    return [sum(each.logprob for each in text.logprobs) for text in texts]


def timed(texts):
    """The texts, and the seconds that they took."""
    begun = time.perf_counter()
    return [*texts], time.perf_counter() - begun


def compare(name, base, other, values, times=None):
    """Print both means, and the share in which the second is ahead or equal."""
    ahead = sum(b > a + 1e-6 for a, b in zip(base, values, strict=True))
    equal = sum(abs(b - a) <= 1e-6 for a, b in zip(base, values, strict=True))
    print(
        f"{name} {statistics.fmean(base):.3f}, {other} {statistics.fmean(values):.3f}: ahead in "
        f"{ahead}, equal in {equal} of {len(base)}"
        + (f"; {times:.1f} times the time" if times else "")
    )


if __name__ == "__main__":
    main()
