"""torchrun on this machine: processes killed at many places, and the losses of several processes
against one's.

Usage: python campaigns/torchrun.py [--model gpt2] [--only 0,3] [--sizes 1,2,3]

Stops, kills or starves a process or torchrun itself at each of the places below, in two processes;
the run must end within the timeout and torchrun's own patience, and copies of it must resume in
each of the sizes, to the losses of a run in one process that nobody disturbed. At place 0 nothing
has been trained yet. At the last two places, `torchrun --max-restarts 1` starts all again, and must
finish the run by itself.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tomli_w

AT_PLACE = Path(__file__).with_name("at_place.py")
STARTING = 600  # seconds in which processes import torch, on a machine that others use
ENDING = 60  # seconds in which they end, on such a machine, beyond what they wait for
TIMEOUT = 15  # seconds that they wait for each other
SHUTDOWN = 5  # seconds that torchrun gives its processes to end
APART = 1e-4  # losses of other numbers of processes

_RNN = {"type": "rnn", "cell": "lstm", "hidden_size": 16, "dropout": 0.2}
_GPT2 = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64}
MODELS = {
    "lstm": {"model": {**_RNN, "weight_drop": 0.2}},
    "mixture": {
        "model": {"type": "mixture", "first": _RNN, "second": {"type": "ngram", "order": 3}}
    },
    "gpt2": {
        "model": {"type": "huggingface", "architecture": "gpt2", "config": _GPT2, "dropout": 0.1},
        "trainer": {"order": "shuffled", "learning_rate": 1e-3},
    },
}
_GRADIENT = "textgen.gradient"
# Who, by what, at which call of what. Steps are calls of Optimization.step.
PLACES = (
    ("1", "KILL", "textgen.runs.execute:Execution._read", 1),
    ("0", "KILL", "textgen.runs.execute:write_initial_record", 1),
    ("1", "KILL", f"{_GRADIENT}.data_parallel:DataParallelStep._meet", 1),
    ("0", "KILL", f"{_GRADIENT}.optimization:Optimization.step", 14),
    ("1", "STOP", f"{_GRADIENT}.optimization:Optimization.step", 14),
    ("0", "STOP", f"{_GRADIENT}.data_parallel:DataParallelStep.gradients", 11),
    ("1", "MEMORY", f"{_GRADIENT}.data_parallel:DataParallelStep.gradients", 20),
    ("launcher", "KILL", f"{_GRADIENT}.optimization:Optimization.step", 12),
    ("1", "TERM", f"{_GRADIENT}.optimization:Optimization.step", 12),
    ("0", "KILL", "textgen.runs.checkpoints:Checkpoints.write", 4),
    ("0", "STOP", "textgen.runs.training:TrainingLoop._evaluated", 2),
    ("0", "KILL", "textgen.runs.record:finish", 1),
    ("0", "KILL", f"{_GRADIENT}.optimization:Optimization.step", 20),
    ("1", "KILL", f"{_GRADIENT}.optimization:Optimization.step", 20),
)
RESTARTED = range(len(PLACES) - 2, len(PLACES))


def write(folder, name):
    """Write p.toml for a model: batches that divide neither by two nor by three."""
    tables = MODELS[name]
    trainer = {"type": "adamw", "batch_size": 7, "order": "streams", "evaluate_every": 8}
    trainer |= {"length": "40 steps", **tables.get("trainer", {})}
    pipeline = {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16, "validation": 0.02},
        "model": tables["model"],
        "trainer": {"type": "mixture", "first": trainer} if name == "mixture" else trainer,
        "checkpoint": {"seconds": 0},  # after every step, however fast the machine is
        "observer": [{"type": "metrics"}],
        "generate": {"max_new_tokens": 3},
    }
    (folder / "p.toml").write_text(tomli_w.dumps(pipeline))


def start(size, folder, output, *at_place, timeout=600, restarts=0):
    """textgen in so many processes, with its messages in a pipe; without torchrun if it is one."""
    command = [sys.executable, "-m", "textgen"]
    if size > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--shutdown-timeout={SHUTDOWN}", f"--max-restarts={restarts}"]
        what = [str(AT_PLACE), *map(str, at_place)] if at_place else ["-m", "textgen"]
        command = [*launcher, f"--nproc-per-node={size}", *what]
    extra = {"OMP_NUM_THREADS": "1", "TIMEOUT": str(timeout), "PIDS": str(folder)}
    return subprocess.Popen(
        [*command, "run", "p.toml", "-q", "-o", output],
        cwd=folder,
        env={**os.environ, **extra},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(size, folder, output, *at_place, restarts=0):
    """The losses of the evaluations of a run. Raises RuntimeError if it fails."""
    process = start(size, folder, output, *at_place, restarts=restarts)
    _, errors = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(errors)
    rows = map(json.loads, (folder / output / "metrics.jsonl").read_text().splitlines())
    return [row[key] for row in rows for key in ("training_loss", "validation_loss")]


def apart(losses, others):
    """The greatest difference between the losses of two runs."""
    return max(abs(a - b) for a, b in zip(losses, others, strict=True))


def killed(model, only, sizes):
    """Print what became of each; whether all ended in time and went on."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder, model)
        whole = train(1, folder, "whole")
        for number in only:
            who, name, place, _ = at_place = PLACES[number]
            print(f"{number:2} {name} of {who} at {place.rpartition(':')[2]}", end="", flush=True)
            if number in RESTARTED:
                far = apart(whole, train(2, folder, f"run-{number}", *at_place, restarts=1))
                print(f"; restarted, losses within {far:.1e}", flush=True)
                yield far < APART
                continue
            cause = strike(folder, f"run-{number}", *at_place)
            print(f"; {cause or 'ended'}", end="", flush=True)
            yield not cause
            for size in sizes:
                output = f"run-{number}-in-{size}"
                if (folder / f"run-{number}").exists():
                    shutil.copytree(folder / f"run-{number}", folder / output)
                far = apart(whole, train(size, folder, output))
                print(f"; then in {size}, losses within {far:.1e}", end="", flush=True)
                yield far < APART
            print(flush=True)


