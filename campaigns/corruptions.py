"""A campaign of corruptions: every file of a run directory and a saved state, spoilt in every way, met by commands.

    python -m campaigns.corruptions --cases 2500 --seed 1 --jobs 2

Each case is a command in a process of its own, forked from one that has imported everything. It must end as if nothing
had happened, with the same text and weights, or with an error that names the file. A traceback, another text, a process
that takes minutes or 600 MB more than it does with the files as they were, and anything read or changed outside the
run directory is a failure, which is printed with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from .mutations import FOR_FILES, FOR_FOLDERS, SECRET, applicable, seal
from .runs import load_everything, within

SECONDS = 180  # so long a command may take on a busy machine,
CPU_SECONDS = 20  # and so much of a processor
MEMORY = 600 << 20  # beyond what the command takes with the files as they were
CEILING = 3 << 30  # of address space beyond that of the parent: so much is never taken in earnest
TEXT = "the time traveller smiled, and the clock of the hall struck the hour.\n" * 12

GENERATE = ("generate", "run", "--prompt", "the ", "--max-new-tokens", "20")
COMMANDS: dict[str, tuple[str, ...]] = {
    "generate": GENERATE,
    "novelty": (*GENERATE, "--novelty"),
    "state": ("generate", "run", "--load-state", "state.safetensors", "--max-new-tokens", "20"),
    "evaluate": ("evaluate", "run", "corpus.txt"),
    "run": ("run", "p.toml"),
    "finish": ("run", "p.toml", "--finish"),
    "doctor": ("doctor", "run"),
    "runs": ("runs", "."),
    "compare": ("compare", "run", "run"),
}
DESCRIBING = ("doctor", "runs", "compare")  # which meet all files, and say what is in them
# Which commands meet which file; a name with a slash is a folder and all in it.
MEET: dict[str, dict[str, tuple[str, ...]]] = {
    "finished": {
        "run.json": ("generate", "run", "evaluate", "finish", "novelty", "state"),
        "pipeline.toml": ("generate", "run", "evaluate", "state"),
        "tokenizer.json": ("generate", "run", "evaluate"),
        "model.safetensors": ("generate", "run", "evaluate"),
        "state.safetensors": ("state",),
        "checkpoints/": ("generate", "run"),
        "metrics.jsonl": ("run", "generate"),
        "samples.txt": ("run",),
        "loss.svg": ("run",),
    },
    "unfinished": {
        "run.json": ("run", "generate", "finish"),
        "pipeline.toml": ("run", "generate"),
        "tokenizer.json": ("run", "generate"),
        "checkpoints/": ("run", "generate", "finish", "evaluate"),
        "metrics.jsonl": ("run",),
        "samples.txt": ("run",),
        ".lock": ("run", "finish"),
    },
}


@attrs.frozen
class Case:
    """One file of one subject, spoilt in one way, met by one command."""

    subject: str
    file: str
    mutation: str
    command: str
    sealed: bool
    seed: int

    def __str__(self) -> str:
        sealed = ", its checksum put right" * self.sealed
        return f"{self.command} of a run that is {self.subject}: {self.file}, {self.mutation}{sealed} ({self.seed})"


@attrs.frozen
class Ended:
    """How a command ended: code (or -signal), what it wrote, its memory in bytes, and the weights that it left."""

    code: int
    stdout: str
    stderr: str
    memory: int
    weights: str


# The runs that are spoilt.


def make_subjects(folder: Path) -> None:
    """A finished run with a saved state, and one that was interrupted, each with its pipeline and text."""
    import textgen

    for subject in MEET:
        place = folder / subject
        place.mkdir()
        (place / "corpus.txt").write_text(TEXT)
        (place / "p.toml").write_bytes(tomli_w.dumps(_tables(place)).encode())
        os.chdir(place)
        asked = iter(range(10_000))
        with contextlib.suppress(textgen.Interrupted):
            textgen.run("p.toml", cancelled=lambda: subject == "unfinished" and next(asked) == 5)  # noqa: B023
    with textgen.load(folder / "finished/run") as generator:
        state = generator.generate("the ", max_new_tokens=5, keep_state=True).state
        assert state is not None
        state.save(folder / "finished/state.safetensors")


def _tables(place: Path) -> dict[str, Any]:
    return {
        "device": "cpu",
        "output": "run",
        "corpus": {"type": "file", "path": "corpus.txt"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {
            "type": "sgd",
            "momentum": 0.9,
            "length": "2 epochs",
            "batch_size": 16,
            "order": "streams",
        },
        "checkpoint": {"seconds": 0},
        "sampler": [{"type": "temperature", "temperature": 0.8}],
        "observer": [{"type": "metrics"}, {"type": "samples"}, {"type": "loss-plot"}],
        "generate": {"prompt": "the ", "max_new_tokens": 20},
    }


def files_of(
    place: Path, subject: str, draw: random.Random
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each file and folder of a subject that may be spoilt, and the commands that meet it."""
    for name, commands in MEET[subject].items():
        path = place / subject / ("" if name == "state.safetensors" else "run") / name
        for found in sorted([path, *path.rglob("*")] if name.endswith("/") else [path]):
            yield str(found.relative_to(place / subject)), (*commands, draw.choice(DESCRIBING))


