"""A text is read and encoded once: runs after that take its tokens from the cache, whatever happens to that."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
from commands import environment
from shelf import TEXT, Shelf

import textgen
from textgen.files.cache import Cache


def cache() -> Cache:
    return Cache.of_user()


def weights(run: textgen.Run) -> bytes:
    assert run.path is not None
    return (run.path / "model.safetensors").read_bytes()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(tmp_path / "cache"))
    return Shelf(tmp_path)


def test_a_second_run_reads_nothing_and_learns_the_same(shelf: Shelf) -> None:
    path = shelf.write()
    first = shelf.run(path)
    assert shelf.reads == 3  # its beginning, to fit, to encode
    second = shelf.run(path)
    assert shelf.reads == 3
    assert second.outcome == "trained"
    assert weights(second) == weights(first)
    assert not list(shelf.folder.glob("run-*/tokens.bin"))
    without = shelf.run(path, tokenizer={"type": "char", "lower_case": True})
    assert shelf.reads == 6
    assert weights(without) != weights(first)


def test_a_skipped_run_reads_nothing_even_if_the_tokens_are_gone(shelf: Shelf) -> None:
    path = shelf.write()
    shelf.run(path, "run")
    [entry] = cache().entries()
    (entry.path / "data").unlink()
    assert shelf.run(path, "run").outcome == "skipped"
    assert shelf.reads == 3


def test_a_resumed_run_reads_nothing_or_encodes_once_if_the_tokens_are_gone(shelf: Shelf) -> None:
    path = shelf.write()

    whole = shelf.run(path)
    for clear, reads in ((False, 3), (True, 4)):
        with pytest.raises(textgen.Interrupted):
            shelf.run(path, f"resumed-{clear}", cancelled=lambda: True)
        assert shelf.reads == 3
        for entry in cache().entries() if clear else ():
            (entry.path / "data").write_bytes(b"")
        resumed = shelf.run(path, f"resumed-{clear}")
        assert (resumed.outcome, shelf.reads) == ("resumed", reads)
        assert weights(resumed) == weights(whole)


def test_no_file_of_the_corpus_is_opened_again(shelf: Shelf) -> None:
    """The built-in corpus, in a process that says what it opens: a second run, a skipped one, a report on novelty."""
    shelf.write()
    script = """
import sys, textgen
opened = []
sys.addaudithook(lambda name, given: opened.append(given[0]) if name == "open" else None)
tables = {"device": "cpu", "observer": [], "corpus": {"type": "file", "path": "text.txt"},
    "tokenizer": {"type": "char"}, "data": {"window_length": 16}, "model": {"type": "ngram"},
    "trainer": {"type": "count"}}
for output in ("a", "b", "b"):
    print(textgen.run(tables, output=output).outcome, sum(str(name).endswith("text.txt") for name in opened))
