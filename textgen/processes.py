"""The processes of one run, as torchrun starts them.

All run the same program; that of rank 0 leads.

The leader alone writes and prints. Before training it tells the others where to begin, as JSON in
torch's store; in training they meet in one sum for each step. Nothing is pickled. torch is imported
when the processes join.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from textgen.errors import Interrupted, ProcessesError, UsageError

TIMEOUT = 120.0  # seconds that a step, a checkpoint or an evaluation of another process may take
_MEETING: Final = 600.0  # seconds in which all come, and read the text
_BETWEEN: Final = 0.02  # seconds between two looks into the store
_LEAVING: Final = 5.0  # seconds in which the others read what the leader has told last


def is_follower(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process with others, of which another leads."""
    return environment.get("WORLD_SIZE", "1") != "1" and environment.get("RANK", "0") != "0"


@attrs.define(eq=False)
class Processes:
    """The place of this process among all of a run.

    rank, size              among all; rank 0 leads
    local_rank, local_size  among those of this machine
    timeout                 seconds without an answer after which a process is taken for lost
    launcher                the id of the process that started this one, where that is torchrun
    wants_stop              asked in each step: whether this process is to end the run, as on a
                            signal
    stop_asked              whether another asked for the end of this run
    """

    rank: int
    size: int
    local_rank: int = 0
    local_size: int = 1
    timeout: float = TIMEOUT
    launcher: int | None = None
    wants_stop: Callable[[], bool] = lambda: False
    stop_asked: bool = attrs.field(default=False, init=False)
    _store: Any = attrs.field(default=None, init=False)
    _told: int = attrs.field(default=0, init=False)  # messages

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Processes | None:
        """The processes of torchrun's RANK, WORLD_SIZE and the like; None without WORLD_SIZE."""
        if "WORLD_SIZE" not in environment or "RANK" not in environment:
            return None
        defaults = {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        numbers = []
        for name, default in defaults.items():
            value = environment.get(name, default)
            if not value.isdecimal():
                raise UsageError(f"the environment variable {name} must be a number", value=value)
            numbers.append(int(value))
        launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in environment else None
        rank, size, local_rank, local_size = numbers
        return cls(rank, size, local_rank, local_size, TIMEOUT, launcher)

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def rows(self, total: int, rank: int | None = None) -> slice:
        """The rows of a batch that are this process's, or another's: parts in order that differ by
        one row at most.
        """
        rank = self.rank if rank is None else rank
        return slice(total * rank // self.size, total * (rank + 1) // self.size)

    def device(self, kind: str) -> str:
        """This process's device of a kind: of several GPUs, each has its own."""
        return f"cuda:{self.local_rank}" if kind == "cuda" else kind

    def threads(self, given: int | None) -> int | None:
        """The threads for this process where the run has `given`; None leaves torch its own
        number.
        """
        if given is not None:
            return max(1, given // self.local_size)
        if self.local_size == 1 or "OMP_NUM_THREADS" in os.environ:
            return None
        return max(1, (os.cpu_count() or 1) // self.local_size)

    def is_stopping(self) -> bool:
        """Whether this process asks for the end of the run: on a signal, or since torchrun is
        gone.
        """
        orphaned = self.launcher is not None and os.getppid() != self.launcher
        return orphaned or self.wants_stop()

    @property
    def _not_all(self) -> str:
        lost = f"one has ended, or has not come within {_MEETING:g} seconds"
        return f"{self.size} processes were to meet: {lost}"

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Meet the others, for as long as the program takes.

        Raises ProcessesError if they do not come.
        """
        import torch.distributed

        dist: Any = torch.distributed  # which is typed in part
        is_torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        hosts = self.leads and not is_torchruns
        with self.explained(self._not_all):
            timeout = timedelta(seconds=_MEETING)
            address = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", ""))
            store = dist.TCPStore(*address, self.size, hosts, timeout=timeout)
            # torchrun's own store still has the addresses of the processes that it started before.
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "") if is_torchruns else ""
            self._store = dist.PrefixStore(f"textgen/{start}", store)
            dist.init_process_group(
                "gloo",
                store=self._store,
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=self.timeout),
            )
        try:
            yield
        finally:
            with contextlib.suppress(Exception):  # of a group that is broken already
                left, end = self._store.add("left", 1), time.monotonic() + _LEAVING
                while hosts and left < self.size and time.monotonic() < end:
                    time.sleep(_BETWEEN)
                    left = self._store.add("left", 0)
                dist.destroy_process_group()

    def meet(self) -> None:
        """Wait for the others, each of which may have to read the text first.

        Raises ProcessesError.
        """
        import torch.distributed as dist

        with self.explained(self._not_all):
            dist.monitored_barrier(timeout=timedelta(seconds=_MEETING))

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """A run of the leader; tells the others how it ended."""
        ended = self.stop_asked = False
        try:
            yield
            ended = True
        finally:
            with contextlib.suppress(ProcessesError):
                self.tell({"ended": ended})

    def tell(self, value: Any) -> None:
        """Tell the others a JSON value.

        The leader calls it as often as each of them calls `hear`.
        """
        if self._store is None:  # nobody has joined
            return
        self._told += 1
        with self.explained():
            self._store.set(f"told/{self._told}", json.dumps(value))

    def hear(self) -> Any:
        """Wait for what the leader tells next, however long it takes.

        Raises Interrupted, ProcessesError.
        """
        self._told += 1
        key = f"told/{self._told}"
        with self.explained():
            while not self._store.check([key]):
                if self.is_stopping():
                    raise Interrupted("stopped while the first process was at work")
                time.sleep(_BETWEEN)
            return json.loads(self._store.get(key))

    @contextlib.contextmanager
    def explained(self, cause: str = "") -> Iterator[None]:
        """Raise what torch says while processes talk to each other as a ProcessesError."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            lost = "another process of the run has ended, or has not answered within"
            raise ProcessesError(cause or f"{lost} {self.timeout:g} seconds") from error
