"""The tutorial of docs/writing-plugins.md, followed to the letter: what it scaffolds and edits
passes and runs.
"""

import re
from pathlib import Path

import pytest
from commands import run_python, run_textgen
from installing import install

PAGE = Path(__file__).parents[2] / "docs/writing-plugins.md"
TESTING = Path(__file__).parents[2] / "docs/testing-plugins.md"
NEW_PLUGIN = re.compile(r"^\$ textgen (new-plugin (textgen-\S+) --kind \S+)$", re.MULTILINE)
FILE = re.compile(r"^```\w+\n# file: (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def replaced():
    """The files of the package that the page replaces, in its order."""
    return dict(FILE.findall(NEW_PLUGIN.split(PAGE.read_text(encoding="utf-8"))[-1]))


def scaffold(folder):
    """The package as the page's command writes it."""
    ((arguments, name),) = NEW_PLUGIN.findall(PAGE.read_text(encoding="utf-8"))
    done = run_textgen(*arguments.split(), folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / name


@pytest.mark.slow
def test_the_sampler_works_and_every_step_to_it_runs_and_is_typed(tmp_path):
    """With the option that the page adds, and with the examples of the page on testing."""
    project = scaffold(tmp_path)
    for number, (path, text) in enumerate(replaced().items()):
        (project / path).write_text(text, encoding="utf-8")
        site = install(project, tmp_path / str(number))
        plain = run_textgen("run", "pipeline.toml", folder=project, site=[site])
        assert plain.returncode == 0, plain.stderr
        checked = run_python("-m", "mypy", "--strict", "textgen_steady", "tests", folder=project)
        assert checked.returncode == 0, checked.stdout
    examples = re.findall(
        r"^```python\n(.*?)^```", TESTING.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(examples) == 4
    for number, example in enumerate(examples):
        (project / f"tests/test_page_{number}.py").write_text(example, encoding="utf-8")
    pytests = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    tested = run_python(*pytests, folder=project, site=[site])
    assert tested.returncode == 0, tested.stdout
    harsh = run_textgen(
        "run", "pipeline.toml",
        "--set", 'sampler=[{type="steady", window=20, penalty=50.0, fading=0.0}]',
        folder=project, site=[site],
    )  # fmt: skip
    assert harsh.returncode == 0, harsh.stderr
    text = harsh.stdout.removesuffix("\n")
    assert text != plain.stdout
    assert all(text[i] not in text[i - 10 : i] for i in range(10, len(text)))