index = textgen.load("b").copy_index()
print(index.report("Once 1 ravens").longest, sum(str(name).endswith("text.txt") for name in opened))
"""
    (shelf.folder / "script.py").write_text(script)
    extra = {"TEXTGEN_CACHE_DIR": str(shelf.folder / "cache")}
    done = fork_server.run(["script.py"], shelf.folder, environment(extra=extra))
    assert done.stdout.splitlines() == ["trained 3", "trained 3", "skipped 3", "13 3"], done.stderr


@pytest.mark.skipif(os.name == "nt", reason="the time of a change can be set there")
def test_a_text_that_was_changed_is_read_again_whatever_its_size_and_time(shelf: Shelf) -> None:
    path = shelf.write()
    first = shelf.run(path)
    shelf.write(TEXT.replace("ravens", "swifts"))
    assert path.stat().st_size == len(TEXT)
    second = shelf.run(path)
    assert shelf.reads == 6
    assert weights(second) != weights(first)
    shelf.write()  # as it was
    assert weights(shelf.run(path)) == weights(first)
    assert shelf.reads == 8  # its tokens are still there
    with pytest.raises(textgen.RunMismatchError, match="corpus"):
        shelf.run(path, str(second.path))


def test_a_text_that_was_only_just_written_is_not_trusted(shelf: Shelf) -> None:
    """Another change within a tick of the clock would not show."""
    path = shelf.write()
    os.utime(path)
    shelf.run(path)
    shelf.run(path)
    assert shelf.reads == 5
    assert len(cache().entries()) == 1


def test_a_text_that_changes_while_it_is_read_is_not_cached(shelf: Shelf) -> None:
    path = shelf.write()

    def change() -> None:
        if shelf.reads == 3:
            shelf.write(TEXT + "And one more.\n")

    shelf.reading = change
    with pytest.raises(textgen.CorpusError, match="when it was read again"):
        shelf.run(path)
    assert cache().entries() == []
    shelf.run(path)
    [entry] = cache().entries()
    assert entry.facts["characters"] == len(TEXT) + 14


def test_documents_keep_their_ends(shelf: Shelf) -> None:
    path = shelf.write()
    first, second = (shelf.run(path, documents=True) for _ in range(2))
    assert shelf.reads == 3
    assert weights(first) == weights(second)
    [entry] = cache().entries()
    tokens = np.fromfile(entry.path / "data", np.uint8)
    end = second.generator.tokenizer.end_id
    assert int((tokens == end).sum()) == 61
    assert second.generator.tokenizer.decode(tokens) == TEXT


@pytest.mark.parametrize(("letters", "dtype"), [(200, np.uint8), (300, np.uint16)])
def test_tokens_take_as_few_bytes_as_the_vocabulary_allows(
    shelf: Shelf, letters: int, dtype: type
) -> None:
    text = "".join(map(chr, range(0x10000, 0x10000 + letters)))
    run = shelf.run(shelf.write(text * 2))
    [entry] = cache().entries()
    tokens = np.fromfile(entry.path / "data", dtype)
    assert len(tokens) == 2 * letters
    assert run.generator.tokenizer.decode(tokens) == text * 2


def test_fine_tuning_finds_the_tokens_of_its_own_vocabulary(shelf: Shelf) -> None:
    base = shelf.run(shelf.write(), "base")
    other = shelf.write(TEXT.lower(), "other.txt")
    changes = {"model": {"start": str(base.path)}}
    reads = shelf.reads
    first, second = (shelf.run(other, tokenizer={"type": "char"}, **changes) for _ in range(2))
    assert shelf.reads == reads + 3
    assert weights(first) == weights(second)


# Damage.


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bit of the tokens": ("*/data", flip),
    "half of the tokens": ("*/data", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "no tokens": ("*/data", Path.unlink),
    "a bit of the vocabulary": ("*/entry.json", flip),
    "an empty record": ("*/entry.json", lambda path: path.write_bytes(b"")),
    "another record": ("*/entry.json", lambda path: path.write_text('{"value": {}, "sha256": 3}')),
    "a bit of a note": ("*.json", flip),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_again(shelf: Shelf, damage: str) -> None:
    path = shelf.write()
    first = shelf.run(path)
    pattern, spoil = DAMAGE[damage]
    [file] = cache().folder.glob(pattern)
    spoil(file)
    assert weights(shelf.run(path)) == weights(first)
    assert shelf.reads > 3
    reads = shelf.reads
    assert weights(shelf.run(path)) == weights(first)
    assert shelf.reads == reads


@pytest.mark.parametrize("where", [1, 2, 3])
def test_a_run_that_was_killed_while_it_encoded_leaves_nothing_for_ever(
    shelf: Shelf, where: int
) -> None:
    path = shelf.write()
    (shelf.folder / "script.py").write_text(f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from shelf import Shelf
shelf = Shelf(Path.cwd())
shelf.reading = lambda: os.kill(os.getpid(), signal.SIGKILL) if shelf.reads == {where} else None
shelf.run(shelf.folder / "text.txt", "killed")
""")
    extra = {"TEXTGEN_CACHE_DIR": str(shelf.folder / "cache")}
    done = fork_server.run(["script.py"], shelf.folder, environment(extra=extra))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert bool(list(cache().folder.glob(".partial-*"))) == (where == 3)
    for _ in range(2):
        shelf.run(path)
    assert shelf.reads == 3
    assert [path.name for path in cache().folder.iterdir() if path.name.startswith(".")] == []
    assert len(cache().entries()) == 1


