"""Runs `python ARGUMENTS` without the seconds that importing torch takes, for commands.py.

The first command starts this file as a server, which imports textgen and torch, and forks for each
command that `start` sends it. `-m textgen` and scripts find these modules imported; others, such as
pytest, do not. Where imports or the start of Python are the point, take commands.run_python.

Only Linux has all that it needs: elsewhere a command is a process like any other.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing.process
import os
import pkgutil
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

OWN = ("textgen", "textgen_builtins")
TIMEOUT = 300.0
FORKS = sys.platform == "linux" and hasattr(os, "fork") and hasattr(socket, "send_fds")


class Process:
    """A process that may still run. What it has is called as in `subprocess.Popen`."""

    def __init__(self, arguments, pid, answers):
        self.arguments, self.pid, self._answers = arguments, pid, answers
        self.returncode: int | None = None

    def wait(self, timeout=TIMEOUT):
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.arguments, timeout)
            with self._answers:
                self.returncode = int(_line(self._answers))
        return self.returncode

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def start(arguments, folder, environment, streams):
    """`python ARGUMENTS` in `folder`, with three file descriptors as its stdin, stdout and stderr.

    Of Python's own options, it takes `-m` and `-W error`. Ctrl-C interrupts it, even where
    this process was started in the background, and ignores it.
    """
    if not FORKS:
        stdin, stdout, stderr = streams
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
    request = json.dumps(
        {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
    )
    answer, reply = os.pipe()
    answers = open(answer, "rb", buffering=0)  # noqa: SIM115 - the process that is returned closes it
    with open(reply, "wb", buffering=0):
        socket.send_fds(_server(), [request.encode()], [*streams, reply])
    return Process(arguments, int(_line(answers)), answers)


def run(arguments, folder, environment, *, stdin=None):
    """`python ARGUMENTS` in `folder`, to its end, as `start` does.

    stdin  what another program pipes in; None: nothing is there
    """
    if not FORKS:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            check=False,
        )
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _input(stdin) as given:
            streams = [given.fileno(), out.fileno(), err.fileno()]
            process = start(arguments, folder, environment, streams)
        try:
            code = process.wait()
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            error.stdout, error.stderr = _text(out).encode(), _text(err).encode()
            raise
        return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


def _input(text):
    """What a process reads from: nothing, or a pipe that holds a text and has ended."""
    if text is None:
        return open(os.devnull, "rb")
    source, target = os.pipe()
    with open(target, "wb") as pipe:
        pipe.write(text.encode())  # it has room for 64 kB
    return open(source, "rb")


@functools.cache
def _server():
    """The socket of the server, which ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _line(answers):
    line = answers.readline()
    assert line, "the server of forked processes has ended"
    return line


def _text(file):
    file.seek(0)
    return file.read().decode()


def serve(control):
    """Fork once for each request; return it in the process that is to run it, whose standard
    streams are set.
    """
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
    return json.loads(request)


def execute(arguments, folder, environment):
    """What `python ARGUMENTS` does once it has started."""
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = folder  # where its spawned processes begin
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, (name, mode, buffering) in enumerate(
        (("stdin", "r", -1), ("stdout", "w", -1), ("stderr", "w", 1))
    ):
        old = getattr(sys, name)  # which takes them for what the server has
        new = open(number, mode, buffering, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    if arguments[:2] == ["-W", "error"]:
        sys.warnoptions.append("error")
        warnings.simplefilter("error")
        del arguments[:2]
    if arguments[0] == "-m" and arguments[1] != "textgen":
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
            del sys.modules[name]
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


def load_all():
    """Import what commands import."""

    own = [entry for entry in os.environ.pop("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = own
    for package in OWN:
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        ):
            if not re.search(r"__main__|testing|tests", module.name):
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)
    del sys.path[: len(own)]
    gc.collect()
    gc.freeze()  # what is never looked at again stays shared


def end_quickly(code):
    """End the process without taking all modules apart."""
    with contextlib.suppress(OSError, ValueError):  # Python says what is wrong with the streams
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    codes = []
    atexit.register(lambda: codes and end_quickly(codes[0]))  # the first is the last
    del sys.path[0]  # this folder
    load_all()
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        execute(**serve(control))
        codes.append(0)
    except SystemExit as stop:
        if isinstance(stop.code or 0, int):
            codes.append((stop.code or 0) & 0xFF)
        raise
