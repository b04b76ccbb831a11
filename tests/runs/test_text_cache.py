"""A text is read and encoded once: runs after that take its tokens from the cache, whatever happens
to that.
"""

import importlib
import json
import os
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from commands import run_python
from shelf import LONG_AGO, Shelf, WatchedText
from small_run import TEXT

import textgen
from textgen.files.cache import encoded_texts as cache
from textgen_builtins.commands.cache import command


def weights(run):
    return (run.path / "model.safetensors").read_bytes()


def textgen_cache(*arguments):
    return CliRunner().invoke(command, arguments, catch_exceptions=False).output


def run_script(shelf, script):
    """In a process of its own, with the same cache."""
    (shelf.folder / "script.py").write_text(script)
    tests = Path(__file__).parents[1]
    return run_python("script.py", folder=shelf.folder, site=[tests, tests / "runs"])


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path / "cache"))
    return Shelf(tmp_path)


def test_a_text_is_read_twice_and_never_again(shelf):
    path, given = shelf.write(), {"documents": True}
    first = shelf.run(path, **given)
    assert shelf.reads == 2, "to fit and to encode"
    with pytest.raises(textgen.Interrupted):
        shelf.run(path, "second", cancelled=lambda: True, **given)
    second = shelf.run(path, "second", **given)
    assert (second.outcome, shelf.run(path, "second", **given).outcome) == ("resumed", "skipped")
    assert shelf.reads == 2
    assert weights(second) == weights(first)
    [entry] = cache().entries()
    tokens, tokenizer = np.fromfile(entry.path, np.uint8), second.generator.tokenizer
    assert np.count_nonzero(tokens == tokenizer.end_id) == 61
    assert tokenizer.decode(tokens) == TEXT
    other = shelf.run(path, tokenizer={"type": "char", "lower_case": True}, **given)
    assert shelf.reads == 4
    assert weights(other) != weights(first)


@pytest.mark.skipif(os.name == "nt", reason="the time of a change can be set there")
def test_a_text_that_was_changed_is_read_again_whatever_its_size_and_time(shelf):
    path = shelf.write()
    first = shelf.run(path)
    shelf.write(TEXT.replace("ravens", "swifts"))
    assert path.stat().st_size == len(TEXT)
    second = shelf.run(path)
    assert shelf.reads == 4
    assert weights(second) != weights(first)
    shelf.write()  # as it was
    assert weights(shelf.run(path)) == weights(first)
    with pytest.raises(textgen.RunMismatchError):
        shelf.run(path, str(second.path))


def test_the_code_around_another_component_counts(shelf, monkeypatch):
    code = shelf.folder / "around_text.py"
    code.write_text("import attrs\n\n@attrs.define\nclass Around:\n    inner: object\n")
    monkeypatch.syspath_prepend(shelf.folder)
    around = importlib.import_module("around_text").Around
    for name in ("read", "sources"):
        monkeypatch.setattr(
            around, name, lambda self, name=name: getattr(self.inner, name)(), False
        )
    monkeypatch.setattr("shelf.WatchedText", lambda *given: around(WatchedText(*given)))
    path = shelf.write()
    for reads in (2, 2, 4):
        if reads == 4:
            code.write_text("# edited\n")
        shelf.run(path)
        assert shelf.reads == reads


def test_a_text_that_changes_while_it_is_read_is_not_cached(shelf):
    path = shelf.write()

    def change():
        if shelf.reads == 2:
            shelf.write(TEXT + "And one more.\n")

    shelf.reading = change
    with pytest.raises(textgen.CorpusError):
        shelf.run(path)
    assert list(cache().entries()) == []
    shelf.run(path)
    [entry] = cache().entries()
    assert entry.size == len(TEXT) + 14


# Damage.


def put(path, make):
    path.unlink()
    make(path)


def record_with(**change):
    return "*.json", lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | change))


DAMAGE = {
    "half of the tokens": ("*-tokens.bin", lambda path: os.truncate(path, 100)),
    "no tokens": ("*-tokens.bin", Path.unlink),
    "a pipe for tokens": ("*-tokens.bin", lambda path: put(path, os.mkfifo)),
    "a pipe for a record": ("*.json", lambda path: put(path, os.mkfifo)),
    "an empty record": ("*.json", lambda path: path.write_bytes(b"")),
    "a list for a record": ("*.json", lambda path: path.write_text("[1]")),
    "another file": record_with(name="../../text.txt"),
    "another vocabulary": record_with(vocabulary={"characters": 3}),
    "another digest": record_with(corpus={"sha256": "x"}),
}


