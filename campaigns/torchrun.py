"""torchrun on this machine: the losses of several processes against one's, and processes killed at many places.

Usage: python campaigns/torchrun.py alike [--models lstm,gpt2] [--steps 200]
       python campaigns/torchrun.py killed [--timeout 15] [--only 0,3] [--sizes 1,2,3]
       python campaigns/torchrun.py restarted [--timeout 15]
       python campaigns/torchrun.py agents [--timeout 15]

`alike` trains each model in one process and in each of the sizes, and prints how far the losses of any evaluation, and
of the training at it, are apart. `killed` stops, kills or starves a process or torchrun itself at each of the places
below, in two processes; the run must end within the timeout and torchrun's own patience, and copies of it must resume
in each of the sizes, to the losses of a run that nobody disturbed. `restarted` kills each of two processes once under
`torchrun --max-restarts 1`, which must finish the run by itself, to the same losses and with every file whole.
`agents` does so with two agents of torchrun, as on two machines, each of which counts restarts for itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import tomli_w

ROOT: Final = Path(__file__).parents[1]
AT_PLACE: Final = ROOT / "campaigns/at_place.py"
STARTING: Final = 600  # seconds in which processes import torch, on a machine that others use
ENDING: Final = 60  # seconds in which they end, on such a machine, beyond what they wait for
SHUTDOWN: Final = 5  # seconds that torchrun gives its processes to end

_RNN: Final = {"type": "rnn", "hidden_size": 16, "dropout": 0.2}
_GPT2: Final = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64}
MODELS: Final[dict[str, dict[str, Any]]] = {
    **{cell: {"model": {**_RNN, "cell": cell}} for cell in ("rnn", "gru", "lstm")},
    "weight-drop": {"model": {**_RNN, "cell": "lstm", "weight_drop": 0.2}},
    "llvm": {"model": {**_RNN, "cell": "lstm", "hidden_size": 32}},
    "shuffled": {"model": {**_RNN, "cell": "gru"}, "trainer": {"order": "shuffled"}},
    "mixture": {
        "model": {"type": "mixture", "first": _RNN, "second": {"type": "ngram", "order": 3}}
    },
    "gpt2": {
        "model": {"type": "huggingface", "architecture": "gpt2", "config": _GPT2, "dropout": 0.1},
        "trainer": {"order": "shuffled", "learning_rate": 1e-3},
    },
}
# Who, by what, at which call of what. Steps are calls of Optimization.step.
PLACES: Final = (
    ("1", "KILL", "textgen.runs.following:follow", 1),
    ("0", "KILL", "textgen.processes:Processes.tell", 1),
    ("1", "KILL", "textgen.gradient.computing:Computation._meet", 1),
    ("1", "KILL", "textgen.gradient.computing:training_loss", 9),
    ("0", "KILL", "textgen.gradient.optimization:Optimization.step", 14),
    ("1", "STOP", "textgen.gradient.optimization:Optimization.step", 14),
    ("0", "STOP", "textgen.gradient.computing:Computation.gradients", 11),
    ("1", "MEMORY", "textgen.gradient.computing:Computation.gradients", 20),
    ("0", "MEMORY", "textgen.gradient.computing:Computation.gradients", 20),
    ("launcher", "KILL", "textgen.gradient.optimization:Optimization.step", 12),
    ("launcher", "TERM", "textgen.gradient.optimization:Optimization.step", 12),
    ("1", "TERM", "textgen.gradient.optimization:Optimization.step", 12),
    ("0", "KILL", "textgen.runs.checkpoints:Checkpoints.write", 4),
    ("0", "STOP", "textgen.runs.training:TrainingLoop._evaluated", 2),
    ("1", "KILL", "textgen.gradient.computing:Computation.summed", 3),
    ("0", "KILL", "textgen.runs.record:finish", 1),
)


def write(folder: Path, name: str, steps: int) -> None:
    """Write p.toml for a model: batches that divide neither by two nor by three."""
    tables: dict[str, Any] = MODELS[name]
    trainer = {
        "type": "adamw",
        "batch_size": 7,
        "order": "streams",
        "length": f"{steps} steps",
        "evaluate_every": 8,
    }
    trainer |= tables.get("trainer", {})
    pipeline = {
        "device": "cpu",
        "corpus": {"type": "story"},
        "tokenizer": {"type": "char"},
        "data": {"window_length": 16, "validation": 0.02},
        "trainer": {"type": "mixture", "first": trainer} if name == "mixture" else trainer,
        "checkpoint": {"seconds": 0},  # after every step, however fast the machine is
        "observer": [{"type": "metrics"}],
        "generate": {"max_new_tokens": 3},
        "model": tables["model"],
    }
    (folder / "p.toml").write_text(tomli_w.dumps(pipeline))


def start(
    size: int, folder: Path, output: str, timeout: float, *at_place: str, restarts: int = 0
) -> subprocess.Popen[str]:
    """textgen in so many processes; without torchrun if it is one and nothing is to happen to it."""
    command = [sys.executable, "-m", "textgen"]
    if size > 1:
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--shutdown-timeout={SHUTDOWN}",
            "--standalone",
        ]
        what = [str(AT_PLACE), *at_place] if at_place else ["-m", "textgen"]
        command = [*launcher, f"--max-restarts={restarts}", f"--nproc-per-node={size}", *what]
    extra = {"OMP_NUM_THREADS": "1", "TIMEOUT": str(timeout), "PIDS": str(folder)}
    return piped([*command, "run", "p.toml", "-q", "-o", output], folder, extra)


def piped(command: list[str], folder: Path, extra: dict[str, str]) -> subprocess.Popen[str]:
    """A process of this textgen, with its output in pipes."""
    here = os.pathsep.join(map(str, (ROOT, ROOT / "plugins", os.environ.get("PYTHONPATH", ""))))
    pipe, environment = subprocess.PIPE, os.environ | extra | {"PYTHONPATH": here}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def losses(run: Path) -> list[float]:
    """Those of the evaluations."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows for key in ("training_loss", "validation_loss")]


