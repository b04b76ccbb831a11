"""What stops a run: one signal after a checkpoint, a second one at once."""

import signal

import pytest
from commands import run_textgen, running, wait_for
from installing import write_package
from small_run import ENDLESS

import textgen

pytestmark = pytest.mark.unix


@pytest.mark.fault(5)
@pytest.mark.fault(8)
@pytest.mark.fault(9)
def test_signals_stop_after_a_checkpoint_and_the_same_command_goes_on(folder):
    steps = [0]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with running(*ENDLESS, folder=folder) as run:
            first = int(wait_for(run, ", step ").partition("step ")[2].partition("/")[0])
            locked = run_textgen(*ENDLESS, folder=folder) if len(steps) == 1 else None
            run.process.send_signal(number)
            ended, stdout, stderr = run.end()
        if locked is not None:
            assert locked.returncode == 1
            assert f"is in use by process {run.process.pid}" in locked.stderr
        assert (ended, stdout) == (code, ""), stderr
        assert "Traceback" not in stderr
        steps.append(int(stderr.rpartition("interrupted after step ")[2].partition(" ")[0]))
        assert steps[-2] < first <= steps[-1]
        assert (folder / f"runs/p/checkpoints/step-{steps[-1]:06d}/manifest.json").is_file()
    rows = [row["step"] for row in textgen.summarize(folder / "runs/p").metrics()]
    assert rows == list(range(1, len(rows) + 1))


PATIENT = """
import sys
import attrs, numpy as np
from textgen import Component, hookimpl, option
from textgen.events import StepDone
from textgen.protocols import TrainerState

@attrs.frozen
class Config:
    "Waits for a line on stdin."
    early: bool = option(False, help="wait before training")

def build(config, context):
    if config.early:
        print("still here", file=sys.stderr, flush=True)
        sys.stdin.readline()
    return Patient()

class Patient:
    def train(self, model, data, context):
        while sys.stdin.readline():
            print("still here", file=sys.stderr, flush=True)
        yield StepDone(step=1, steps=1, epoch=1, loss=1.0, tokens=1)
    def state(self):
        return TrainerState()
    def load_state(self, state):
        pass

@hookimpl
def textgen_trainers():
    return [Component("patient", Config, build)]
"""


@pytest.fixture
def site(folder):
    """A folder in which a trainer is installed that waits."""
    write_package(folder / "site", "patient", PATIENT)
    return folder / "site"


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    "second", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_second_signal_stops_at_once(folder, site, second):
    command = ("run", "p.toml", "--set", 'trainer={type="patient"}')
    with running(*command, folder=folder, site=[site], piped=True) as run:
        wait_for(run, "training on")
        for number in (None, signal.SIGINT):
            if number is not None:
                run.process.send_signal(number)
                wait_for(
                    run,
                    "again to interrupt at once, which loses the steps since the last checkpoint",
                )
            run.stdin.write("\n")  # it answers only once it has taken the signal
            run.stdin.flush()
            wait_for(run, "still here")
        run.process.send_signal(second)
        code, _, stderr = run.end()
    if second is signal.SIGINT:
        assert stderr.endswith("textgen: interrupted\n")
    assert code == (130 if second is signal.SIGINT else -signal.SIGTERM)


def test_ctrl_c_before_training_stops_at_once(folder, site):
    trainer = 'trainer={type="patient", early=true}'
    with running("run", "p.toml", "--set", trainer, folder=folder, site=[site], piped=True) as run:
        wait_for(run, "still here")
        run.process.send_signal(signal.SIGINT)
        code, stdout, stderr = run.end()
    assert (code, stdout) == (130, "")
    assert stderr.removeprefix("still here\n").strip() == "textgen: interrupted"
