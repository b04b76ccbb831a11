"""What a model to start from is worth: the pipelines of `textgen init` from each of them.

    python benchmarks/start.py TEXT[:CHARACTERS]... [--start auto none smollm2]
    [--minutes 1.25] [--seeds 3] [--set KEY=VALUE]

For every text (or its beginning, or a folder), start and seed two whole processes run, `textgen
init` and `textgen run`; `auto` is what `init` chooses, and `none` is left out where it chooses
that. Prints a Markdown table: the loss of the held-out tenth in nats per character, the seconds of
both commands by the clock, the most memory of either and the size of the run in MB, and of three
texts of 2,000 characters the share of the words that the text has, how much is speech and how often
phrases come in 10,000 characters, after those of the held-out tenth. --set goes to `textgen run`: a
length in steps or epochs gives the same losses however busy the machine is.
"""

import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import textgen
from shared import parser, seconds

WORD = re.compile(r"[^\W\d_]+")
SPEECH = re.compile('["\u201c][^"\u201c\u201d\n]*["\u201d]')
PHRASES = ("going to", "I'll", "you know", "said")


def main():
    """Print a row for each text and way."""
    options = parser(__doc__)
    options.add_argument("texts", nargs="+")
    options.add_argument("--start", nargs="+", default=["auto", "none"])
    options.add_argument("--set", action="append", default=[])
    options.add_argument("--minutes", type=float, default=1.25)
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    rates = ("speech", *PHRASES)
    columns = ("loss", "seconds", "memory", "size", "known words", *rates)
    print(f"text | characters | start | {' | '.join(columns)}")
    print(" | ".join(["---"] * (3 + len(columns))))
    for name in given.texts:
        chosen = ""
        for start in given.start:
            if start != chosen:
                chosen = row(name, start, given)


def row(name, start, given):
    """Train on a text from a start, and print what came. Returns the start that was taken."""
    file, _, size = name.rpartition(":") if re.search(r":\d+$", name) else (name, "", "")
    files = sorted(Path(file).iterdir()) if Path(file).is_dir() else [Path(file)]
    text = "\n".join(f.read_text(encoding="utf-8-sig") for f in files)[: int(size or 10**9)]
    known = set(WORD.findall(text.lower()))
    found, started = [], "none"
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            source, pipeline = Path(folder, "text.txt"), Path(folder, "text.toml")
            if Path(file).is_dir():
                source = Path(shutil.copytree(file, Path(folder, "texts")))
            else:
                source.write_text(text, encoding="utf-8")
            init = ["init", source, "--minutes", str(given.minutes), "--pipeline", pipeline]
            init += [] if start == "auto" else ["--start", start]
            train = ["run", pipeline, "--output", Path(folder, "run"), f"--set=seed={seed}"]
            train += [f"--set={each}" for each in given.set]
            peaks = []
            commands = (init, train)
            spent = seconds(lambda both=commands, to=peaks: to.extend(map(call, both)))
            started = (*re.findall(r'^start = "(.*?)"', pipeline.read_text(), re.M), "none")[0]
            whole = sum(f.stat().st_size for f in Path(folder, "run").rglob("*") if f.is_file())
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                texts = pool.submit(written_by, Path(folder, "run"), text[:2000], seed).result()
            lines = Path(folder, "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
            loss = math.log(2) * min(json.loads(each)["bits_per_character"] for each in lines)
        written = [word for each in texts for word in WORD.findall(each.lower())[:-1]]
        share = sum(word in known for word in written) / max(1, len(written))
        found.append((loss, spent, max(peaks), whole / 1e6, share, *rates("\n".join(texts))))
    columns = zip(*found, strict=True)
    cells = [f"{statistics.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in columns]
    print(" | ".join([Path(file).stem, f"{len(text):,}", started, *cells]), flush=True)
    own = [f"{rate:.3f}" for rate in rates(text[len(text) * 9 // 10 :])]
    print(" | ".join([Path(file).stem, "", "the author", *[""] * 5, *own]), flush=True)
    return started


def written_by(run, like, seed):
    """Three texts of 2,000 characters by a run, in a process of their own: on Linux, the memory of
    this one counts as that of the commands that it starts.
    """
    with textgen.load(run) as generator:
        most = 200 + len(generator.tokenizer.encode(like))
        many = generator.generate_many([""], n=3, max_new_tokens=most, seed=seed)
        return [made.text[:2000] for made in many]


def call(arguments):
    """A command of textgen, and the most memory that it had, in MB."""
    command = [sys.executable, "-m", "textgen", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_maxrss * 1024 / 1e6


def rates(text):
    """The share of a text that is speech in double quotation marks, and how often each phrase comes
    in 10,000 characters.
    """
    speech = sum(map(len, SPEECH.findall(text))) / max(1, len(text))
    plain = text.replace("\u2019", "'").lower()
    return [speech, *(10_000 * plain.count(each.lower()) / max(1, len(text)) for each in PHRASES)]


if __name__ == "__main__":
    main()