def apart(run: Path, other: Path) -> float:
    """The greatest difference between the losses of two runs."""
    return max(abs(a - b) for a, b in zip(losses(run), losses(other), strict=True))


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for its end. Raises RuntimeError if it fails."""
    _, errors = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(errors)


def alike(models: list[str], steps: int, sizes: list[int]) -> bool:
    """Print the differences; whether all are within 1e-4."""
    good = True
    for name in models:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            write(folder, name, steps)
            finish(start(1, folder, "1", 600))
            for size in sizes:
                finish(start(size, folder, str(size), 600))
                far = apart(folder / "1", folder / str(size))
                good &= far < 1e-4
                print(
                    f"{name:10} {size} processes, {steps} steps: losses within {far:.1e}",
                    flush=True,
                )
    return good


def killed(timeout: float, only: list[int], sizes: list[int], steps: int = 40) -> bool:
    """Print what became of each; whether all ended in time and went on."""
    good = True
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder, "lstm", steps)
        finish(start(1, folder, "whole", 600))
        for number in only:
            who, name, place, count = PLACES[number]
            print(f"{number:2} {name} of {who} at {place.rpartition(':')[2]}", end=": ", flush=True)
            cause = _strike(folder, f"run-{number}", timeout, who, name, place, str(count))
            print(cause or "ended", end="", flush=True)
            good &= not cause
            for size in sizes:
                output = f"run-{number}-in-{size}"
                if (folder / f"run-{number}").exists():
                    shutil.copytree(folder / f"run-{number}", folder / output)
                finish(start(size, folder, output, 600))
                far = apart(folder / "whole", folder / output)
                good &= far < 1e-4
                print(f"; then in {size}, losses within {far:.1e}", end="", flush=True)
            print(flush=True)
    return good


def restarted(timeout: float, steps: int = 40) -> bool:
    """Print how far the losses of restarted runs are from those of another; whether all finished and are whole."""
    good = True
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder, "lstm", steps)
        finish(start(1, folder, "whole", 600))
        for rank in "01":
            step = "textgen.gradient.optimization:Optimization.step"
            finish(start(2, folder, f"run-{rank}", timeout, rank, "KILL", step, "20", restarts=1))
            finish(piped([sys.executable, "-m", "textgen", "doctor", f"run-{rank}"], folder, {}))
            far = apart(folder / "whole", folder / f"run-{rank}")
            good &= far < 1e-4
            print(
                f"KILL of {rank} at step 20, restarted by torchrun: whole, losses within {far:.1e}",
                flush=True,
            )
    return good


def agents(timeout: float, steps: int = 40) -> bool:
    """Print how far the losses are from those of another run; whether both agents finished it and it is whole."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder, "lstm", steps)
        finish(start(1, folder, "whole", 600))
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
        ]
        launcher += [
            "--max-restarts=3",
            "--rdzv-backend=c10d",
            "--rdzv-id=run",
            f"--rdzv-endpoint=127.0.0.1:{port}",
        ]
        at_step = [
            str(AT_PLACE),
            "1",
            "KILL",
            "textgen.gradient.optimization:Optimization.step",
            "20",
        ]
        extra = {
            "OMP_NUM_THREADS": "1",
            "TIMEOUT": str(timeout),
            "PIDS": str(folder),
        }
        command = [*launcher, *at_step, "run", "p.toml", "-q", "-o", "run"]
        for process in [piped(command, folder, extra) for _ in range(2)]:
            finish(process)
        finish(piped([sys.executable, "-m", "textgen", "doctor", "run"], folder, {}))
        far = apart(folder / "whole", folder / "run")
        print(
            f"two agents, KILL of one's process, restarted together: whole, losses within {far:.1e}",
            flush=True,
        )
        return far < 1e-4 and (folder / "struck").exists()


