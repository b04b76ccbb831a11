"""What a text shares with the training corpus, and the words of that, by HTTP."""

import http.client
import json
import re
import shutil
import threading

import httpx2
import pytest
from conftest import TEXT, running, train, until

import textgen
from textgen.contracts.decoders import DecoderFactory
from textgen_desk.app import create_app


@pytest.fixture
def book(tmp_path):
    """A corpus in a file, which is still there when the run is served."""
    (tmp_path / "book.txt").write_text(TEXT)
    return {"type": "file", "path": str(tmp_path / "book.txt")}


def test_copies_are_found_and_no_answer_names_a_file(run, book, tmp_path):
    moved = train(tmp_path / "run", corpus=book, generate={"unknown_characters": "skip"})
    with running(create_app({"moved": moved, "text": run})) as (host, port):
        body = {"model": "moved", "prompt": f"~~{TEXT[:50]}"}
        answer = httpx2.post(f"http://{host}:{port}/copies", json=body, timeout=60)
        assert answer.json()["passages"] == [{"start": 2, "end": 52}]
        body = {"model": "text", "prompt": TEXT[:50]}
        answer = httpx2.post(f"http://{host}:{port}/copies", json=body, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_corpus")
        assert str(run) not in answer.text
        answer = httpx2.post(f"http://{host}:{port}/words", json=body, timeout=60)
        assert answer.json() == {"total": 0, "words": {}}


def test_places_are_those_of_the_text_that_was_sent(book, tmp_path):
    tokenizer = {"type": "char", "lower_case": True}
    moved = train(tmp_path / "run", corpus=book, tokenizer=tokenizer)
    prompt = (
        "Once \u0130e\u0301 3 ravens flew over 2 hills, and none came back.\n"  # two unknown marks
    )
    with running(create_app({"ravens": moved})) as (host, port):
        url = f"http://{host}:{port}/copies"
        (passage,) = httpx2.post(url, json={"prompt": prompt}, timeout=60).json()["passages"]
    assert prompt[passage["start"] : passage["end"]] == prompt[8:]


@pytest.mark.parametrize("path", ["/copies", "/worn"])
def test_a_text_has_the_limit_of_a_prompt(http, path):
    answer = http.post(path, json={"prompt": "a" * 200_001})
    assert (answer.status_code, "200,000" in answer.text) == (400, True), answer.text[:5000]


def test_words_are_those_of_the_run_as_it_is_now(book, tmp_path):
    train(tmp_path / "run", corpus=book)
    with running(create_app({"run": tmp_path / "run"})) as (host, port):

        def words():
            return httpx2.post(f"http://{host}:{port}/words", json={}, timeout=60).json()["words"]

        assert "ravens" in words()
        (tmp_path / "other.txt").write_text(TEXT.replace("ravens", "gulls"))
        corpus = {"type": "file", "path": str(tmp_path / "other.txt")}
        train(tmp_path / "other", corpus=corpus)
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "other").rename(tmp_path / "run")
        until(lambda: "gulls" in words())
        assert "ravens" not in words()


def test_worn_phrases_of_a_client_that_has_left_are_not_looked_for(
    run, book, tmp_path, monkeypatch
):
    start = {"start": str(run)}
    textgen.train(
        corpus=book,
        tokenizer=start,
        model=start,
        trainer={"type": "adamw", "length": "1 step"},
        output=tmp_path / "own",
    )
    turns, calls, score = threading.Semaphore(0), [], DecoderFactory.score

    def waiting(factory, *given):
        calls.append(given)
        assert turns.acquire(timeout=60)
        return score(factory, *given)

    monkeypatch.setattr(DecoderFactory, "score", waiting)
    with running(create_app({"own": tmp_path / "own"})) as (host, port):

        def texts():
            page = httpx2.get(f"http://{host}:{port}/metrics", timeout=60).text
            return re.findall(r'^textgen_texts\{model="own"\} (.+)$', page, re.MULTILINE)

        client = http.client.HTTPConnection(host, port)
        body = json.dumps({"prompt": "Once " * 6000})  # one paragraph of 30 blocks
        client.request("POST", "/worn", body, {"Content-Type": "application/json"})
        until(lambda: calls)
        client.close()
        until(lambda: texts() == ["0.0"] or turns.release())  # one more block each time
    assert len(calls) < 20
