"""The command `plugins check`."""

import pytest
from commands import run_textgen
from installing import write_package

from textgen.testing import STATEMENTS


@pytest.mark.slow
def test_plugins_check_prints_a_line_for_each_check(tmp_path):
    done = run_textgen("plugins", "check", "observers", folder=tmp_path)
    lines = done.stdout.splitlines()
    assert "ok       observer 'metrics' of textgen-engine: observer-resumed" in lines
    assert [line for line in lines if not line.startswith("ok       observer ")] == []
    *warnings, counts = done.stderr.splitlines()
    assert (done.returncode, counts) == (0, f"{len(lines)} ok, 0 failed, 0 skipped")
    assert all("early-stopping" in warning for warning in warnings)  # a run with nothing held out
    assert list(tmp_path.iterdir()) == []
    one = run_textgen("plugins", "check", "Textgen_Engine:logit-bias", folder=tmp_path)
    assert one.stdout == (
        "FAILED   sampler 'logit-bias' of textgen-engine: nothing checked it: it has no default "
        "for logit-bias.bias; give it --set NAME.KEY=VALUE, --tokenizer, --corpus or --start\n"
    )
    assert one.returncode == 1


def sampler(call, name="bad", top=""):
    """A module with one sampler."""
    return f"""{top}
from textgen import Component, NoOptions, hookimpl
@hookimpl
def textgen_samplers():
    return [Component({name!r}, NoOptions, lambda config, context: lambda logits, history: {call})]
"""


@pytest.fixture
def check(tmp_path):
    """`plugins check NAME` where the package textgen-NAME is this module:
    `check("bad", source)`.
    """

    def run(name, source):
        write_package(tmp_path / "site", name, source)
        return run_textgen("plugins", "check", name, folder=tmp_path, site=[tmp_path / "site"])

    return run


@pytest.mark.slow
def test_plugins_check_tells_a_slow_plugin_what_makes_it_slow(check):
    # longer than a list of plugins waits
    top = "import torch\nimport threading\nthreading.Event().wait(0.6)"
    done = check("slow", sampler("logits", top=top))
    said = "importing textgen_slow loads torch and numpy; import it inside build"
    assert (done.returncode, said in done.stdout) == (1, True)


def test_plugins_check_notes_a_clash(tmp_path, check):
    write_package(tmp_path / "site", "two", sampler("logits / 2", "shared"))
    done = check("one", sampler("logits / 2", "shared"))
    assert done.returncode == 0, done.stdout
    said = "note: sampler 'shared' is also offered by textgen-two; users write textgen-one:shared\n"
    assert said in done.stdout


def test_plugins_check_fails_with_sentence_and_link(check):
    done = check("bad", sampler("logits[:, 1:]"))
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    statement = STATEMENTS["sampler-shape"]
    assert line.startswith(
        f"FAILED   sampler 'bad' of textgen-bad: sampler-shape: {statement.sentence} Seen: logits"
    )
    assert " ".join(done.stdout.split(line)[1].split()) == statement.advice


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("from textgen import Component", "it offers nothing: there is no hook in it, marked with"),
    ],
)
def test_plugins_check_says_why_a_plugin_is_left_out(check, source, said):
    done = check("mute", source)
    assert (done.returncode, done.stderr) == (1, "0 ok, 1 failed, 0 skipped\n")
    start = f"FAILED   plugin 'mute' (textgen-mute 1.0): {said}"
    assert done.stdout.startswith(start)


def test_plugins_check_shows_warnings_and_keeps_what_is_printed(check):
    call = "print('here') or __import__('warnings').warn('too loud', DeprecationWarning) or logits"
    done = check("loud", sampler(call))
    assert done.returncode == 1
    assert done.stderr.count("textgen: warning: too loud\n") == 1
    assert "component-quiet: A component prints nothing" in done.stdout
    assert "here" not in done.stdout.splitlines()


def test_plugins_check_notes_a_name_of_textgens_own(check):
    done = check(
        "old",
        "import click\nfrom textgen import Component, NoOptions, hookimpl\n"
        "def build(config, context):\n    return click.Command('run', help='Runs.')\n"
        "@hookimpl\ndef textgen_commands():\n    return [Component('run', NoOptions, build)]\n",
    )
    said = "note: command 'run' is also offered by textgen; users write textgen-old:run\n"
    assert said in done.stdout


TWO_OF_ONE_NAME = """
import attrs
import click
from textgen import Component, NoOptions, hookimpl, option

@attrs.frozen
class Measured:
    "Measures a run."
    run: str = option(help="the run")

class Figure:
    def __init__(self, run):
        self.run = run
    def add(self, scores):
        pass
    def value(self):
        return 0.5

def command(config, context):
    return click.Command("mauve", help="Compare two texts.")

@hookimpl
def textgen_commands():
    return [Component("mauve", NoOptions, command)]

@hookimpl
def textgen_kinds():
    return {"metric": [Component("mauve", Measured, lambda config, context: Figure(config.run))]}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mauve", "metric:mauve"])
def test_options_are_for_the_kind_that_has_them(tmp_path, name):
    write_package(tmp_path / "site", "mauve", TWO_OF_ONE_NAME)
    given = ("plugins", "check", "mauve", "--set", f"{name}.run=runs/base")
    done = run_textgen(*given, folder=tmp_path, site=[tmp_path / "site"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok       metric 'mauve'" in done.stdout
    assert "ok       command 'mauve'" in done.stdout


def test_a_package_without_an_entry_point_is_told_so(tmp_path):
    write_package(tmp_path / "site", "noep", "")
    (entry_points,) = (tmp_path / "site").glob("*/entry_points.txt")
    entry_points.unlink()
    given = ("plugins", "check", "textgen-noep")
    done = run_textgen(*given, folder=tmp_path, site=[tmp_path / "site"])
    assert done.returncode == 2
    assert "textgen-noep 1.0 is installed, and has no entry point" in done.stderr
