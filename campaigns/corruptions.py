"""A campaign of corruptions: every file of a run directory and a saved state, spoilt in every way,
met by commands.

    python -m campaigns.corruptions [--cases 2500] [--minutes M] [--seed 1] [--only WORDS]

Each case is a command in a process of its own, forked from one that has imported everything. It
must end as if nothing had happened, with the same text and weights, or with an error that names the
file. A traceback, another text, a process that takes minutes or a gigabyte, and anything read or
changed outside the run directory is a failure, which is printed with the seed that repeats it.
"""

import contextlib
import functools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

import attrs
import tomli_w

from .cases import apart, arguments, do, load_everything
from .mutations import MUTATIONS, REPLACED, SECRET, seal

SECONDS = 180  # so long a command may take on a busy machine,
CPU_SECONDS = 20  # and so much of a processor
MEMORY = 1 << 30  # bytes beyond those of the parent; a mapped file counts for nothing
TEXT = "the time traveller smiled, and the clock of the hall struck the hour.\n" * 12

GENERATE = ("generate", "run", "--prompt", "the ", "--max-new-tokens", "20")
COMMANDS = {
    "generate": GENERATE,
    "novelty": (*GENERATE, "--novelty"),
    "state": (),  # continues a saved state
    "evaluate": ("evaluate", "run", "corpus.txt"),
    "run": ("run", "p.toml"),
    "finish": ("run", "p.toml", "--finish"),
    "doctor": ("doctor", "run"),
    "runs": ("runs", "."),
    "compare": ("compare", "run", "run"),
}
DESCRIBING = ("doctor", "runs", "compare")  # which say what is in the files
SUBJECTS = ("finished", "unfinished")


@attrs.frozen
class Case:
    """One file of one subject, spoilt in one way, met by one command."""

    subject: str
    file: str
    mutation: str
    command: str
    sealed: bool
    seed: int

    def __str__(self):
        sealed = ", its checksum put right" * self.sealed
        return (
            f"{self.command} of a run that is {self.subject}: {self.file}, "
            f"{self.mutation}{sealed} ({self.seed})"
        )


def make_subjects(folder):
    """A finished run with a saved state, and one that was interrupted, each with its pipeline and
    text.
    """
    import textgen

    trainer = {"type": "sgd", "momentum": 0.9, "length": "2 epochs", "order": "streams"}
    tables = {
        "device": "cpu",
        "output": "run",
        "corpus": {"type": "file", "path": "corpus.txt"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {**trainer, "batch_size": 16},
        "checkpoint": {"seconds": 0},
        "sampler": [{"type": "temperature", "temperature": 0.8}],
        "observer": [{"type": "metrics"}, {"type": "samples"}, {"type": "loss-plot"}],
        "generate": {"prompt": "the ", "max_new_tokens": 20},
    }
    for subject in SUBJECTS:
        place, asked = folder / subject, iter(range(10_000))
        place.mkdir()
        (place / "corpus.txt").write_text(TEXT)
        (place / "p.toml").write_text(tomli_w.dumps(tables))
        os.chdir(place)
        with contextlib.suppress(textgen.Interrupted):
            textgen.run("p.toml", cancelled=lambda: subject == "unfinished" and next(asked) == 5)  # noqa: B023
    with textgen.load(folder / "finished/run") as generator:
        state = generator.generate("the ", max_new_tokens=5, keep_state=True).state
        state.save(folder / "finished/state.safetensors")


def cases(folder, seed):
    """Every file and folder in every way, met by a command by chance; again and again, with other
    numbers.
    """
    draw = random.Random(seed)
    while True:
        made = []
        for subject in SUBJECTS:
            place = folder / subject
            for path in sorted([*place.glob("run/**/*"), *place.glob("state.*")]):
                has_state = (place / "state.safetensors").exists()
                commands = [name for name in COMMANDS if name != "state" or has_state]
                for mutation in REPLACED if path.is_dir() else MUTATIONS:
                    command = "state" if path.parent == place else draw.choice(commands)
                    file, sealed = str(path.relative_to(place)), draw.random() < 0.5
                    number = draw.randrange(10**9)
                    made.append(Case(subject, file, mutation, command, sealed, number))
        draw.shuffle(made)
        yield from made


def execute(case, command, place):
    """The command of a case, in a process of its own; without one, with the files as they were."""
    from textgen.cli import main

    if case is not None and not _spoil(case, place):
        os._exit(77)
    data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY, data + MEMORY))
    signal.alarm(SECONDS)  # which end it, as nobody handles them
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    if command == "state":
        continue_text()
    main(list(COMMANDS[command]))


