"""Errors carry facts, and their text serves the command line and programs alike."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen.errors import Difference


@pytest.fixture(scope="module")
def generator(finished_run: Path) -> textgen.Generator:
    return textgen.load(finished_run)


def test_an_argument_its_value_and_all_faults_are_facts(generator: textgen.Generator) -> None:
    with pytest.raises(textgen.UsageError) as raised:
        generator.generate("the ", top_p=50.0, temperature=-1.0)
    error = raised.value
    assert {fault.path: fault.given for fault in error.faults} == {
        "top_p": "50.0",
        "temperature": "-1.0",
    }
    assert error.argument in ("top_p", "temperature")
    assert "temperature: must be >= 0" in str(error)
    with pytest.raises(textgen.UsageError) as raised:
        generator.generate("the ", index=-1)
    assert raised.value.argument == "index"


def test_a_misspelt_argument_has_a_suggestion(generator: textgen.Generator) -> None:
    with pytest.raises(textgen.UsageError) as raised:
        generator.generate("the ", temperatur=1.0)  # type: ignore[call-arg]
    assert (raised.value.argument, raised.value.suggestion) == (
        "temperatur",
        "did you mean 'temperature'?",
    )


def test_the_place_of_a_prompt_among_several_is_a_fact(generator: textgen.Generator) -> None:
    with pytest.raises(textgen.PromptError) as raised:
        generator.generate_many(["the ", "é"], max_new_tokens=1)
    assert raised.value.source == "prompts[1]"
    assert str(raised.value).startswith("prompts[1]: the prompt has characters")


def test_what_all_prompts_share_is_wrong_with_none_of_them(generator: textgen.Generator) -> None:
    for shared in ({"seed": -1}, {"temperature": -1.0}, {"index": -1}):
        with pytest.raises(textgen.UsageError) as raised:
            generator.generate_many(["the ", "a"], max_new_tokens=1, **shared)
        (name,) = shared
        assert (raised.value.argument, raised.value.source) == (name, "")


def test_a_prompt_error_knows_the_nearest_known_character(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    text = 'the "clock" of the hall - it\'s late - struck...\n' * 40
    generator = textgen.run(tiny_pipeline(text=text), output=tmp_path / "run").generator
    known = {"é": "e", "—": "-", "\u2212": "-", "“": '"', "\u2019": "'", "T": "t", "…": "..."}
    for character, near in {**known, "\u00a0": " "}.items():
        with pytest.raises(textgen.PromptError) as raised:
            generator.generate(f"the {character}\u4e00")
        assert raised.value.characters == (character, "\u4e00")
        assert raised.value.nearest == {character: near}
        shown = f"{character!r} (U+{ord(character):04X}, write {near!r}), '\u4e00' (U+4E00);"
        assert shown in str(raised.value)


@pytest.mark.fault(6)
def test_a_mismatch_lists_what_was_and_what_is(
    tiny_pipeline: Any, write_pipeline: Any, tmp_path: Path, textgen: Callable[..., Any]
) -> None:
    import textgen as api

    api.run(tiny_pipeline(seed=1), output=tmp_path / "run")
    with pytest.raises(api.RunMismatchError) as raised:
        api.run(tiny_pipeline(seed=2), output=tmp_path / "run")
    assert raised.value.differences == (Difference("seed", 1, 2),)
    assert raised.value.path == tmp_path / "run"
    failed = textgen("run", write_pipeline(tiny_pipeline(seed=2)), cwd=tmp_path)
    assert "seed: 1 before, 2 now" in failed.stderr
    assert "choose another output, or replace it with overwrite" in failed.stderr
    assert str(raised.value).partition(" ")[2] in failed.stderr
    again = pickle.loads(pickle.dumps(raised.value))
    assert (again.differences, str(again)) == (raised.value.differences, str(raised.value))


def test_what_would_help_is_a_fact(
    tmp_path: Path, tiny_pipeline: Any, textgen: Callable[..., Any]
) -> None:
    import textgen as api

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(api.RunError) as raised:
        api.run(tiny_pipeline(), output=tmp_path / "full")
    assert raised.value.remedy == "output"
    assert str(raised.value).endswith(
        "is not a run directory (it has no file run.json) and is not empty (thesis.txt); "
        "choose another output"
    )
    with pytest.raises(api.DeviceError) as missing:
        api.run(tiny_pipeline(device="cuda:99"), output=tmp_path / "run")
    assert (missing.value.device, missing.value.remedy) == ("cuda:99", "device")
    assert "device 'cuda:99' was requested, but " in str(missing.value)
    failed = textgen("generate", tmp_path / "nowhere", "--device", "cuda:99", cwd=tmp_path)
    assert failed.code == 2


def test_a_wrong_encoding_is_a_fact(tiny_pipeline: Any, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(corpus={"encoding": "utf-8"})
    (tmp_path / "corpus.txt").write_text("the clock of the hall", encoding="utf-16")
    with pytest.raises(textgen.CorpusError) as raised:
        textgen.run(pipeline, output=tmp_path / "run")
    error = raised.value
    assert (error.path, error.encoding, error.offset) == (tmp_path / "corpus.txt", "utf-8", 0)
    assert "set the option encoding to its own, probably utf-16" in str(error)
    assert str(error).startswith(
        f"{tmp_path / 'corpus.txt'}: it is not utf-8: byte 0xff at offset 0"
    )


def test_a_fault_of_an_override_says_so(
    write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path, textgen: Callable[..., Any]
) -> None:
    import textgen as api

    with pytest.raises(api.PipelineError) as raised:
        api.Engine().pipeline(tiny_pipeline(), ["epochs"])
    assert raised.value.source == "overrides"
    assert (
        str(raised.value)
        == 'overrides: expected KEY=VALUE, as in trainer.batch_size=8, given "epochs"'
    )
    failed = textgen("show", write_pipeline(tiny_pipeline()), "--set", "epochs", cwd=tmp_path)
    assert (
        failed.stderr
        == "textgen: error: overrides: expected KEY=VALUE, as in trainer.batch_size=8, "
        'given "epochs"\n'
    )
