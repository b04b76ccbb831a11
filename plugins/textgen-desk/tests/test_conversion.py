"""Files whose text is asked for: hostile ones, large ones, and clients that go away."""

import io
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import httpx2
import pytest
from conftest import serving, until

SLOW = b"{\\rtf1 " + b"{}" * 12_000_000  # takes many seconds, though in proportion to its length


def children(server):
    process = server.process.pid
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def zipped(name, text):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return made.getvalue()


def test_a_file_that_takes_too_long_is_given_up_and_others_are_answered_meanwhile(run):
    answers = []
    with serving(run, "--time-limit", "3") as hasty:
        address = f"{hasty.url}/text/a.rtf"
        upload = threading.Thread(
            target=lambda: answers.append(httpx2.put(address, content=SLOW, timeout=60))
        )
        upload.start()
        until(lambda: children(hasty))
        assert httpx2.get(f"{hasty.url}/health", timeout=60).elapsed.total_seconds() < 1
        assert not answers
        upload.join()
        assert answers[0].status_code == 413
        assert not children(hasty)


def test_nobody_reads_a_file_for_a_client_that_has_gone(server):
    address = f"{server.url}/text/a.rtf"
    with pytest.raises(httpx2.TimeoutException):
        httpx2.put(address, content=SLOW, timeout=httpx2.Timeout(60, read=0.5))
    until(lambda: not children(server), 10)


def test_an_error_names_the_file_of_the_client_and_none_of_the_server(http):
    for content in (b"rubbish \xff", zipped("a", "b")):
        answer = http.put("/text/my.docx", content=content)
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert message.startswith("my.docx: ")
        assert "/" not in message


def test_files_become_texts(http):
    word = "<w:document><w:p><w:t>Tea — </w:t></w:p></w:document>"
    for name, content, text in (
        ("a.docx", zipped("word/document.xml", word), "Tea — \n"),
        ("a.html", b"<p>Tea</p>", "Tea\n"),
        ("a.txt", b"Tea", "Tea"),
        ("long.txt", b"Tea\n" * 500_000, "Tea\n" * 500_000),
        ("a b.md", "é\r\n".encode(), "é\n"),
    ):
        assert http.put(f"/text/{name}", content=content).json() == {"text": text}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_file_that_takes_too_much_memory_is_refused(tmp_path):
    path = tmp_path / "a.docx"
    path.write_bytes(zipped("word/document.xml", f"<w:t>{'—' * 20_000_000}</w:document>"))
    code = (
        "import resource; from textgen_desk import conversion;"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28)); conversion.main()"
    )
    line = [sys.executable, "-c", code, str(path), "1000"]
    answer = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
    assert answer["status"] == 413