def continue_text():
    """Continue the saved state, as a program does."""
    import textgen

    try:
        state = textgen.GenerationState.load("state.safetensors")
        with textgen.load("run") as generator:
            print(generator.generate(state=state, max_new_tokens=20))
    except textgen.TextgenError as error:
        print(f"textgen: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def _spoil(case, place):
    """Spoil the file. False where that leaves it as it was."""
    path, outside = place / case.file, place / "outside"
    before = path.read_bytes() if path.is_file() else None
    if MUTATIONS[case.mutation](path, random.Random(case.seed), outside) is False:
        return False
    if _content(path) is not None:
        if path.read_bytes() == before:
            return False
        if case.sealed:
            seal(path, place / "run")
    return True


def _content(path):
    is_small = path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 27
    return path.read_bytes() if is_small else None


def verdict(case, done, normal, place):
    """What is wrong with how a case ended; "" if nothing is."""
    said = done.stdout + done.stderr
    if done.code not in (0, 1, 2) or "Traceback" in said:
        return "a traceback, or more than the time that is allowed"
    if "\x1b" in said or "\u202e" in said or SECRET in said:
        return "wrote an escape, or what is outside the run"
    if left := {path.name for path in (place / "outside").iterdir()} - {"original", "secret"}:
        return f"wrote {left} outside"
    names = [Path(case.file).name]
    if done.code:
        return "" if any(name in said for name in (*names, *_others(case))) else "names no file"
    same_text = done.stdout == normal[0].stdout
    same = same_text and (case.command != "run" or _weights(place) == normal[1])
    is_sealed = case.sealed or (names[0] == "state.safetensors" and "values" in case.mutation)
    told = names[0] in done.stderr
    if same or told or is_sealed or case.command in DESCRIBING:
        return ""
    return "gave another text or other weights without a word"


def _others(case):
    """What an error may name in place of the file: one that no longer fits to it; the run, where it
    is none any more.
    """
    others = ["holds a run of another pipeline"] * (case.file == "run/run.json")  # as it says
    if case.sealed or case.mutation == "swapped":
        others += ["model.safetensors", "tokenizer.json", "manifest.json", "trainer.json"]
        others += ["pipeline.toml", "run.json", "refuses the weights of"]
    gone = case.file == "run/checkpoints" or case.file.count("/") == 2
    return others + ["has no checkpoint"] * gone


def _weights(place):
    return _content(place / "run/model.safetensors")


@contextlib.contextmanager
def met(folder, subject, command, case=None):
    """How a command ended in a copy of a subject, and the copy."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name, "in")
        shutil.copytree(folder / subject, place)
        (place / "outside").mkdir()
        yield apart(lambda: execute(case, command, place), place), place


@functools.cache
def normal(folder, subject, command):
    """How a command ends with the files as they were, and the weights then."""
    with met(folder, subject, command) as (done, place):
        assert done.code == 0, (subject, command, done)
        return done, _weights(place)


def tried(folder, case):
    """Do a case; what is wrong, or ""."""
    undisturbed = normal(folder, case.subject, case.command)
    with met(folder, case.subject, case.command, case) as (done, place):
        said = "" if done.code == 77 else verdict(case, done, undisturbed, place)
        return said and f"{said}\n    code {done.code}: {done.stderr[-600:].strip()}"


def main():
    """The campaign on the command line."""
    parser = arguments(__doc__)
    parser.set_defaults(cases=2500)
    parser.add_argument("--only", default="", help="cases whose description has this")
    given = parser.parse_args()
    load_everything()
    with tempfile.TemporaryDirectory(prefix="textgen-") as name:
        folder = Path(name)
        made = apart(lambda: make_subjects(folder), folder)
        assert made.code == 0, made.stderr
        chosen = (case for case in cases(folder, given.seed) if given.only in str(case))
        do(((str(case), partial(tried, folder, case)) for case in chosen), given)


if __name__ == "__main__":
    main()