def cases(place: Path, count: int, seed: int) -> list[Case]:
    """`count` cases: every file in every way at least once if there are enough, then again with other numbers."""
    draw, made = random.Random(seed), []
    while len(made) < count:
        for subject in MEET:
            for file, commands in files_of(place, subject, draw):
                for mutation in applicable(place / subject / file):
                    sealed = draw.random() < 0.5
                    made.append(
                        Case(
                            subject,
                            file,
                            mutation,
                            draw.choice(commands),
                            sealed,
                            draw.randrange(10**9),
                        )
                    )
    draw.shuffle(made)
    return made[:count]


# One case.


def _applied(case: Case, place: Path, outside: Path) -> bool:
    """Spoil the file. False where that leaves it as it was."""
    draw, path, run = random.Random(case.seed), place / case.file, place / "run"
    mutations = FOR_FOLDERS if path.is_dir() else FOR_FILES
    before = path.read_bytes() if path.is_file() else None
    if mutations[case.mutation](path, draw, outside) is False:
        return False
    if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 27:
        if path.read_bytes() == before:
            return False
        if case.sealed:
            seal(path, run)
    return True


def start(case: Case | None, command: str, subjects: Path, place: Path) -> int:
    """The process of a case; without one, of the command with the files as they were."""
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        outside = place / "outside"
        shutil.copytree(
            subjects / (case.subject if case else place.name.partition("-")[0]), place / "in"
        )
        outside.mkdir()
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if case is not None and not _applied(case, place / "in", outside):
            os._exit(77)
        os.chdir(place / "in")
        _execute(COMMANDS[command])
    finally:
        os._exit(78)


def _execute(arguments: Sequence[str]) -> None:
    from textgen.cli import main

    space = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if sys.platform == "linux"
        else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (space + CEILING, space + CEILING))
    signal.alarm(SECONDS)  # which end it, as nobody handles them
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    code: Any = 78
    try:
        main([*arguments])
    except SystemExit as ended:
        code = ended.code or 0
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def finish(place: Path, status: int, memory: int) -> Ended:
    """How the process of a case ended, and nothing left of it."""
    weights = place / "in/run/model.safetensors"
    stdout, stderr = (
        (place / name).read_bytes().decode(errors="replace") for name in ("stdout", "stderr")
    )
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest() if _is_small_file(weights) else ""
    return Ended(os.waitstatus_to_exitcode(status), stdout, stderr, memory, sha256)


def _is_small_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < 1 << 24


