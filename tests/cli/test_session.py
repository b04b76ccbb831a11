"""The session that `textgen generate` opens on a terminal."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.terminal import Terminal

from textgen import Generator, load, run


@pytest.fixture
def session(begin: Callable[..., Terminal], finished_run: Path) -> Terminal:
    """A session with 30 tokens for each text, at its first prompt."""
    return begin(finished_run, "--max-new-tokens", "30", "--greedy")


def test_a_session_continues_prompts_with_live_options(
    session: Terminal, generator: Generator
) -> None:
    session.send("the \n")
    expected = generator.generate("the ", max_new_tokens=30, temperature=0)
    assert f"{expected}\n" in session.read_to("\n> ")
    session.send("/set temperature=0.5\n")
    session.read_to("> ")
    session.send("/set max_new_tokens=12\n")
    session.read_to("> ")
    session.send("/options\n")
    shown = session.read_to("\n> ")
    assert "temperature = 0.5" in shown
    assert "max_new_tokens = 12" in shown
    session.send("the \n")
    expected = generator.generate("the ", max_new_tokens=12, temperature=0.5, index=1)
    assert f"{expected}\n" in session.read_to("\n> ")
    session.send("/unset temperature\n")
    session.read_to("> ")
    session.send("the \n")
    assert f"{generator.generate('the ', max_new_tokens=12, index=2)}\n" in session.read_to("\n> ")
    session.send("\x04")
    assert session.process.wait(300) == 0


def test_a_command_without_its_slash_is_a_prompt_and_said_so(session: Terminal) -> None:
    session.send("quit\n")
    session.read_to("that was a prompt; the command is /quit")
    session.send("/quit\n")
    assert session.process.wait(300) == 0


def test_a_session_takes_the_names_of_the_command(session: Terminal) -> None:
    session.send("/set max-new-tokens=12\n")
    session.read_to("> ")
    session.send("/options\n")
    shown = session.read_to("\n> ")
    assert "max_new_tokens = 12" in shown
    assert "top_p" in shown.partition("not set: ")[2]


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_a_session_ends_by_a_word(session: Terminal, word: str) -> None:
    session.send("/help\n")
    assert "/quit" in session.read_to("\n> ")
    session.send("/set temperature 0.5\n")
    session.read_to("> ")
    session.send("/options\n")
    assert "temperature = 0.5" in session.read_to("\n> ")
    session.send(f"{word}\n")
    assert session.process.wait(300) == 0


def test_a_session_survives_mistakes(session: Terminal) -> None:
    for line, said in (
        ("/set temperature=-1", "temperature"),
        ("/set temprature=1", "temperature"),
        ("/set temperature", "expected /set KEY=VALUE"),
        ("/nonsense", "error: there is no /nonsense; /help lists the commands\n> "),
        ("/set stop=[", "TOML"),
        ("é", "U+00E9"),
    ):
        session.send(f"{line}\n")
        shown = session.read_to("\n> ").partition(line)[2] or ""
        assert said in shown, line
        assert "Traceback" not in shown
    session.send("/set max_new_tokens=none\n")
    session.read_to("> ")
    session.send("the \n")
    session.read_to("the ")
    session.read_to("e")  # it writes, and would go on for ever
    session.send("\x03")
    session.read_to("\n> ")
    session.send("half a prompt")
    session.read_to("half a prompt")
    session.until_it_waits()  # input() sleeps through a signal that comes just before it waits for a key
    session.send("\x03")
    assert "/quit" in session.read_to("\n> ")
    session.send("/options\n")
    assert "max_new_tokens = none" in session.read_to("\n> ")
    session.send("\x04")
    assert session.process.wait(300) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/set self=1", "there is no option self; "),
        ("/set state=x", "there is no option state; "),
        ("/set cancelled=true", "there is no option cancelled; "),
        ("/set temp=0.5", "there is no option temp; did you mean 'temperature'?"),
        ("/set sede=1", "there is no option sede; did you mean 'seed'?"),
        ("/unset tempratur", "did you mean 'temperature'?"),
        ("/set", "expected /set KEY=VALUE"),
        ("/set top_k", "expected /set KEY=VALUE"),
        ("/set logit_bias={e}", "logit_bias: "),
    ],
)
def test_what_a_session_does_not_take_is_one_line(session: Terminal, line: str, said: str) -> None:
    (answer,) = session.ask(line).splitlines()
    assert answer.startswith("error: ")
    assert said in answer
    assert session.ask("the ").startswith("the ")


def test_options_of_the_command_line_are_checked_before_a_session_opens(
    finished_run: Path, tmp_path: Path
) -> None:
    terminal = Terminal("generate", str(finished_run), "--temperature", "nan", cwd=tmp_path)
    try:
        said = terminal.read_to("\n")
        assert terminal.process.wait(300) == 2
    finally:
        terminal.close()
    assert said.startswith("textgen: error: temperature: expected a finite number")


def test_a_seed_begins_at_its_first_text(
    begin: Callable[..., Terminal], finished_run: Path, generator: Generator
) -> None:
    session = begin(finished_run, "--max-new-tokens", "20", "--index", "4")
    of_the_run = [
        f"{generator.generate('the ', max_new_tokens=20, index=index)}\n" for index in (4, 5)
    ]
    assert [session.ask("the "), session.ask("the ")] == of_the_run
    assert "--seed 7 --index 6" in session.ask("/options")
    of_three = [
        f"{generator.generate('the ', max_new_tokens=20, seed=3, index=index)}\n"
        for index in (4, 5)
    ]
    for _ in range(2):
        assert session.ask("/set seed=3") == ""
        assert [session.ask("the "), session.ask("the ")] == of_three
    assert session.ask("/unset seed") == ""
    assert session.ask("the ") == of_the_run[0]
    assert "begins at the first" in session.ask("/help")


def test_options_are_shown_as_they_can_be_typed(
    begin: Callable[..., Terminal], tiny_pipeline: Any, tmp_path: Path
) -> None:
    sampler = [{"type": "temperature", "temperature": 0.8}]
    made = run(tiny_pipeline(sampler=sampler, generate={"max_new_tokens": 9, "stop": ["x\ny"]}))
    session = begin(made.path, "--temperature", "0.5", "--stop", "\\n", "--stop", r"\\n")
    session.ask("/set logit_bias={e = -5, t = 1}")
    shown = session.ask("/options")
    assert 'type = "logit-bias"' in shown.partition("samplers: ")[2]
    assert '{ type = "temperature", temperature = 0.5 }' in shown.partition("samplers: ")[2]
    here, _, own = shown.partition("the run's own:\n")
    here = here.removeprefix("set here:\n")
    assert tomllib.loads(here) == {
        "temperature": 0.5,
        "stop": ["\n", "\\n"],
        "logit_bias": {"e": -5, "t": 1},
    }
    assert "max_new_tokens = 9\n" in own
    assert "seed = 0\n" in own
    assert "echo = true\n" in own
    for line in here.splitlines():
        assert session.ask(f"/set {line.strip()}") == ""
    assert session.ask("/options") == shown
    for name in ("temperature", "stop", "logit-bias"):
        assert session.ask(f"/unset {name}") == ""
    shown = session.ask("/options")
    assert 'stop = ["x\\ny"]\n' in shown
    assert 'samplers: { type = "temperature", temperature = 0.8 }\n' in shown
    assert (
        session.ask("the ") == f"{load(made.path).generate('the ')}\n"
    )  # with the run's own samplers again


def test_a_bias_is_given_as_the_command_takes_it(session: Terminal, generator: Generator) -> None:
    for line in (
        "/set logit_bias={e=-5}",
        "/set logit-bias {e = -5}",
        "/set logit_bias = {e = -5}",
    ):
        assert session.ask(line) == ""
        assert "logit_bias = { e = -5" in session.ask("/options")
        assert session.ask("/set seed=7") == ""
        expected = generator.generate(
            "the ", max_new_tokens=30, temperature=0, logit_bias={"e": -5}
        )
        assert session.ask("the ") == f"{expected}\n"


def test_enter_alone_does_nothing(session: Terminal, generator: Generator) -> None:
    assert session.ask("") == ""
    assert (
        session.ask("the ") == f"{generator.generate('the ', max_new_tokens=30, temperature=0)}\n"
    )
    session.send("/quit now\n")
    assert session.process.wait(300) == 0


def test_enter_alone_begins_a_new_text_where_texts_are_documents(
    begin: Callable[..., Terminal], tiny_pipeline: Any, tmp_path: Path
) -> None:
    names = "\n".join(["Ada", "Anna", "Nan", "Dan", "Nada"] * 40)
    corpus = {"type": "file", "path": str(tmp_path / "names.txt"), "documents": "line"}
    (tmp_path / "names.txt").write_text(names, encoding="utf-8")
    made = run(tiny_pipeline(corpus=corpus))
    session = begin(made.path)
    assert "Enter alone begins a new text" in session.ask("/help")
    for index in (0, 1):
        assert session.ask("") == f"{load(made.path).generate('', index=index)}\n"


def test_the_banner_fits_a_terminal(session: Terminal) -> None:
    assert max(map(len, session.ask("/help").splitlines())) <= 80


def test_lines_are_kept_for_the_next_session(
    begin: Callable[..., Terminal], finished_run: Path, tmp_path: Path
) -> None:
    first = begin(finished_run, "--max-new-tokens", "5")
    first.ask("the clock")
    first.leave()
    (history,) = (tmp_path / "state").rglob("history")
    lines = history.read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "the clock"
    history.write_text("a\nb\n" * 600 + "\n".join(lines) + "\n", encoding="utf-8")
    second = begin(finished_run, "--max-new-tokens", "5")
    assert second.ask("\x10").startswith("the clock")  # Ctrl-P brings the line before
    second.leave()
    assert len(history.read_text(encoding="utf-8").splitlines()) <= 1001


def test_a_history_that_cannot_be_kept_harms_nothing(
    begin: Callable[..., Terminal], finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("no folder")
    session = begin(finished_run, "--max-new-tokens", "5")
    session.ask("the clock")
    session.leave()


def test_tab_completes_commands_and_options(session: Terminal) -> None:
    assert session.ask("/uns\t tempera\t") == ""
    assert "samplers: " in session.ask("/op\t")
    session.ask("/set max\t=7")
    assert "max_new_tokens = 7" in session.ask("/options")
    assert session.ask("/set top-\tk=3") == ""
    assert session.ask("/set\tmax\t=5") == ""
    assert session.ask("/un\tmax\t") == ""
    assert "max_new_tokens = 7" not in session.ask("/options\t")
