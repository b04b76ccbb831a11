"""Folders that somebody made who means harm, given to each command that opens one."""

import os
import shutil
import time

import pytest

SECRET = "what nobody else should read"
CODE = "import pathlib; pathlib.Path({!r}).write_text('code of the folder has run')"
FILES = ("run.json", "pipeline.toml", "tokenizer.json", "model.safetensors", "metrics.jsonl")
MODULES = ("click", "conftest", "json", "sitecustomize", "textgen", "usercustomize")


def code(run, outside):
    for name in MODULES:
        (run / f"{name}.py").write_text(CODE.format(str(outside.parent / "has-run")))
    (run / "code.pth").write_text(CODE.format(str(outside.parent / "has-run")))
    (run / "numpy").mkdir()
    shutil.copy(run / "click.py", run / "numpy/__init__.py")


def instead(make):
    """What spoils the record, the pipeline, or all other files of a run."""

    def spoil(names):
        def changed(run, outside):
            for name in names:
                (run / name).unlink(missing_ok=True)
                make(run / name, outside)

        return changed

    return {"record": spoil(FILES[:1]), "pipeline": spoil(FILES[1:2]), "others": spoil(FILES[2:])}


def hole(path, outside):
    with path.open("wb") as file:
        file.truncate(20 << 30)


KINDS = {
    "link": lambda path, outside: path.symlink_to(outside / "secret"),
    "link-to-itself": lambda path, outside: path.symlink_to(path.name),
    "device": lambda path, outside: path.symlink_to("/dev/zero"),
    "pipe": lambda path, outside: os.mkfifo(path),
    "folder": lambda path, outside: path.mkdir(),
    "hole": hole,
    "surrogate": lambda path, outside: path.write_text(r'{"a": "\ud800"}'),
    "nested": lambda path, outside: path.write_text("[" * 100_000),
    "digits": lambda path, outside: path.write_text(f"a = {'1' * 200_000}"),
    "nan": lambda path, outside: path.write_text('{"step": NaN, "files": Infinity}'),
}
HOSTILE = {
    "code": code,
    "bytes-in-names": lambda run, outside: [
        (run / os.fsdecode(name)).write_text("a text") for name in (b"caf\xe9.txt", b"\xff.md")
    ],
    "linked-checkpoints": lambda run, outside: [
        shutil.rmtree(run / "checkpoints", ignore_errors=True),
        (run / "checkpoints").symlink_to(outside),
    ],
    **{f"{kind}-{of}": made for kind, make in KINDS.items() for of, made in instead(make).items()},
}

# The others are left to `pytest -m slow`: six commands take half a second.
QUICK = (
    "code",
    "bytes-in-names",
    "linked-checkpoints",
    "link-others",
    "pipe-record",
    "hole-others",
)


@pytest.fixture
def outside(tmp_path):
    """A folder that is not the stranger's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text(SECRET)
    (tmp_path / "text.txt").write_text("the hour of the clock struck, and the hall smiled.\n" * 20)
    return tmp_path / "outside"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes of this kind")
@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in HOSTILE],
)
def test_each_command_ends_and_follows_nothing(textgen, finished_run, tmp_path, outside, name):
    shutil.copytree(finished_run, tmp_path / "run")
    HOSTILE[name](tmp_path / "run", outside)
    for command in (
        ("doctor", "run"),
        ("generate", "run", "--prompt", "the ", "--max-new-tokens", "2"),
        ("evaluate", "run", "text.txt"),
        ("init", "text.txt", "--start", "./run", "--minutes", "0.02"),
        ("run", "run/pipeline.toml", "-o", "run"),
    ):
        if name == "pipe-pipeline" and command[0] == "run":
            continue  # `textgen run <(…)` reads a pipe that is named
        begun = time.monotonic()
        done = textgen(*command, cwd=tmp_path)
        assert time.monotonic() - begun < 30, command
        assert done.code in (0, 1, 2), (command, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)
        assert SECRET not in done.stdout + done.stderr, command
    assert not (tmp_path / "has-run").exists()
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == SECRET
