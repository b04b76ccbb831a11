"""The processes of one run, as torchrun starts them. The first, of rank 0, leads; the others follow its orders.

The leader alone reads the corpus, writes and prints. It gives an order before each thing that all do together, and says
that it is still there while it does something else, so that a follower can tell long work from a lost leader. Messages
are JSON and safetensors over gloo; nothing is pickled. torch is imported when the processes join.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import attrs

from textgen.errors import ProcessesError, TextgenError, UsageError
from textgen.meeting import agreed_name

TIMEOUT: Final = "TEXTGEN_PROCESS_TIMEOUT"
_DEFAULT_TIMEOUT: Final = 600.0
_BLOCK: Final = 1 << 26  # bytes sent at once
_ALIVE: Final = 5.0  # seconds between two signs of life, at most
_PATIENCE: Final = 5.0  # seconds in which the leader notices what a follower has
_NOTICED, _FAULT = "textgen/noticed", "textgen/fault"  # keys of the store
_LOST: Final = re.compile(r"gloo|nccl|connection (closed|reset)|timed out|store", re.IGNORECASE)


def is_follower(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process with others, of which another leads."""
    return environment.get("WORLD_SIZE", "1") != "1" and environment.get("RANK", "0") != "0"


class RunEnded(SystemExit):
    """In a follower: the leader has ended the run, or tells of an error in this process. `code` is the exit code."""

    unblamed = True  # it passes through a plugin's trainer, and is no fault of it


class Order(enum.IntEnum):
    """What the leader says comes next."""

    WAIT = 1  # it is busy
    SHARE = 2  # take a message
    STEP = 3  # train a step
    EVALUATE = 4  # measure a part of the held-out text
    STATE = 5  # send what the followers alone have of the training's state
    STOP = 6  # training ends
    END = 7  # the run ends, with an exit code


