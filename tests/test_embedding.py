"""textgen inside other programs: a web server, and processes that are spawned."""

import copy
import logging
import os
import pickle
import random
import re
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from commands import running, wait_for

import textgen
from textgen import (
    Component,
    ContractError,
    CorpusError,
    CorruptFileError,
    DeviceError,
    Fault,
    Interrupted,
    NoOptions,
    PipelineError,
    PromptError,
    RegisteredComponent,
    RunLockedError,
    RunMismatchError,
    TrainingError,
)
from textgen.errors import Difference
from textgen.plugin import Plugin

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
REQUESTS = tuple(
    {"prompt": prompt, "seed": seed, "max_new_tokens": 60, **options}
    for seed, prompt in enumerate(["the ", ""])
    for options in ({}, {"temperature": 0.7, "top_k": 8}, {"stop": ["e"], "temperature": 2.0})
)


@pytest.fixture(scope="module")
def server(finished_run):
    """The example of the documentation under uvicorn, on a port that the system chooses."""
    arguments = ("serve:app", "--port", "0", "--app-dir", EXAMPLES)
    extra = {"TEXTGEN_RUN": str(finished_run)}
    with running(*arguments, folder=EXAMPLES, extra=extra, module="uvicorn") as command:
        address = re.search(r"http://\S+", wait_for(command, "running on"))
        with httpx.Client(base_url=address[0], timeout=60, trust_env=False) as client:
            yield client
        command.process.send_signal(signal.SIGTERM)
        assert "Traceback" not in command.stderr.read()


def test_requests_at_once_get_what_each_would_have_got_alone(server, generator):
    def ask(request):
        response = server.post("/generate", json=request)
        assert response.status_code == 200
        return response.text

    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        texts = list(pool.map(ask, REQUESTS))
    assert texts == [generator.generate(**request).text for request in REQUESTS]


def test_the_text_comes_in_pieces_and_a_client_may_leave(server, generator):
    request = {"prompt": "the ", "seed": 5, "max_new_tokens": 3000}
    with server.stream("POST", "/generate", json={**request, "max_new_tokens": 10_000}) as response:
        next(response.iter_text())
    with server.stream("POST", "/generate", json=request) as response:
        pieces = list(response.iter_text())
    assert len(pieces) > 1
    assert "".join(pieces) == generator.generate(**request).text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "é"}', "U+00E9"),
        ('{"temperature": -1}', "temperature"),
        ('{"temprature": 1}', "temprature"),
        ('{"max_new_tokens": 1000000}', "max_new_tokens"),
        ('{"seed": 1e400}', "seed"),
        ('{"time_limit": 5}', "time_limit"),
        ("{", "JSON object"),
    ],
)
def test_a_request_that_is_wrong_is_told_why(server, content, said):
    response = server.post("/generate", content=content)
    assert response.status_code == 400
    assert said in response.json()["error"]


def test_spawned_processes_give_the_same_texts_and_nothing_is_logged_or_printed(
    python, generator, finished_run, tmp_path
):
    (tmp_path / "many.py").write_text(
        """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import textgen

def start(path):
    global generator
    generator = textgen.load(path, device="cpu")

def write(index):
    assert "torch" not in sys.modules
    return generator.generate("the ", max_new_tokens=20, seed=3, index=index).text

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    given = {"initializer": start, "initargs": (sys.argv[1],)}
    with ProcessPoolExecutor(2, mp_context=spawn, **given) as pool:
        print(*map(repr, pool.map(write, range(6))), sep="\\n")
""",
        encoding="utf-8",
    )
    done = python("-W", "error", "many.py", finished_run, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    many = list(generator.generate_many(["the "], n=6, max_new_tokens=20, seed=3))
    assert done.stdout.splitlines() == [repr(made.text) for made in many]


@pytest.mark.parametrize(
    "error",
    [
        PipelineError([Fault("seed", "must be >= 0", "-1")], "a.toml"),
        PromptError(["é", "ß"]),
        DeviceError("no such device"),
        RunMismatchError(Path("runs/a"), [Difference("seed", 1, 2)]),
        CorpusError("too short", Path("a.txt")),
        ContractError(
            RegisteredComponent("k", Component("c", NoOptions, dict), Plugin("p", "d", "1")), "no"
        ),
        RunLockedError(Path("runs/a"), 7),
        CorruptFileError(Path("a"), "it changed"),
        TrainingError("the loss is no number", step=3),
        Interrupted("stopped", exit_code=143),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_from_another_process_as_it_was_raised(error):
    """Pools of processes pickle it; one that cannot be made again breaks the pool."""
    error.__dict__["source"] = "prompts[3]"  # as it is when its place is added
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), again.args, vars(again)) == (type(error), error.args, vars(error))


def outside():
    """What belongs to the whole process."""
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    chance = random.getstate(), np.random.get_state()[1].tobytes()
    logs = logging.root.level, list(logging.root.handlers)
    places = sys.stdout, sys.stderr, os.getcwd(), dict(os.environ)
    return [*places, *signals, *chance, *logs, list(warnings.filters), torch.get_num_threads()]


def test_threads_of_a_program_leave_its_process_as_it_was(finished_run, tiny_pipeline, tmp_path):
    """They read a plugin's file, load, generate and train at once; what is written meanwhile is the
    program's own.
    """
    (tmp_path / "mine.py").write_text(
        "import threading\nfrom textgen import Component, NoOptions, hookimpl\n"
        "threading.Event().wait(0.02)\n@hookimpl\ndef textgen_samplers():\n"
        "    return [Component('mine', NoOptions, lambda config, context: None)]\n"
    )
    tables, before = tiny_pipeline(), outside()
    together = threading.Barrier(8)

    def work(index):
        together.wait(60)
        textgen.PluginSet().register_file(tmp_path / "mine.py")
        if index < 2:
            textgen.run(tables, output=tmp_path / str(index))
        texts = [textgen.load(finished_run).generate("the ").text for _ in range(4)]
        return "".join(dict.fromkeys(texts))

    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(work, range(8)))
    assert outside() == before
    assert texts == {textgen.load(finished_run).generate("the ").text}
