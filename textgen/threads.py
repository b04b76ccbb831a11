"""Torch's CPU threads: as many as other programs leave processors for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

from textgen.errors import UsageError

_LOCK: Final = threading.Lock()
_PROCESSES: set[int] = set()  # in which runs have trained, with those that they were forked from
_COUNTS: list[int] = []  # of threads: the program's own, then those of the runs that train now
_FEW_WEIGHTS: Final = 1 << 24  # of a model that one thread writes with
_MEASURING: Final = 0.025  # seconds that it takes to count the free processors
_MEASURED_AGAIN: Final = 2.0  # seconds until they are counted again, while a model is in use
_PART: Final = 1 << 16  # numbers for each thread, while they are counted: a tenth of a millisecond


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
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


@contextlib.contextmanager
def free_threads(weights: int = _FEW_WEIGHTS) -> Iterator[None]:
    """In the block, let torch compute what this thread asks for on as many processors as other
    programs leave free, at most its own number of threads. Other threads keep theirs.

    Torch's threads wait for each other many times in a step of a model, and do so at work. If
    another program has the processor of one of them, all others wait for milliseconds each time.

    A model of few `weights` is computed in one thread: more would gain little, and matrix products
    in float32 may round differently in one thread than in several, so that a text would depend on
    what else the machine does.
    """
    import torch

    own = torch.get_num_threads()
    count = 1 if weights < _FEW_WEIGHTS else _FREE.count(own)
    if count == own:
        yield
        return
    # torch.set_num_threads would also change the number for threads that begin later.
    set_openmp, set_mkl = _thread_setters()
    set_openmp(count)
    mkl_before = set_mkl(count)
    try:
        yield
    finally:
        set_mkl(mkl_before)
        set_openmp(own)


class _FreeProcessors:
    """How many processors are free, counted again from time to time."""

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self._due = -float("inf")  # when to count again
        self._asked, self._free = 0, 1

    def count(self, threads: int) -> int:
        """The free processors, from 1 to `threads`."""
        is_known = threads == self._asked and time.monotonic() < self._due
        # While another thread counts, what was counted before is good enough.
        if threads > 1 and not is_known and self._counting.acquire(blocking=False):
            try:
                self._free = _free_of(threads, _processors_got(threads))
                self._asked, self._due = threads, time.monotonic() + _MEASURED_AGAIN
            finally:
                self._counting.release()
        return min(threads, self._free)


_FREE: Final = _FreeProcessors()


def _free_of(threads: int, got: float) -> int:
    """The processors that other programs leave free, where so many threads that never rest got the
    time of `got` processors: two that share one have half of it each.
    """
    shared = 2 * (threads - got)
    return max(1, round(threads - shared))


def _processors_got(threads: int) -> float:
    """The processors whose time this process gets while so many threads of torch's are at work."""
    import torch

    numbers = torch.ones(threads * _PART, dtype=torch.float32, device="cpu")
    numbers.cos_()  # begins the threads
    begun, used = time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - begun) < _MEASURING:
        numbers.cos_()
    return (time.process_time() - used) / passed


@cache
def _thread_setters() -> list[Callable[[int], int]]:
    """Functions of torch's OpenMP and of its MKL that set the number of threads for the thread that
    calls them; MKL's gives the number before. Functions that do nothing where torch has other
    libraries, or shows none, as on Windows.
    """
    import torch

    found: list[Callable[[int], int]] = []
    for name in ("omp_set_num_threads", "MKL_Set_Num_Threads_Local"):
        try:
            function = getattr(ctypes.PyDLL(torch._C.__file__), name)
        except (OSError, AttributeError):
            function = int
        else:
            function.argtypes = [ctypes.c_int]
        found.append(function)
    return found


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
