"""What is a document of the corpus `file`, and how wrong JSON lines are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textgen import DOCUMENT_END, CorpusError, Engine
from textgen.documents import split_documents

PIECE = 1 << 20  # files are read in pieces of a mebibyte


def read(path: Path, **options: Any) -> list[str]:
    """The documents of files, each in one piece."""
    pieces = Engine().read_corpus({"type": "file", "path": str(path), **options})
    return ["".join(document) for document in split_documents(pieces)]


def test_a_file_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second\n")
    (tmp_path / "a.txt").write_text("first\nand more")
    (tmp_path / "c.txt").write_text("")
    assert read(tmp_path, documents="file") == ["first\nand more", "second\n"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_is_a_document_and_an_empty_one_is_none(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(
        b"one\r\ntwo\n\n \n" + "drei\u2028vier".encode() + end.encode()
    )
    assert read(tmp_path / "a.txt", documents="line") == ["one", "two", " ", "drei\u2028vier"]


def test_lines_may_be_longer_than_pieces_and_are_not_gathered(tmp_path: Path) -> None:
    long = "a" * (3 * PIECE)
    (tmp_path / "a.txt").write_text(f"{long}\nshort\n{long}")
    assert read(tmp_path / "a.txt", documents="line") == [long, "short", long]
    pieces = Engine().read_corpus(
        {"type": "file", "path": str(tmp_path / "a.txt"), "documents": "line"}
    )
    assert max(len(piece) for piece in pieces if piece is not DOCUMENT_END) <= PIECE


def test_json_lines(tmp_path: Path) -> None:
    texts = ["one\ntwo", "é\u2028", "x" * (2 * PIECE), ""]
    lines = [
        json.dumps({"body": text, "id": 3}, ensure_ascii=place % 2 == 0)
        for place, text in enumerate(texts)
    ]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    (tmp_path / "a.txt").write_text("no JSON")
    assert read(tmp_path, documents="jsonl", field="body") == texts[:3]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a}', "line 3 is not JSON: Unterminated string starting at (column 10)"),
        ("[" * 100_000, "line 3 is not JSON"),
        ('"text"', "line 3 is not a JSON object"),
        (
            '{"title": "a", "body": "b"}',
            "line 3 has no field 'text', but 'title', 'body'; see the option field",
        ),
        ('{"text": null}', "line 3: its field 'text' is of type NoneType, and must be a text"),
    ],
)
def test_wrong_json_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "good"}}\n\n{line}\n')
    with pytest.raises(CorpusError) as caught:
        read(path, documents="jsonl")
    assert said in str(caught.value)
    assert caught.value.path == path


def test_a_line_with_many_fields_is_named_in_few_words(tmp_path: Path) -> None:
    line = {f"k{number}": 1 for number in range(200_000)}
    (tmp_path / "a.jsonl").write_text(json.dumps({"x" * 999: 1, **line}))
    with pytest.raises(CorpusError, match=r"but 'x{40}…', 'k0', .* and 199,996 more") as caught:
        read(tmp_path / "a.jsonl", documents="jsonl")
    assert len(str(caught.value)) < 400


def test_a_line_that_is_too_long_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" + "[]," * (6 * PIECE))
    with pytest.raises(CorpusError, match="a line of it is longer than 16,777,216 characters"):
        read(tmp_path / "a.jsonl", documents="jsonl")


def test_half_a_surrogate_pair_is_read_as_a_replacement_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "\ud83d\ude00 \ud83d"}')
    assert read(tmp_path / "a.jsonl", documents="jsonl") == ["\U0001f600 \ufffd"]


def test_names_in_capitals_are_found_and_others_are_named(tmp_path: Path) -> None:
    (tmp_path / "CH1.TXT").write_text("one")
    assert read(tmp_path) == ["one"]
    (tmp_path / "CH1.TXT").rename(tmp_path / "ch1.log")
    with pytest.raises(CorpusError, match=r"it holds ch1\.log; see the option glob"):
        read(tmp_path)