def strike(folder, output, *at_place):
    """Start two processes, one of which something happens to; what is wrong with how they end, or
    "".
    """
    struck = folder / "struck"
    struck.unlink(missing_ok=True)
    process = start(2, folder, output, *at_place, timeout=TIMEOUT)
    deadline = time.monotonic() + STARTING
    while not struck.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    begun = time.monotonic()
    try:
        _, errors = process.communicate(timeout=2 * TIMEOUT + SHUTDOWN + ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        return "it HANGS"
    ours = [line for line in errors.splitlines() if line.startswith("textgen: ")]
    spent = time.monotonic() - begun
    print("", f"exit {process.returncode} {spent:.0f} s later", *ours, sep="; ", end="", flush=True)
    deadline = time.monotonic() + TIMEOUT + ENDING  # for those that torchrun, killed, has left
    while any(is_alive(folder / rank) for rank in "01") and time.monotonic() < deadline:
        time.sleep(0.2)
    if any(is_alive(folder / rank) for rank in "01"):
        return "processes are LEFT"
    return "NOTHING happened" if not struck.exists() else f"{len(ours)} LINES" * (len(ours) > 2)


def is_alive(file):
    """Whether the process whose id a file has is there, and no zombie."""
    try:
        status = Path(f"/proc/{file.read_text()}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def main():
    """Run what the arguments say."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--model", choices=MODELS, default="lstm")
    parser.add_argument("--only", help="numbers of places; all if it is not given")
    parser.add_argument("--sizes", default="1,2,3")
    given = parser.parse_args()
    only = given.only.split(",") if given.only else range(len(PLACES))
    sizes = map(int, given.sizes.split(","))
    found = killed(given.model, [*map(int, only)], [*sizes])
    sys.exit(not all(list(found)))


if __name__ == "__main__":
    main()
