"""The session that `textgen generate` opens on a terminal."""

import re

import pytest

import textgen


@pytest.fixture
def session(begin, finished_run):
    """A session with 20 tokens for each text, at its first prompt."""
    return begin(finished_run, "--max-new-tokens", "20")


def written(generator, prompt="the ", **options):
    """What a session answers to a prompt."""
    return f"{generator.generate(prompt, echo=True, **{'max_new_tokens': 20, **options}).text}\n"


def test_options_are_set_and_taken_back(session, generator):
    assert session.ask("the ") == written(generator)
    for line in ("/set temperature=0.5", "/set max-new-tokens=12", "/set logit_bias = {e = -5}"):
        assert session.ask(line) == ""
    options = {"max_new_tokens": 12, "temperature": 0.5, "logit_bias": {"e": -5}}
    assert session.ask("/set seed=7") == ""
    assert session.ask("the ") == written(generator, seed=7, **options)
    for name in ("temperature", "logit-bias", "max_new_tokens", "seed"):
        assert session.ask(f"/set {name}=") == ""
    assert session.ask("/set max_new_tokens=20") == ""
    assert session.ask("the ") == written(generator), "a seed begins at its first text"
    assert max(map(len, session.ask("/help").splitlines())) <= 80
    assert "'E'" in session.ask("EOF"), "a prompt, of characters that the text lacks"
    session.leave()


def test_each_prompt_gets_the_next_index_of_the_seed(begin, finished_run, generator):
    session = begin(finished_run, "--max-new-tokens", "20", "--index", "4")
    assert session.ask("the ") == written(generator, index=4)
    assert session.ask("") == written(generator, "", index=5)
    assert session.ask("/set seed=random") == ""
    found = re.fullmatch(r"seed (\d+)\n(.*\n)", session.ask("the "), re.DOTALL)
    assert found[2] == written(generator, seed=int(found[1]), index=4)


def test_mistakes_are_one_line_and_end_nothing(session):
    for line, said in (
        ("/set temperature=-1", "temperature"),
        ("/set temp=0.5", "; did you mean 'temperature'?"),
        ("/set sede=1", "did you mean 'seed'?"),
        ("/set state=x", "expected /set OPTION=VALUE"),
        ("/set temperature", "expected /set OPTION=VALUE"),
        ("/set", "expected /set OPTION=VALUE"),
        ("/set stop=[", "stop"),
        ("/set logit_bias={e}", "logit_bias: "),
        ("/set tempratur=", "did you mean 'temperature'?"),
        ("/nonsense", "there is no /nonsense; /help lists the commands"),
        ("//", "U+002F"),
        ("/more", "there is no text yet; type a prompt first"),
        ("é", "U+00E9"),
    ):
        (answer,) = session.ask(line).splitlines()
        assert answer.startswith("error: "), line
        assert said in answer
    assert session.ask("the ").startswith("the ")
    session.send("/quit now\n")
    assert session.process.wait(300) == 0


def test_a_prompt_may_begin_with_a_slash(begin, tiny_pipeline):
    text = "/set out, and /quit the hour; the clock struck /more than once.\n" * 12
    made = textgen.run(tiny_pipeline(text=text))
    session = begin(made.path, "--max-new-tokens", "5")
    assert session.ask("//set out").startswith("/set out")
    assert session.ask("///").startswith("//")


def test_ctrl_c_stops_a_text_and_not_the_session(session, generator):
    session.ask("/set max_new_tokens=none")
    session.send("the \n")
    session.read_to("the ")
    session.read_to("e")  # it writes, and would go on for ever
    session.send("\x03")
    session.read_to("\n> ")
    session.send("half a prompt")
    session.read_to("half a prompt")
    # input() sleeps through a signal that comes just before it waits for a key
    session.until_it_waits()
    session.send("\x03")
    assert "/quit" in session.read_to("\n> ")
    session.ask("/set max_new_tokens=5")
    assert len(session.ask("/more")) == 6, "a text that was stopped is continued"


def test_a_text_is_continued(session, generator):
    session.ask("a clock")
    first, more = session.ask("the "), session.ask("/more")
    assert first[:-1] + more == written(generator, index=1, max_new_tokens=40)
    session.ask("/set temperature=0")
    begun = generator.generate("the ", max_new_tokens=40, index=1, keep_state=True)
    greedily = generator.generate(state=begun.state, max_new_tokens=20, temperature=0)
    assert session.ask("/more")[:-1] == greedily.text, "with the options that hold"


def test_options_of_the_command_line_are_checked_before_a_session_opens(
    shown, finished_run, tmp_path
):
    command = ("-m", "textgen", "generate", finished_run, "--temperature", "nan")
    code, said = shown(*command, cwd=tmp_path)
    assert code == 2
    assert said.startswith("textgen: error: temperature: expected a finite number")


def test_lines_are_edited_and_kept_in_the_session(begin, finished_run):
    session = begin(finished_run, "--max-new-tokens", "5")
    session.ask("the clock")
    assert session.ask("\x10").startswith("the clock")  # Ctrl-P brings the line before