def test_what_the_cache_names_is_on_the_disk_before(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file and folder is synced before it is renamed into the cache, and the cache after."""
    synced, named = set(), []

    def sync(descriptor: int, real: Any = os.fsync) -> None:
        real(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def rename(source: Any, target: Any, real: Any) -> None:
        if Path(target).parent == cache().folder and not Path(target).name.startswith(".removed-"):
            inside = [path for path in Path(source).rglob("*") if not path.name.startswith(".use-")]
            named.append(
                (
                    Path(target).suffix,
                    {path.stat().st_ino for path in [Path(source), *inside]} <= synced,
                )
            )
            synced.discard(cache().folder.stat().st_ino)
        real(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, functools.partial(rename, real=getattr(os, name)))
    shelf.run(shelf.write())
    assert sorted(named) == [("", True), (".json", True)]
    assert cache().folder.stat().st_ino in synced


# Several runs.


def test_two_runs_at_once_encode_once(shelf: Shelf) -> None:
    path, both = shelf.write(), threading.Event()
    shelf.reading = lambda: None if shelf.reads > 1 else both.set() or threading.Event().wait(0.5)

    def second() -> textgen.Run:
        both.wait(300)
        return shelf.run(path, "second")

    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda run: run(), [lambda: shelf.run(path, "first"), second]))
    assert shelf.reads == 3
    assert weights(runs[0]) == weights(runs[1])


def test_two_processes_at_once_encode_once(shelf: Shelf) -> None:
    """Whichever comes first."""
    shelf.write()
    plugin = """
import time
from pathlib import Path
import textgen
class Slow:
    def sources(self):
        return [Path("text.txt")]
    def read(self):
        with open("log", "a") as log:
            log.write("read\\n")
        time.sleep(0.2)
        yield Path("text.txt").read_text()
@textgen.hookimpl
def textgen_corpora():
    return [textgen.Component("slow", textgen.NoOptions, lambda config, context: Slow())]
"""
    (shelf.folder / "slow.py").write_text(plugin)
    (shelf.folder / "p.toml").write_text(
        'device = "cpu"\nobserver = []\n[corpus]\ntype = "slow"\n[tokenizer]\ntype = "char"\n[data]\n'
        'window_length = 16\n[model]\ntype = "ngram"\n[trainer]\ntype = "count"\n[generate]\nmax_new_tokens = 20\n'
    )
    extra = {"TEXTGEN_CACHE_DIR": str(shelf.folder / "cache")}

    def run(name: str) -> subprocess.CompletedProcess[str]:
        command = ["-m", "textgen", "--plugin", "slow.py", "run", "p.toml", "-o", name]
        return fork_server.run(command, shelf.folder, environment(extra=extra))

    with ThreadPoolExecutor() as pool:
        one, other = pool.map(run, ["one", "other"])
    assert one.stdout == other.stdout != "", one.stderr + other.stderr
    assert (shelf.folder / "log").read_text().count("read") == 3


def test_what_was_used_longest_ago_goes_first_but_nothing_in_use(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [shelf.write(TEXT.replace("Once", f"Once{n}"), f"{n}.txt") for n in range(4)]
    monkeypatch.setenv("TEXTGEN_CACHE_SIZE", "12kB")  # two texts and a half

    def texts() -> list[str]:
        return sorted(Path(entry.facts["text"]["path"]).name for entry in cache().entries())

    for number in (0, 1, 0, 2):
        shelf.run(paths[number])
    assert texts() == ["0.txt", "2.txt"]

    class Nested:
        def observe(self, event: Any) -> None:
            if isinstance(event, textgen.events.RunStarted):
                shelf.run(paths[1])
                shelf.run(paths[3])
                cache().clear()
                assert [entry.in_use for entry in cache().entries()] == [True]

    shelf.run(paths[2], observers=(Nested(),))
    assert texts() == ["2.txt"]
    assert not cache().entries()[0].in_use


def test_clearing_leaves_what_is_being_made(shelf: Shelf) -> None:
    path = shelf.write()
    shelf.reading = lambda: shelf.reads == 3 and cache().clear()
    shelf.run(path)
    assert len(cache().entries()) == 1


# Without a cache.


@pytest.mark.parametrize("why", ["too large", "no folder", "switched off"])
def test_without_a_cache_runs_go_on_with_a_file_of_their_own(
    shelf: Shelf, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = shelf.write()
    if why == "no folder":
        (shelf.folder / "file").touch()
        monkeypatch.setenv("TEXTGEN_CACHE_DIR", str(shelf.folder / "file"))
    else:
        monkeypatch.setenv("TEXTGEN_CACHE_SIZE", "1 kB" if why == "too large" else "0")
    seen = []

    class Watch:
        def observe(self, event: Any) -> None:
            seen.extend(shelf.folder.glob("run-*/tokens.bin"))

    with caplog.at_level(logging.WARNING, "textgen"):
        runs = [shelf.run(path, observers=(Watch(),)) for _ in range(2)]
    assert weights(runs[0]) == weights(runs[1])
    assert {file.parent.name for file in seen} == {"run-1", "run-2"}
    assert not list(shelf.folder.glob("run-*/tokens.bin"))
    assert ("TEXTGEN_CACHE" in caplog.text) == (why != "switched off")
    assert len(cache().entries() if why != "no folder" else []) == 0


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts a small file system"
)
def test_a_full_disk_under_the_cache_is_no_end(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    (shelf.folder / "cache").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(shelf.folder / "cache")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with caplog.at_level(logging.WARNING, "textgen"):
            run = shelf.run(shelf.write(TEXT * 20))
        assert run.outcome == "trained"
        assert "No space left" in caplog.text
        assert not list(cache().folder.glob(".partial-*"))
    finally:
        subprocess.run(["umount", str(shelf.folder / "cache")], check=True)


def test_a_wrong_size_is_said(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTGEN_CACHE_SIZE", "plenty")
    with pytest.raises(
        textgen.UsageError, match="TEXTGEN_CACHE_SIZE: expected a size such as 20GB"
    ):
        shelf.run(shelf.write())


# The command.


def test_the_command_lists_and_clears(shelf: Shelf) -> None:
    script = "import sys; from textgen.cli import main; main(sys.argv[1:])"

    def textgen_cache(*arguments: str) -> str:
        extra = {"TEXTGEN_CACHE_DIR": str(shelf.folder / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", script, "cache", *arguments],
            env=environment(extra=extra),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    shelf.run(shelf.write())
    (shelf.folder / "cache/book.txt").write_text("a download")
    listed = json.loads(textgen_cache("--json"))
    assert [text["text"]["path"] for text in listed["texts"]] == [str(shelf.folder / "text.txt")]
    assert listed["limit"] == 10 * 10**9
    assert "text.txt, char" in textgen_cache()
    assert json.loads(textgen_cache("clear", "--older-than", "1h", "--json"))["texts"] == []
    assert textgen_cache("clear").startswith("removed 1 encoded text,")
    assert [path.name for path in (shelf.folder / "cache").iterdir() if path.is_file()] == [
        "book.txt"
    ]
    assert cache().entries() == []
    shelf.run(shelf.folder / "text.txt")
    assert shelf.reads == 6
