"""Finds the device to compute on, without importing torch where there is nothing to find."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import sys
import threading
import timeit
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal

from textgen.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch


NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_LOCK: Final = threading.Lock()
_PROCESSES: set[int] = set()  # in which runs have trained, with those that they were forked from
_COUNTS: list[int] = []  # of threads: the program's own, then those of the runs that train now


def resolve(requested: str) -> str:
    """The device to use for `requested`: "auto", "cpu", "mps", "cuda" or "cuda:N".

    "auto" is CUDA where there is one, then MPS, then the CPU. A device that was asked for and is
    missing raises DeviceError: never a silent switch.
    """
    if not isinstance(requested, str) or not NAMES.fullmatch(requested):
        raise DeviceError(f"no device is called {requested!r}; use auto, cpu, cuda, cuda:N or mps")
    chosen, missing = requested, ""
    if requested == "auto":
        has_cuda = has_cuda_driver() and _cuda_count()
        chosen = "cuda" if has_cuda else "mps" if _has_mps() else "cpu"
    elif requested == "mps":
        missing = "" if _has_mps() else "no MPS device is available"
    elif requested != "cpu":
        count = _cuda_count() if has_cuda_driver() else 0
        if count <= int(requested.partition(":")[2] or 0):
            missing = f"this machine has {count or 'no'} CUDA devices"
    if missing:
        raise DeviceError(
            f"device {requested!r} was requested, but {missing}; set `device` to cpu or auto"
        )
    return chosen


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads for a while; None leaves them as they are, and torch
    unloaded.

    The number is one for the whole process: of several runs at a time, the latest counts. The last
    to end puts back the program's own.

    Raises UsageError in a process that was forked from one that has trained by torch: it would wait
    for torch's threads, which are not in it.
    """
    if "torch" in sys.modules and _PROCESSES and os.getpid() not in _PROCESSES:
        raise UsageError(
            "this process was forked from one that has trained, and has none of its threads; start "
            'it by multiprocessing.get_context("spawn")'
        )
    _PROCESSES.add(os.getpid())
    if count is None:
        yield
        return
    import torch

    with _LOCK:
        if not _COUNTS:
            _COUNTS.append(torch.get_num_threads())
        _COUNTS.append(count)
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _LOCK:
            del _COUNTS[_COUNTS.index(count, 1)]
            torch.set_num_threads(_COUNTS[-1])
            if len(_COUNTS) == 1:
                _COUNTS.clear()


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


def free_large_block() -> None:
    """Free a block of almost 32 MiB, from whose size glibc learns to keep freed blocks for the next
    step.

    Until then glibc maps each block from 128 KiB on anew, page by page. No setting of the process
    is changed.
    """
    import torch

    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)


def faster_precision(device: str) -> Literal["float32", "bfloat16"]:
    """bfloat16 where a GPU has it built in, or a CPU multiplies matrices much faster in it, as
    those with instructions for it do; else float32.
    """
    import torch

    if device.startswith("cuda"):
        with torch.cuda.device(device):
            is_faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        seconds = _product_seconds(torch.bfloat16), _product_seconds(torch.float32)
        is_faster = device == "cpu" and seconds[0] < seconds[1] / 2
    return "bfloat16" if is_faster else "float32"


def _product_seconds(dtype: torch.dtype) -> float:
    """Seconds of a product of two matrices on the CPU, the least of several."""
    import torch

    matrix = torch.ones(256, 256, dtype=dtype)
    return min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=100))


def thread_count() -> int:
    """The number of torch's CPU threads."""
    import torch

    with _LOCK:  # else it may be one that another run sets for a moment
        return torch.get_num_threads()


def worker_threads(count: int, each: int = 1) -> list[ThreadPoolExecutor]:
    """Threads that have begun, each of which computes with `each` threads of torch's own; a pool
    for each, of one.
    """
    import torch

    threads = [ThreadPoolExecutor(1, f"textgen-worker-{i}") for i in range(count)]
    with _LOCK:
        own = torch.get_num_threads()
        for thread in threads:
            # A thread's first question sets its number to the process's, so it is asked before.
            thread.submit(torch.get_num_threads).result()
            thread.submit(torch.set_num_threads, each).result()
        torch.set_num_threads(own)  # for threads that begin later; these keep their number
    return threads
