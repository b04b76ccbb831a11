"""Nothing that a stranger wrote commands a terminal; into a file, a text is exact."""

import shutil

import pytest
import tomli_w
from commands import run_textgen

import textgen

ESCAPES = "\x1b]52;c;cm0=\x07\x1b[31m\x00\x08\r\x7f\x85\x9b2J\u202e\u2066"
SHOWN = r"\x1b]52;c;cm0=\x07\x1b[31m\x00\x08\r\x7f\x85\x9b2J\u202e\u2066"
RAW = set("\x1b\x07\x00\x08\x7f\x85\x9b\u202e\u2066")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose vocabulary has what commands a terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "text.txt").write_bytes(f"the clock {ESCAPES} struck.\n".encode() * 30)
    corpus = {"type": "file", "path": str(folder / "text.txt"), "encoding": "utf-8"}
    textgen.train(corpus=corpus, model="ngram", trainer="count", output=folder / "run")
    return folder / "run"


def test_generated_text_is_visible_on_a_terminal_and_exact_elsewhere(shown, hostile, tmp_path):
    prompt = f"the {ESCAPES} ".replace("\0", "").replace("\r", "")
    command = ("generate", hostile, "--prompt", prompt, "--max-new-tokens", "40")
    for how in ([], ["--novelty"], ["--novelty", "--max-new-tokens=7"]):  # fewer are not searched
        _, seen = shown("-m", "textgen", *command, *how, cwd=tmp_path)
        assert f"the {SHOWN} ".replace(r"\x00", "").replace(r"\r", "") in seen
        assert {*RAW, "\r"}.isdisjoint(seen)
    assert run_textgen(*command, folder=tmp_path).stdout.startswith(prompt)


def test_a_session_shows_what_commands_a_terminal(hostile, begin):
    session = begin(hostile)
    for option in ("temperature=3", "max-new-tokens=200"):
        session.ask(f"/set {option}")
    answer = session.ask("the ")
    assert r"\x1b" in answer
    assert RAW.isdisjoint(answer)
    session.leave()


def written(folder, tables):
    (folder / "p.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
    return folder / "p.toml"


def edited(run, folder, before, after):
    record = shutil.copytree(run, folder / "copy") / "run.json"
    record.write_text(record.read_text().replace(before, after, 1))
    return record.parent


def folder_of(folder, name):
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / "run.json").touch()
    return folder / "runs"


MESSAGES = {
    "a path that is not there": lambda run, folder: ["show", f"{ESCAPES.replace(chr(0), '')}.toml"],
    "a key of a pipeline": lambda run, folder: ["show", written(folder, {ESCAPES: 1})],
    "an override": lambda run, folder: ["show", written(folder, {}), "--set", "model.\x1b]8=1"],
    "a run record": lambda run, folder: [
        "generate",
        edited(run, folder, '"finished"', r'"\u001b[31m\u009b"'),
    ],
    "a folder of runs": lambda run, folder: ["generate", folder_of(folder, "\x1b]8run")],
}


@pytest.mark.parametrize("what", MESSAGES)
def test_messages_show_what_commands_a_terminal(hostile, tmp_path, what):
    """In a file too: it may be shown later."""
    done = run_textgen(*MESSAGES[what](hostile, tmp_path), folder=tmp_path)
    assert done.returncode in (1, 2)
    assert {*RAW, "\r"}.isdisjoint(done.stderr + done.stdout)


def test_messages_of_the_library_do_too(tmp_path):
    with pytest.raises(textgen.TextgenError) as caught:
        textgen.load(tmp_path / "\x1b[31m")
    assert r"\x1b[31m" in str(caught.value)
    assert "\x1b" not in str(caught.value)
