"""Cases of a campaign: its command line, and processes of their own to do them in."""

import argparse
import contextlib
import importlib
import itertools
import os
import pkgutil
import re
import sys
import tempfile
import time
import traceback

import attrs

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where syncing takes no time


@attrs.frozen
class Done:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str


def load_everything(*, adapters=False):
    """Import what a run imports, once and before any fork: a process that has trained can have no
    children.
    """
    if adapters:
        import textgen_huggingface.lora  # noqa: F401
        import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    import torch._dynamo  # noqa: F401
    import tqdm.auto  # noqa: F401

    import textgen
    import textgen_builtins

    for package in (textgen, textgen_builtins):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not re.search(r"__main__|testing|tests", module.name):
                importlib.import_module(module.name)


def apart(act, folder):
    """Do something in a forked process whose streams go to files, in `folder`."""
    with tempfile.TemporaryFile(dir=FAST) as out, tempfile.TemporaryFile(dir=FAST) as err:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 70
            try:
                os.chdir(folder)
                for number, file in ((1, out), (2, err)):
                    os.dup2(file.fileno(), number)
                sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
                act()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return Done(os.waitstatus_to_exitcode(status), *texts)


def arguments(description):
    """The command line of a campaign."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("--cases", type=int, help="how many of them; all if it is not given")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=1)
    return parser


def do(cases, given):
    """Do as many as are asked for, and exit with 1 if any is wrong."""
    begun, done, wrong = time.monotonic(), 0, 0
    for name, act in itertools.islice(cases, given.cases):
        if time.monotonic() - begun > given.minutes * 60:
            break
        done += 1
        if said := act():
            wrong += 1
            print(f"{name}: {said}", flush=True)
    spent = time.monotonic() - begun
    print(f"{done} cases, {wrong} wrong, in {spent:.0f} s (seed {given.seed})")
    sys.exit(bool(wrong))