def verdict(case: Case, ended: Ended, normal: Ended, place: Path) -> str:
    """What is wrong with how a case ended; "" if nothing is."""
    said = ended.stdout + ended.stderr
    if ended.code in (-signal.SIGALRM, -signal.SIGPROF):
        return f"took more than {SECONDS} seconds, or {CPU_SECONDS} of a processor"
    if ended.code < 0 or ended.code > 2 or "Traceback" in said:
        return f"ended with {ended.code} and a traceback or none"
    if "\x1b" in said or "\u202e" in said:
        return "wrote an escape"
    if SECRET in said:
        return "read a file outside the run"
    if (extra := ended.memory - normal.memory) > MEMORY:
        return f"took {extra >> 20} MB more"
    if outside := [
        path.name
        for path in (place / "outside").iterdir()
        if path.name not in ("original", "secret")
    ]:
        return f"wrote {outside} outside"
    names = _names(case)
    if ended.code:
        return "" if any(name in said for name in names) else "names no file"
    same = case.command in DESCRIBING or (
        ended.stdout == normal.stdout and (case.command != "run" or ended.weights == normal.weights)
    )
    told = any(name in ended.stderr for name in names[:1])
    sealed = case.sealed or (
        case.file == "state.safetensors" and case.mutation.startswith("values")
    )
    return "" if same or told or sealed else "gave another text or other weights without a word"


def _names(case: Case) -> list[str]:
    """What an error may name: the file; where another no longer fits to it, that one; where it is no run, the run."""
    others = [
        "model.safetensors",
        "tokenizer.json",
        "manifest.json",
        "trainer.json",
        "pipeline.toml",
        "run.json",
    ]
    others += ["holds a run of another pipeline"] * (
        case.file == "run/run.json"
    )  # as it says it does
    gone = (
        ["has no checkpoint"] if case.file == "run/checkpoints" or case.file.count("/") == 2 else []
    )
    return [
        Path(case.file).name,
        *(others if case.sealed or case.mutation == "swapped" else []),
        *gone,
    ]


# All of them.


def warm(subjects: Path) -> None:
    """Import what the commands do, here once."""
    load_everything()
    import textgen

    with textgen.load(subjects / "finished/run") as generator:
        generator.generate("the ", max_new_tokens=2)


def apart(act: Any) -> None:
    """Do something in a process of its own: torch hangs in the children of one that has trained."""
    child = os.fork()
    if not child:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def campaign(
    count: int, seed: int, jobs: int, folder: Path, only: str = ""
) -> tuple[list[str], Counter[str]]:
    """Run cases; what failed, and how many ended how."""
    subjects = folder / "subjects"
    subjects.mkdir()
    apart(lambda: make_subjects(subjects))
    warm(subjects)
    normal = {}
    for subject, files in MEET.items():
        for command in sorted(
            {*DESCRIBING, *(command for commands in files.values() for command in commands)}
        ):
            (place := folder / f"{subject}-{command}").mkdir()
            _, status, usage = os.wait4(start(None, command, subjects, place), 0)
            normal[subject, command] = finish(place, status, usage.ru_maxrss * 1024)
            assert normal[subject, command].code == 0, (subject, command, normal[subject, command])
            shutil.rmtree(place)
    failed: list[str] = []
    counts, running = Counter[str](), dict[int, tuple[Case, Path]]()
    chosen = [case for case in cases(subjects, count, seed) if only in str(case)]
    waiting = within(math.inf, chosen[::-1], "cases")
    while True:
        for case in itertools.islice(waiting, jobs - len(running)):
            place = Path(tempfile.mkdtemp(dir=folder))
            running[start(case, case.command, subjects, place)] = (case, place)
        if not running:
            return failed, counts
        pid, status, usage = os.wait3(0)
        case, place = running.pop(pid)
        ended = finish(place, status, usage.ru_maxrss * 1024)
        fault = (
            ""
            if ended.code == 77
            else verdict(case, ended, normal[case.subject, case.command], place)
        )
        counts[
            "failed" if fault else {0: "harmless", 77: "not applicable"}.get(ended.code, "detected")
        ] += 1
        if fault:
            failed.append(f"{case}: {fault}\n    code {ended.code}: {ended.stderr[-600:].strip()}")
        shutil.rmtree(place)


def main() -> None:
    """The campaign on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m campaigns.corruptions", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--cases", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="cases whose description has this")
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="textgen-") as folder:
        failed, counts = campaign(given.cases, given.seed, given.jobs, Path(folder), given.only)
    print("\n".join(failed))
    print(f"{dict(counts)} in {time.monotonic() - begun:.0f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
    main()
