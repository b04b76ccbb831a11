"""Which device to compute on, found without importing torch where there is nothing to find."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import attrs

from textgen.errors import DeviceError, UsageError

logger = logging.getLogger("textgen")


@attrs.define
class _Users:
    """How many have changed a setting of the process."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    users: int = 0


@attrs.define
class _Threads(_Users):
    """Who has changed torch's number of threads, and what it was before."""

    before: int = 0


@attrs.define
class _Fork:
    """Whether torch has started threads of its own, and whether this process was forked after that."""

    started: bool = False
    lost: bool = False

    def in_child(self) -> None:
        """Called in each process that is forked from this one."""
        self.lost = self.started


_FORK: Final = _Fork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FORK.in_child)
_THREADS: Final = _Threads()  # for torch has one number for the process
NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def resolve(requested: str) -> str:
    """The device to use for `requested`: "auto", "cpu", "mps", "cuda" or "cuda:N".

    "auto" is CUDA where there is one, then MPS, then the CPU. A device that was asked for and is missing raises
    DeviceError: never a silent switch.
    """
    check_name(requested)
    chosen, missing = requested, ""
    if requested == "auto":
        has_cuda = has_cuda_driver() and _cuda_count()
        chosen = "cuda" if has_cuda else "mps" if _has_mps() else "cpu"
    elif requested == "mps":
        missing = "" if _has_mps() else "no MPS device is available"
    elif requested != "cpu":
        count = _cuda_count() if has_cuda_driver() else 0
        if count <= int(requested.partition(":")[2] or 0):
            missing = (
                f"this machine has {count} CUDA devices" if count else "no CUDA device is available"
            )
    if missing:
        raise DeviceError(
            f"device {requested!r} was requested, but {missing}", requested, remedy="device"
        )
    logger.debug("device %s chosen for %s", chosen, requested)
    return chosen


def check_name(requested: str) -> None:
    """Raise DeviceError for a name that no device can have, whether or not one is available."""
    if not isinstance(requested, str) or not NAMES.fullmatch(requested):
        raise DeviceError(
            f"no device is called {requested!r}; use auto, cpu, cuda, cuda:N or mps", str(requested)
        )


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads for a while; None leaves them as they are, and torch unloaded.

    The number is one for the whole process, so of several at a time the latest counts. The last to end puts back what
    the first found.
    """
    if count is None:
        yield
        return
    import torch

    with _THREADS.lock:
        if not _THREADS.users:
            _THREADS.before = torch.get_num_threads()
        _THREADS.users += 1
        own = torch.get_num_threads()  # each thread that has computed keeps a number of its own
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _THREADS.lock:
            _THREADS.users -= 1
            torch.set_num_threads(own if _THREADS.users else _THREADS.before)


def widest(device: str) -> Any:
    """The torch dtype to add many numbers up in on a device: float64, which Apple's GPUs do not have."""
    import torch

    return torch.float32 if device.startswith("mps") else torch.float64


def has_cuda_driver() -> bool:
    """Whether the CUDA driver's library is on this machine; torch cannot use a GPU without it."""
    try:
        ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _cuda_count() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    if platform.system() != "Darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


def check_fork(*, computes: bool = False) -> None:
    """Raise UsageError where torch would wait for ever for threads that its process lost when it was forked.

    computes  whether it is about to compute, which starts such threads
    """
    import torch

    if torch.get_num_threads() == 1:
        return
    if _FORK.lost:
        raise UsageError(
            "this process was forked from one that has trained, and would hang: torch's threads are not in it",
            argument="threads",
            suggestion='start it by multiprocessing\'s "spawn" or "forkserver", or train in it with threads=1',
        )
    _FORK.started = _FORK.started or computes


def free_large_block() -> None:
    """Free a block of almost 32 MiB, from whose size glibc learns to keep freed blocks for the next step.

    Until then glibc maps each block from 128 KiB on anew, page by page. No setting of the process is changed.
    """
    import torch

    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)


def worker_threads(count: int, each: int = 1) -> list[ThreadPoolExecutor]:
    """Threads that have begun, each of which computes with `each` threads of torch's own; a pool for each, of one."""
    import torch

    threads = [ThreadPoolExecutor(1, f"textgen-worker-{i}") for i in range(count)]
    with _THREADS.lock:
        own = torch.get_num_threads()
        for thread in (
            threads
        ):  # a thread's first question sets its number to the process's, so it is asked before
            thread.submit(torch.get_num_threads).result()
            thread.submit(torch.set_num_threads, each).result()
        torch.set_num_threads(own)  # for threads that begin later; these keep their number
    return threads
