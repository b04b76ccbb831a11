"""What a model to start from is worth: the pipelines of `textgen init` with and without the
packages that offer one.

    python benchmarks/start.py TEXT[:CHARACTERS]... [--minutes 1.25] [--seeds 3] [--words FILE]
    [--samples FOLDER]

For every text (or its beginning), way and seed two whole processes run, `textgen init` and
`textgen run`; without the packages only where `init` starts from one. Prints a Markdown table: the
loss of the held-out tenth in nats per character, the seconds of both commands by the clock, and of
three texts of 2,000 characters the share of the words that the text has, or the word list in FILE,
and how much is speech and how often phrases come in 10,000 characters, after those of the held-out
tenth. FOLDER gets the texts.
"""

import json
import math
import re
import statistics
import tempfile
from pathlib import Path

import textgen
from quality import call, without
from shared import parser, seconds

WORD = re.compile(r"[^\W\d_]+")
SPEECH = re.compile('["\u201c][^"\u201c\u201d\n]*["\u201d]')
PHRASES = ("going to", "I'll", "you know", "said")


def main():
    """Print a row for each text and way."""
    options = parser(__doc__)
    options.add_argument("texts", nargs="+")
    options.add_argument("--minutes", type=float, default=1.25)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--words", type=Path)
    options.add_argument("--samples", type=Path)
    given = options.parse_args()
    rates = ("speech", *PHRASES)
    print(f"text | characters | start | loss | seconds | known words | {' | '.join(rates)}")
    print(" | ".join(["---"] * (6 + len(rates))))
    for name in given.texts:
        if row(name, [], given) != "none":
            row(name, without(), given)


def row(name, way, given):
    """Train on a text with the options `way` before the command, and print what came. Returns the
    model that it started from, or "none".
    """
    file, _, size = name.rpartition(":") if re.search(r":\d+$", name) else (name, "", "")
    text = Path(file).read_text(encoding="utf-8-sig")[: int(size) if size else None]
    words = given.words.read_text(encoding="utf-8") if given.words else ""
    known = set(WORD.findall(f"{text}\n{words}".lower()))
    found, started = [], "none"
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            source, pipeline = Path(folder, "text.txt"), Path(folder, "text.toml")
            source.write_text(text, encoding="utf-8")
            minutes = ["--minutes", str(given.minutes), "--pipeline", pipeline]
            spent = seconds(lambda to=minutes, source=source: call(*way, "init", source, *to))
            train = ["run", pipeline, "--output", Path(folder, "run"), f"--set=seed={seed}"]
            spent += seconds(lambda command=train: call(*command))
            started = (*re.findall(r'^start = "(.*?)"', pipeline.read_text(), re.M), "none")[0]
            with textgen.load(Path(folder, "run")) as generator:
                many = generator.generate_many([""], n=3, max_new_tokens=2000, seed=seed)
                texts = [made.text[:2000] for made in many]
            lines = Path(folder, "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
            loss = math.log(2) * min(json.loads(each)["bits_per_character"] for each in lines)
        written = [word for each in texts for word in WORD.findall(each.lower())[:-1]]
        share = sum(word in known for word in written) / max(1, len(written))
        found.append((loss, spent, share, *rates("\n".join(texts))))
        if given.samples:
            given.samples.mkdir(exist_ok=True, parents=True)
            path = given.samples / f"{Path(file).stem}-{size or 'all'}-{started}-{seed}.txt"
            path.write_text("\n=====\n".join(texts), encoding="utf-8")
    columns = zip(*found, strict=True)
    cells = [f"{statistics.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in columns]
    print(" | ".join([Path(file).stem, f"{len(text):,}", started, *cells]), flush=True)
    own = [f"{rate:.3f}" for rate in rates(text[len(text) * 9 // 10 :])]
    print(" | ".join([Path(file).stem, "", "the author", "", "", "", *own]), flush=True)
    return started


def rates(text):
    """The share of a text that is speech in double quotation marks, and how often each phrase comes
    in 10,000 characters.
    """
    speech = sum(map(len, SPEECH.findall(text))) / max(1, len(text))
    plain = text.replace("\u2019", "'").lower()
    return [speech, *(10_000 * plain.count(each.lower()) / max(1, len(text)) for each in PHRASES)]


if __name__ == "__main__":
    main()
