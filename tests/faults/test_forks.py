"""What a forked process has no threads for."""

import subprocess
import sys

import pytest

FORKED = """
import asyncio, os, sys, textgen
generator, kind = textgen.load(sys.argv[1]), sys.argv[2]

async def in_a_child():
    stream = await generator.astream("the ", max_new_tokens=None)
    await anext(stream)
    fork()

def fork():
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        os._exit(0)
    try:
        train() if kind == "train" else generating.send(None)
    except textgen.UsageError as error:
        os._exit(3 if "forked" in str(error) else 4)

def train():
    model = {"type": "rnn", "hidden_size": 8}
    trainer = {"type": "sgd", "length": "2 steps", "batch_size": 4}
    textgen.train(corpus="the clock. " * 99, tokenizer="char", model=model, trainer=trainer,
        data={"window_length": 8}, device="cpu")

generating = generator.agenerate("the ", max_new_tokens=3)
if kind == "train":
    train()
    fork()
else:
    asyncio.run(in_a_child())
"""


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize("kind", ["train", "generate"])
def test_what_a_forked_process_has_no_threads_for_is_an_error(finished_run, kind, tmp_path):
    (tmp_path / "forked.py").write_text(FORKED)
    command = [sys.executable, str(tmp_path / "forked.py"), str(finished_run), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
