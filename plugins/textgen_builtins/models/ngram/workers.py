"""Processes that do tasks of `passes`: started as a module, told what to do in lines of JSON, and ended at any time."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

import attrs

from textgen import TrainingError
from textgen_builtins.models.ngram.passes import TASKS, Job

_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Workers:
    """So many processes within `with`; with one, this process does the work itself."""

    def __init__(self, job: Job, number: int) -> None:
        self._job, self._number = job, number
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        if self._number > 1:
            try:
                self._start()
            except BaseException:
                self.__exit__()
                raise
        return self

    def _start(self) -> None:
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1") | paths
        job = json.dumps(attrs.asdict(self._job))
        for _ in range(
            self._number
        ):  # a session of their own: Ctrl-C is for this process, which ends them
            process = subprocess.Popen(  # noqa: S603 - this module, with this interpreter
                [sys.executable, "-m", __name__, job],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,
            )
            self._processes.append(process)

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert stream is not None
                    stream.close()

    def run(self, tasks: Sequence[Sequence[Any]]) -> Iterator[tuple[int, Any]]:
        """Do tasks, each a name and arguments. Yields (-1, None) while one is at work, then its number and result.

        Raises TrainingError when a process fails.
        """
        if not self._processes:
            for number, (name, *arguments) in enumerate(tasks):
                for done, result in _steps(self._job, name, arguments):
                    yield (number, result) if done else (-1, None)
            return
        news: queue.Queue[tuple[int, Any]] = queue.Queue()
        waiting = deque(enumerate(tasks))
        for process in self._processes:
            threading.Thread(target=_serve, args=(process, waiting, news), daemon=True).start()
        missing = len(tasks)
        while missing:
            number, result = news.get()
            if isinstance(result, TrainingError):
                raise result
            missing -= number >= 0
            yield number, result


def _steps(job: Job, name: str, arguments: Sequence[Any]) -> Iterator[tuple[bool, Any]]:
    """(False, None) while a task is at work, then (True, its result)."""
    work = TASKS[name](job, *arguments)
    while True:
        try:
            next(work)
        except StopIteration as end:
            yield True, end.value
            return
        yield False, None


def _serve(
    process: subprocess.Popen[str],
    waiting: deque[tuple[int, Any]],
    news: queue.Queue[tuple[int, Any]],
) -> None:
    """Give tasks to a process until there are none, and put what it says into `news`."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while waiting:
            number, task = waiting.popleft()
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            while True:
                line = process.stdout.readline()
                if not line:
                    raise EOFError
                answer = json.loads(line)
                if "error" in answer:
                    news.put(
                        (number, TrainingError(f"counting stopped: {answer['error']}", step=0))
                    )
                    return
                news.put((number if "result" in answer else -1, answer.get("result")))
                if "result" in answer:
                    break
    except IndexError:  # another thread took the last task
        return
    except (EOFError, OSError, ValueError) as error:
        code = process.poll()
        cause = f"a process that counts ended{'' if code is None else f' with {code}'}"
        advice = "if it was killed for its memory, lower trainer.memory or trainer.processes"
        news.put((-1, TrainingError(f"{cause} ({type(error).__name__}); {advice}", step=0)))


def main() -> None:
    """Do the tasks that come as lines of standard input. What is at its end, or whose reader is gone, ends too."""
    job = Job(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            for done, result in _steps(job, name, arguments):
                _answer({"result": result} if done else {})
        except BrokenPipeError:
            return
        except (OSError, MemoryError) as error:
            _answer({"error": f"{type(error).__name__}: {error}"})


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
