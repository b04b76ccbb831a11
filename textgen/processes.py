"""The processes of one run, as torchrun starts them.

All run the same program: each reads the run directory and computes its rows of every batch. Only
rank 0 writes, prints and generates. The processes communicate through torch.distributed, without
pickle. torch is imported when they join.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from textgen.errors import ProcessesError

TIMEOUT = 120.0  # seconds that a step, a checkpoint or an evaluation of another process may take
_BARRIER_SECONDS: Final = 1800.0  # for all to start, and to read the text
# Matches errors of gloo, NCCL and torch's stores when another process has ended or does not answer.
_LOST_PROCESS: Final = re.compile(
    r"closed|reset by peer|broken pipe|refused|not connected|network error|remote process exited"
    r"|time[d]?[ -]?out|failed to (connect|recv|send)",
    re.IGNORECASE,
)


@attrs.define(eq=False)
class Processes:
    """This process among all processes of a run.

    rank, size              among all; rank 0 leads
    local_rank, local_size  among those of this machine; a rank of None is not known
    timeout                 seconds without an answer after which a process is taken for lost
    launcher                the id of the process that started this one, where that is torchrun
    """

    rank: int
    size: int
    local_rank: int | None = None
    local_size: int = 1
    timeout: float = TIMEOUT
    launcher: int | None = None
    _group: Any = attrs.field(default=None, init=False)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Processes | None:
        """The processes of torchrun's RANK, WORLD_SIZE and the like; None without WORLD_SIZE."""
        if "WORLD_SIZE" not in environment or "RANK" not in environment:
            return None
        local_rank = environment.get("LOCAL_RANK")
        return cls(
            rank=int(environment["RANK"]),
            size=int(environment["WORLD_SIZE"]),
            local_rank=None if local_rank is None else int(local_rank),
            local_size=int(environment.get("LOCAL_WORLD_SIZE", 1)),
            launcher=os.getppid() if "TORCHELASTIC_RUN_ID" in environment else None,
        )

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """The rows of a batch that are this process's: parts in order that differ by one row at
        most.
        """
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def device(self, kind: str) -> str:
        """This process's device of a kind: of several GPUs, each has its own.

        Without a local rank, the processes of a machine are taken to have ranks in a row, one for
        each of its GPUs.
        """
        if not kind.startswith("cuda"):
            return kind
        index = self.local_rank
        if index is None:
            import torch

            index = self.rank % max(1, torch.cuda.device_count())
        return f"cuda:{index}"

    def threads(self, given: int | None) -> int | None:
        """This process's share of the `given` threads of a machine; None leaves torch the number
        that torchrun sets.
        """
        return None if given is None else max(1, given // self.local_size)

    def is_orphaned(self) -> bool:
        """Whether torchrun, which started this process, is gone."""
        return self.launcher is not None and os.getppid() != self.launcher

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """A block in which the processes can communicate.

        Raises ProcessesError if the others do not start.
        """
        import torch.distributed

        dist: Any = torch.distributed  # which is typed in part
        with self.explained(_BARRIER_SECONDS):
            timeout = timedelta(seconds=_BARRIER_SECONDS)
            store, *_ = next(dist.rendezvous("env://", self.rank, self.size, timeout=timeout))
            # torchrun's own store still has the addresses of the processes that it started before.
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
            store = dist.PrefixStore(f"textgen/{start}", store)
            dist.init_process_group("gloo", None, timeout, self.size, self.rank, store)
        try:
            self._group = self.group("gloo")
            yield
        finally:
            with contextlib.suppress(Exception):  # of a group that is broken already
                dist.destroy_process_group()

    def group(self, backend: str) -> Any:
        """All processes as a group of torch's, by gloo for tensors in the memory of the CPU or by
        nccl; one that does not answer within the timeout is lost.
        """
        import torch.distributed as dist

        if backend == "gloo" and self._group is not None:
            return self._group
        return dist.new_group(backend=backend, timeout=timedelta(seconds=self.timeout))

    def barrier(self) -> None:
        """Wait until all processes are here, for up to half an hour. Raises ProcessesError."""
        import torch.distributed as dist

        with self.explained(_BARRIER_SECONDS):
            dist.barrier()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """A block that rank 0 runs first, and then the other ranks, which find its results in the
        cache. All leave it together.

        Raises ProcessesError.
        """
        if not self.leads:
            self.barrier()
        yield
        if self.leads:
            self.barrier()
        self.barrier()

    def sums(self, *numbers: float) -> list[float]:
        """The sum of each of some numbers over all processes. Raises ProcessesError."""
        import torch
        import torch.distributed as dist

        told = torch.tensor(numbers, dtype=torch.float64)
        with self.explained():
            dist.all_reduce(told, group=self._group)
        return told.tolist()

    @contextlib.contextmanager
    def explained(self, seconds: float | None = None) -> Iterator[None]:
        """Turn torch's errors of communication into a ProcessesError, which says whether another
        process is lost. An error for lack of memory stays as it is.
        """
        import torch

        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())
            if _LOST_PROCESS.search(said):
                cause = "another process of the run has ended, or has not answered within"
                cause = f"{cause} {seconds or self.timeout:g} seconds"
            else:
                cause = f"process {self.rank} cannot work with the others: {said}"
            raise ProcessesError(cause) from error
