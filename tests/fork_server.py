"""Runs Python commands in processes that have imported torch already, which takes seconds each time, or only NumPy and
other small packages.

`run` starts up to two servers for this process: this file as a script, which imports these and forks once for each
command. Nothing of textgen is imported before the fork. Where imports, what is loaded, or the start of Python are the
point, use a fresh process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import multiprocessing.process
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

TIMEOUT = 120.0


def run(
    arguments: list[str], folder: Path, environment: Mapping[str, str], *, stdin: str | None = None, torch: bool = True
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in `folder`; of Python's own options, it takes `-m` and `-W error`.

    stdin  what another program pipes in; None: nothing is there
    """
    request = json.dumps({"arguments": arguments, "folder": str(folder), "environment": dict(environment)})
    answer, reply = os.pipe()
    with open(answer, "rb", buffering=0) as answers, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with open(reply, "wb", buffering=0), _input(stdin) as given:
            streams = [given.fileno(), out.fileno(), err.fileno(), reply]
            socket.send_fds(_server(torch), [request.encode()], streams)
        process = int(_line(answers))
        if not select.select([answers], [], [], TIMEOUT)[0]:
            os.kill(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired(arguments, TIMEOUT, _text(out).encode(), _text(err).encode())
        return subprocess.CompletedProcess(arguments, int(_line(answers)), _text(out), _text(err))


def _input(text: str | None) -> BinaryIO:
    """What a process reads from: nothing, or a pipe that holds a text and has ended."""
    if text is None:
        return open(os.devnull, "rb")
    source, target = os.pipe()
    with open(target, "wb") as pipe:
        pipe.write(text.encode())  # it has room for 64 kB
    return open(source, "rb")


@functools.cache
def _server(torch: bool) -> socket.socket:
    """The socket of the server, which ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, __file__, str(theirs.fileno()), "torch" if torch else "numpy"]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _line(answers: BinaryIO) -> bytes:
    line = answers.readline()
    assert line, "the server of forked processes has ended"
    return line


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork once for each request; return it in the process that is to run it, whose standard streams are set."""
    while True:
        request, streams, *_ = socket.recv_fds(control, 1 << 20, 4)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            sys.exit()
        if not os.fork():
            break
        for descriptor in streams:
            os.close(descriptor)
    control.close()
    reply = streams.pop()
    child = os.fork()
    if child:
        os.write(reply, b"%d\n" % child)
        os.write(reply, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.close(reply)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    found: dict[str, Any] = json.loads(request)
    return found


def execute(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """What `python ARGUMENTS` does once it has started."""
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = folder  # type: ignore[attr-defined]  # where its spawned processes begin
    os.environ.clear()
    os.environ.update(environment)
    if arguments[:2] == ["-W", "error"]:
        sys.warnoptions.append("error")
        warnings.simplefilter("error")
        del arguments[:2]
    path = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[:] = [folder, *path, *sys.path]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        script = Path(arguments[0]).resolve()
        sys.argv = arguments
        sys.path[:] = [str(script.parent), *path, *sys.path]
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    if sys.argv[2] == "torch":
        import torch._dynamo  # noqa: F401 - every optimizer imports it, which takes as long as torch itself
    else:
        for module in ("attrs", "click", "importlib.metadata", "pluggy", "safetensors.numpy", "tomllib", "tqdm"):
            importlib.import_module(module)

    del sys.path[0]  # this folder
    execute(**serve(socket.socket(fileno=int(sys.argv[1]))))