def _strike(folder: Path, output: str, timeout: float, *at_place: str) -> str:
    """Start two processes, one of which something happens to; what is wrong with how they end, or ""."""
    struck = folder / "struck"
    struck.unlink(missing_ok=True)
    process, deadline = start(2, folder, output, timeout, *at_place), time.monotonic() + STARTING
    while not struck.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    begun = time.monotonic()
    try:
        _, errors = process.communicate(timeout=2 * timeout + SHUTDOWN + ENDING)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return "it HANGS"
    ours = [line for line in errors.splitlines() if line.startswith("textgen: ")]
    print(
        f"exit {process.returncode} {time.monotonic() - begun:.0f} s later",
        *ours,
        sep="; ",
        end="; ",
        flush=True,
    )
    if not struck.exists():
        return "NOTHING happened"
    deadline = (
        time.monotonic() + timeout + ENDING
    )  # for those that torchrun, killed itself, has left
    while alive := [rank for rank in "01" if _is_alive(folder / rank)]:
        if time.monotonic() > deadline:
            return f"{alive} are LEFT"
        time.sleep(0.2)
    return f"{len(ours)} LINES" if len(ours) > 2 else ""


def _is_alive(file: Path) -> bool:
    if not file.exists():
        return False
    try:
        return (
            Path(f"/proc/{file.read_text()}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["alike", "killed", "restarted", "agents"])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sizes", default="1,2,3")
    parser.add_argument("--timeout", type=float, default=15)
    parser.add_argument("--only", default=",".join(map(str, range(len(PLACES)))))
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    if given.what == "alike":
        good = alike(given.models.split(","), given.steps, [size for size in sizes if size > 1])
    elif given.what == "killed":
        good = killed(given.timeout, [int(number) for number in given.only.split(",")], sizes)
    else:
        good = (agents if given.what == "agents" else restarted)(given.timeout)
    sys.exit(not good)


if __name__ == "__main__":
    main()
