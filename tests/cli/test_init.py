"""The command init: how a text is encoded."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgen import CorpusError, Engine
from textgen_builtins.starter.texts import look_at

STORY = "the clock struck nine and nobody came.\n" * 90


@pytest.mark.parametrize(
    ("data", "written", "said"),
    [
        (STORY.encode(), None, ""),
        (STORY.encode("utf-8-sig"), None, ""),
        (STORY.encode("utf-16"), "utf-16", ""),
        (b"\xfe\xff" + STORY.encode("utf-16-be"), "utf-16", ""),
        (STORY.encode("utf-32"), "utf-32", ""),
        ((STORY + "é").encode("cp1252"), None, "option encoding"),
    ],
    ids=["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252"],
)
def test_init_finds_out_how_a_text_is_encoded(
    textgen: Callable[..., Any], tmp_path: Path, data: bytes, written: str | None, said: str
) -> None:
    (tmp_path / "my.txt").write_bytes(data)
    done = textgen("init", "my.txt", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(done.stderr.splitlines()) == (2 if said else 1)
    assert said in done.stderr
    pipeline = (tmp_path / "my.toml").read_text(encoding="utf-8")
    assert tomllib.loads(pipeline)["corpus"].get("encoding") == written
    assert ("# encoding" in pipeline) == bool(said)
    if not said:
        read = "".join(Engine().read_corpus({**tomllib.loads(pipeline)["corpus"], "path": str(tmp_path / "my.txt")}))
        assert read == STORY


def test_init_finds_the_one_file_that_is_encoded_otherwise(textgen: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name, encoding in (("a.txt", "utf-8"), ("b.txt", "utf-16"), ("c.txt", "utf-8")):
        (tmp_path / "texts" / name).write_text(STORY, encoding=encoding)
    done = textgen("init", "texts", cwd=tmp_path)
    assert (done.code, "texts/b.txt is utf-16" in done.stderr) == (0, True)
    (tmp_path / "book.txt").write_bytes(b"%PDF-1.7\n" + b"x" * 5000)
    refused = textgen("init", "book.txt", cwd=tmp_path)
    assert (refused.code, "is a PDF" in refused.stderr) == (2, True)
    assert not (tmp_path / "book.toml").exists()


def test_a_corpus_with_a_mark_says_its_encoding(
    textgen: Callable[..., Any], write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipeline = write_pipeline(tiny_pipeline())
    (tmp_path / "corpus.txt").write_text(STORY, encoding="utf-16")
    failed = textgen("run", pipeline, cwd=tmp_path)
    assert (failed.code, failed.stdout) == (1, "")
    assert "set the option encoding to utf-16" in failed.stderr
    assert textgen("run", pipeline, "--set", "corpus.encoding=utf-16", cwd=tmp_path).code == 0


def test_init_of_json_lines_and_of_folders(textgen: Callable[..., Any], tmp_path: Path) -> None:
    line = '{"id": "a long name", "body": "the clock struck nine and nobody came"}\n'
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/part.JSONL").write_text(line * 90)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/CH1.MD").write_text(STORY)
    expected = {"lines": {"documents": "jsonl", "field": "body"}, "notes": {"glob": "**/*.md"}}
    for name, options in expected.items():  # without the rest of init, which measures how fast this machine is
        made = tomllib.loads(look_at(str(tmp_path / name), tmp_path).corpus)
        assert made == {"type": "file", "path": name, **options}
        assert list(Engine().read_corpus({**made, "path": str(tmp_path / name)}))
    (tmp_path / "notes/CH1.MD").rename(tmp_path / "notes/ch1.odd")
    refused = textgen("init", "notes", cwd=tmp_path)
    assert (refused.code, "no file with one of the suffixes .txt, .md, .jsonl" in refused.stderr) == (2, True)


def test_utf_16_without_a_mark_is_told(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_bytes(STORY.encode("utf-16-le"))
    with pytest.raises(CorpusError, match="no byte order mark, and utf-16 needs one; set option encoding to utf-16-le"):
        list(Engine().read_corpus({"type": "file", "path": str(tmp_path / "my.txt"), "encoding": "utf-16"}))
