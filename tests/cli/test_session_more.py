"""A session continues, saves and seeds its texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.terminal import Terminal

from textgen import GenerationState, Generator


@pytest.fixture
def session(begin: Callable[..., Terminal], finished_run: Path) -> Terminal:
    """A session with 20 tokens for each text, at its first prompt."""
    return begin(finished_run, "--max-new-tokens", "20")


def test_more_continues_the_last_text_with_the_options_that_hold(
    session: Terminal, generator: Generator
) -> None:
    assert session.ask("/more") == "error: there is no text yet; type a prompt first\n"
    session.ask("a clock")
    first, more = session.ask("the "), session.ask("/more")
    whole = generator.generate("the ", max_new_tokens=40, index=1, echo=True).text
    assert first[:-1] + more[:-1] == whole
    session.ask("/set temperature=0")
    greedy = session.ask("/more")
    session.ask("/unset temperature")
    last = session.ask("/more")
    begun = generator.generate("the ", max_new_tokens=40, index=1, keep_state=True)
    greedily = generator.generate(
        state=begun.state, max_new_tokens=20, temperature=0, keep_state=True
    )
    assert greedy[:-1] == greedily.text
    sampled = generator.generate("the " + begun.text + greedily.text, max_new_tokens=20)
    assert len(last[:-1]) == len(sampled.text)


def test_a_text_that_was_stopped_is_continued(session: Terminal) -> None:
    session.ask("/set max_new_tokens=none")
    session.send("the \n")
    session.read_to("the ")
    session.read_to("e")
    session.send("\x03")
    session.read_to("\n> ")
    session.ask("/set max_new_tokens=5")
    assert len(session.ask("/more")) == 6


def test_save_keeps_the_state_of_the_last_text(
    session: Terminal,
    generator: Generator,
    textgen: Callable[..., Any],
    finished_run: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert session.ask("/save kept") == "error: there is no text yet; type a prompt first\n"
    session.ask("the ")
    assert "is not a saved state; /save does not replace it" in session.ask("/save notes.txt")
    assert "error: . exists" in session.ask("/save")
    assert session.ask("/save kept") == "saved; --load-state kept continues from there\n"
    assert GenerationState.load(tmp_path / "kept").index == 0
    done = textgen(
        "generate", finished_run, "--load-state", "kept", "--max-new-tokens", 20, cwd=tmp_path
    )
    assert done.stdout == generator.generate("the ", max_new_tokens=40).text[20:] + "\n"


def test_a_random_seed_is_drawn_for_each_prompt_and_shown(
    session: Terminal, generator: Generator
) -> None:
    assert session.ask("/set seed=random") == ""
    seeds = []
    for _ in range(2):
        found = re.fullmatch(r"seed (\d+)\n(.*)\n", session.ask("the "), re.DOTALL)
        assert found is not None
        seeds.append(int(found[1]))
        assert (
            found[2]
            == generator.generate("the ", max_new_tokens=20, seed=seeds[-1], echo=True).text
        )
    assert seeds[0] != seeds[1]
    more = session.ask("/more").removesuffix("\n")
    assert (
        found[2] + more
        == generator.generate("the ", max_new_tokens=40, seed=seeds[-1], echo=True).text
    )