@pytest.mark.unix
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_again(shelf, damage):
    path = shelf.write()
    first = shelf.run(path)
    pattern, spoil = DAMAGE[damage]
    [file] = cache().folder.glob(pattern)
    spoil(file)
    for _ in range(2):
        assert weights(shelf.run(path)) == weights(first)
        assert shelf.reads == 4


@pytest.mark.unix
def test_what_killed_processes_left_goes_with_the_next_text(shelf):
    path = shelf.write()
    script = """
import os, signal
from pathlib import Path
from shelf import Shelf
shelf = Shelf(Path.cwd())
shelf.reading = lambda: os.kill(os.getpid(), signal.SIGKILL) if shelf.reads == 2 else None
shelf.run(shelf.folder / "text.txt", "killed")
"""
    done = run_script(shelf, script)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [left] = cache().folder.iterdir()
    os.utime(left, (LONG_AGO, LONG_AGO))
    shelf.run(path)
    assert not left.exists()
    assert len(list(cache().entries())) == 1


def test_what_was_used_longest_ago_goes_first(shelf, monkeypatch):
    paths = [shelf.write(TEXT.replace("Once", f"Once{n}"), f"{n}.txt") for n in range(3)]
    monkeypatch.setattr("textgen.files.cache._MAX_BYTES", 8000)  # two texts and a half
    for age, number in ((300, 0), (200, 1), (100, 0), (0, 2)):
        shelf.run(paths[number])
        used = next(cache().entries())
        os.utime(used.record, (used.used - age, used.used - age))
    names = [Path(entry.facts["text"]["path"]).name for entry in cache().entries()]
    assert names == ["2.txt", "0.txt"]


@pytest.mark.slow
def test_other_texts_are_not_in_memory_together(shelf):
    """A pretrained tokenizer makes the record of each text some megabytes."""
    for number in range(12):
        cache().add(f"{number}", "tokens", [b""], {"vocabulary": [*range(100_000)]})
    tracemalloc.start()
    shelf.run(shelf.write())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 25e6  # all of them take 46


def test_without_a_cache_runs_go_on_with_a_file_of_their_own(shelf, monkeypatch, caplog):
    path = shelf.write()
    (shelf.folder / "file").touch()
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(shelf.folder / "file"))
    assert weights(shelf.run(path)) == weights(shelf.run(path))
    assert "TEXTGEN_CACHE_DIR names another folder" in caplog.text


# The command.


def test_the_command_lists_and_clears(shelf):
    assert textgen_cache("--clear") == "removed 0 encoded texts, 0 B\n"
    shelf.run(shelf.write())
    listed = textgen_cache().splitlines()
    assert listed[0] == f"{cache().folder}: 1 encoded text, 3.2 kB"
    assert listed[1].endswith(f"watched {shelf.folder / 'text.txt'} char")
    assert listed[2].endswith("downloads: 0 downloads, 0 B")
    assert textgen_cache("--clear") == "removed 1 encoded text, 3.2 kB\n"
    assert list(cache().entries()) == []


def test_clearing_removes_nothing_that_textgen_did_not_write(shelf):
    """The cache may be a folder of the user's, with a folder `tokens` in it."""
    mine, tokens = shelf.folder / "mine", cache().folder
    mine.mkdir()
    (mine / "diary.txt").write_text("secret")
    tokens.mkdir(parents=True, mode=0o700)
    key = "0" * 64
    for name in (
        *("../essay.txt", "notes.txt", ".notes.tmp", "entry.json", "essay/data", f"{key}/text"),
        *(f"{key}.txt", "../downloads/book.txt", "../.hidden"),
    ):
        (tokens / name).parent.mkdir(parents=True, exist_ok=True)
        (tokens / name).write_text("mine")
    (tokens / f"{key}-link").symlink_to(mine / "diary.txt")

    def modes():
        return {path: os.lstat(path).st_mode for path in (shelf.folder / "cache").rglob("*")}

    for path in modes():
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    before = modes()
    shelf.run(shelf.write())
    assert textgen_cache("--clear").startswith("removed 1 encoded text,")
    assert textgen_cache("--clear", "--downloads") == "removed 0 downloads, 0 B\n"
    assert modes() == before
    assert (mine / "diary.txt").read_text() == "secret"