@attrs.define(eq=False)
class Processes:
    """The place of this process among all of a run.

    rank, size              among all; rank 0 leads
    local_rank, local_size  among those of this machine
    timeout                 seconds without an answer after which a process is taken for lost
    launcher                the id of the process that started this one, where that is torchrun
    wants_stop              asked before each step: whether this process is to end the run, as on a signal
    """

    rank: int
    size: int
    local_rank: int = 0
    local_size: int = 1
    timeout: float = _DEFAULT_TIMEOUT
    launcher: int | None = None
    wants_stop: Callable[[], bool] = lambda: False
    stop_asked: bool = attrs.field(default=False, init=False)  # by any of them
    in_step: bool = attrs.field(default=False, init=False)  # the others are, too, and hear no order
    _store: Any = attrs.field(default=None, init=False)
    _gloo: Any = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _left: threading.Event = attrs.field(factory=threading.Event, init=False)
    _failure: ProcessesError | None = attrs.field(default=None, init=False)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Processes | None:
        """What torchrun says in RANK, WORLD_SIZE and the like; None where there is no WORLD_SIZE."""
        if "WORLD_SIZE" not in environment or "RANK" not in environment:
            return None
        names = (("RANK", ""), ("WORLD_SIZE", ""), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
        numbers = [_number(name, environment.get(name, default), int) for name, default in names]
        timeout = _number(TIMEOUT, environment.get(TIMEOUT, str(_DEFAULT_TIMEOUT)), float)
        launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in environment else None
        rank, size, local_rank, local_size = numbers
        return cls(rank, size, local_rank, local_size, timeout, launcher)

    @property
    def leads(self) -> bool:
        """Whether this is the one that reads, writes and prints."""
        return self.rank == 0

    def rows(self, total: int, rank: int | None = None) -> slice:
        """The rows of a batch that are this process's, or another's: parts in order that differ by one row at most."""
        rank = self.rank if rank is None else rank
        return slice(total * rank // self.size, total * (rank + 1) // self.size)

    def device(self, kind: str) -> str:
        """This process's device of a kind: of several GPUs, each has its own."""
        return f"cuda:{self.local_rank}" if kind == "cuda" else kind

    def threads(self, given: int | None) -> int | None:
        """The threads for this process where the run has `given`; None leaves torch its own number."""
        if given is not None:
            return max(1, given // self.local_size)
        if self.local_size == 1 or "OMP_NUM_THREADS" in os.environ:
            return None
        return max(1, (os.cpu_count() or 1) // self.local_size)

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Meet the others, for as long as the run takes. The leader tells them how it ended.

        Raises ProcessesError if they do not come. In a follower, an error that the leader tells of becomes RunEnded.
        """
        import torch.distributed

        self._meet()
        alive = threading.Thread(target=self._say_alive, name="textgen-alive", daemon=True)
        if self.leads:
            alive.start()
        code = 1
        try:
            yield
            code = 0
        except BaseException as error:
            code = getattr(error, "exit_code", 1)
            if not self.leads and isinstance(error, TextgenError) and self._is_told(error):
                raise RunEnded(code) from error
            raise
        finally:
            self._left.set()
            if self.leads:
                self._tell_the_end(code)
                alive.join()
            with contextlib.suppress(Exception):  # of a group that is broken already
                torch.distributed.destroy_process_group()

    def _meet(self) -> None:
        """Connect to the others."""
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        with self.talking(f"{self.size} processes were to meet, and not all have come"):
            place: dict[str, Any] = {
                "rank": self.rank,
                "world_size": self.size,
                "timeout": self._delta(),
            }
            # torchrun may keep one store over its restarts, with the addresses of processes that have ended.
            whole = dist.distributed_c10d.PrefixStore(
                "textgen", next(rendezvous("env://", **place))[0]
            )
            name = agreed_name(whole, self.rank, self.size, self.timeout)
            self._store = dist.distributed_c10d.PrefixStore(name, whole)
            dist.init_process_group("gloo", store=self._store, **place)
            self._gloo = dist.new_group(backend="gloo", timeout=self._delta())

    def _tell_the_end(self, code: int) -> None:
        if self.in_step:
            self._failure = ProcessesError("the first process has failed in a step")
            self._stored(self._notice)
            return
        with contextlib.suppress(ProcessesError), self.order(Order.END, code):
            self._failure = ProcessesError("the run has ended")
            self._exchange(0, 0)  # so that no connection is closed before all have the order

    def group(self, device: str) -> Any:
        """A process group for tensors on `device`, apart from that of the orders. All processes must ask for it."""
        import torch.distributed as dist

        if not device.startswith("cuda"):
            return self._gloo
        with self.talking():
            return dist.new_group(backend="nccl", timeout=self._delta())

    @contextlib.contextmanager
    def order(self, order: Order, value: int = 0) -> Iterator[None]:
        """Give an order; within, the leader takes part in what it asks for."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._exchange(order, value)
            yield

    def next_order(self) -> tuple[Order, int]:
        """Wait for the leader's next order, and return it with its value. Raises RunEnded."""
        while True:
            order, value = self._exchange(0, 0)
            if order == Order.END:
                with contextlib.suppress(ProcessesError):
                    self._exchange(0, 0)
                raise RunEnded(value)
            if order != Order.WAIT:
                return Order(order), value

    def agree(self, make: Callable[[], Any]) -> Any:
        """What `make` gives in the leader, a JSON value, for all of them. The others do not call it."""
        return json.loads(self.share(lambda: json.dumps(make()).encode()))

    def share(self, make: Callable[[], bytes]) -> bytes:
        """What `make` gives in the leader, for all of them. Followers do not call it, and may get RunEnded."""
        if self.leads:
            with self.order(Order.SHARE, len(data := make())):
                return self._broadcast(bytearray(data))
        return self._broadcast(bytearray(self._next_share()))

    def any(self, flag: bool) -> bool:
        """Whether it is true in any of the processes. All of them ask."""
        return bool(self.sum([flag])[0])

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """The sums of the numbers of all processes, which all give as many."""
        import torch
        import torch.distributed as dist

        sums = torch.tensor(numbers, dtype=torch.float64)
        if not self.leads:
            self._next_share()
        with self.order(Order.SHARE) if self.leads else contextlib.nullcontext(), self.talking():
            dist.all_reduce(sums)
        made: list[float] = sums.tolist()
        return made

    def _next_share(self) -> int:
        order, size = self.next_order()
        if order != Order.SHARE:
            raise ProcessesError(
                f"the first process of the run said {order.name}, and was to share something"
            )
        return size

    def _broadcast(self, data: bytearray) -> bytes:
        """The leader's bytes, in place of as many of another."""
        import torch
        import torch.distributed as dist

        with self.talking():
            for start in range(0, len(data), _BLOCK):
                dist.broadcast(torch.frombuffer(data, dtype=torch.uint8)[start : start + _BLOCK], 0)
        return bytes(data)

    def gather(self, parts: Sequence[Any], rows: int) -> list[Any]:
        """Tensors of a process's own rows (B', ...) to those of all `rows`, in the leader; on a CPU."""
        import torch.distributed as dist

        own = [part.detach().cpu().contiguous() for part in parts]
        with self.talking():
            if not self.leads:
                for part in own:
                    dist.send(part, 0)
                return own
            places = [self.rows(rows, rank) for rank in range(self.size)]
            made = [part.new_empty((rows, *part.shape[1:])) for part in own]
            for rank, place in enumerate(places):
                for part, whole in zip(own, made, strict=True):
                    if rank:
                        dist.recv(whole[place], rank)
                    else:
                        whole[place] = part
        return made

    def _exchange(self, order: int, value: int) -> tuple[int, int]:
        """Give or take an order, and learn whether any process asks for the end."""
        import torch
        import torch.distributed as dist

        orphaned = self.launcher is not None and os.getppid() != self.launcher
        message = torch.tensor([order, value, int(orphaned or self.wants_stop())])
        with self.talking():
            dist.all_reduce(message, dist.ReduceOp.MAX)
        order, value, asked = message.tolist()
        self.stop_asked = self.stop_asked or bool(asked)
        return order, value

    def _say_alive(self) -> None:
        """Let the followers wait on while the leader does not lead; runs in a thread of its own."""
        while not self._left.wait(min(_ALIVE, self.timeout / 5)):
            try:
                with self.order(Order.WAIT):
                    pass
            except ProcessesError as error:
                self._failure = error
                return

    @contextlib.contextmanager
    def talking(self, otherwise: str = "") -> Iterator[None]:
        """Raise what torch says of a lost process as a ProcessesError."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise self.lost(error, otherwise) from error

    def lost(self, error: Exception, otherwise: str = "") -> ProcessesError:
        """The error to raise for one of torch's. From now on, nothing is said to the others."""
        cause = otherwise
        if self.leads and (fault := self._stored(self._notice)):
            cause = fault
        elif re.search("timed out|timeout", str(error), re.IGNORECASE):
            cause = cause or "another process of the run does not answer"
            cause = f"{cause} within {self.timeout:g} seconds ({TIMEOUT})"
        elif cause:
            cause = f"{cause}: {str(error).partition(chr(10))[0]}"
        self._failure = ProcessesError(
            cause or "another process of the run has ended, or its connection is lost"
        )
        return self._failure

    def _is_told(self, error: TextgenError) -> bool:
        """Whether the leader tells of an error in a follower: of a process that is lost, or of this one's own."""
        if isinstance(error, ProcessesError):
            return bool(self._stored(lambda: self._store.get(_NOTICED).decode()))
        text = f"process {self.rank} of {self.size}: {error}"
        return bool(self._stored(lambda: self._store.set(_FAULT, text) or text))

    def _notice(self) -> str:
        """Say that this one tells of what is lost; what a follower has failed of, or ""."""
        self._store.set(_NOTICED, "yes")
        return self._store.get(_FAULT).decode() if self._store.check([_FAULT]) else ""

    def _stored(self, ask: Callable[[], str]) -> str:
        """An answer of the store; "" if there is none in time, since a store behind a dead link never answers."""
        answers: list[str] = []

        def work() -> None:
            with contextlib.suppress(Exception):
                answers.append(ask())

        thread = threading.Thread(target=work, name="textgen-store", daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        return answers[0] if answers else ""

    def is_lost(self, error: RuntimeError) -> bool:
        """Whether an error of torch is about other processes."""
        return bool(_LOST.search(str(error)))

    def _delta(self) -> timedelta:
        return timedelta(seconds=self.timeout)


def _number(name: str, value: str, kind: Callable[[str], Any]) -> Any:
    try:
        number = kind(value)
    except ValueError:
        number = -1
    if number < 0 or (name == TIMEOUT and not number):
        raise UsageError(f"the environment variable {name} must be a number", value=value)
    return number
