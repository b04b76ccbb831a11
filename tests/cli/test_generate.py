"""The command generate: what it writes, and that its options are those of the Python function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgen import Generator, load


def test_it_prints_prompt_and_text_and_nothing_else(
    generate: Callable[..., Any], generator: Generator
) -> None:
    done = generate("--prompt", "the ", "--max-new-tokens", 30, "--seed", 4)
    expected = generator.generate("the ", max_new_tokens=30, seed=4)
    assert (done.code, done.stdout, done.stderr) == (0, f"{expected}\n", "")
    bare = generate("--prompt", "the ", "--max-new-tokens", 30, "--seed", 4, "--no-echo")
    assert bare.stdout == f"{expected.text}\n"


def test_options_are_those_of_the_python_function(
    generate: Callable[..., Any], generator: Generator
) -> None:
    done = generate(
        *(
            "-p",
            "the ",
            "--max-new-tokens",
            80,
            "--min-new-tokens",
            10,
            "--stop",
            "e",
            "--stop",
            "st",
        ),
        *(
            "--temperature",
            0.7,
            "--top-k",
            9,
            "--top-p",
            0.95,
            "--min-p",
            0.01,
            "--typical-p",
            0.98,
        ),
        *("--repetition-penalty", 1.1, "--presence-penalty", 0.1, "--frequency-penalty", 0.05),
        *("--no-repeat-ngram", 5, "--logit-bias", "a=1.5", "--logit-bias", "t=-2"),
    )
    expected = generator.generate(
        "the ",
        max_new_tokens=80,
        min_new_tokens=10,
        stop=["e", "st"],
        temperature=0.7,
        top_k=9,
        top_p=0.95,
        min_p=0.01,
        typical_p=0.98,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.05,
        no_repeat_ngram=5,
        logit_bias={"a": 1.5, "t": -2.0},
    )
    assert (done.code, done.stdout) == (0, f"{expected}\n"), done.stderr


def test_samplers_with_states_have_options(
    generate: Callable[..., Any], generator: Generator
) -> None:
    done = generate(
        *("-p", "the ", "--max-new-tokens", 60, "--mirostat-tau", 2.5, "--mirostat-eta", 0.2),
        *(
            "--xtc-probability",
            0.5,
            "--xtc-threshold",
            0.04,
            "--dry-multiplier",
            2,
            "--dry-base",
            2,
        ),
        *("--dry-allowed-length", 1, "--dry-penalty-last-n", 30, "--dry-sequence-breakers", " "),
        *("--dry-sequence-breakers", r"\n"),
    )
    expected = generator.generate(
        "the ",
        max_new_tokens=60,
        mirostat_tau=2.5,
        mirostat_eta=0.2,
        xtc_probability=0.5,
        xtc_threshold=0.04,
        dry_multiplier=2,
        dry_base=2,
        dry_allowed_length=1,
        dry_penalty_last_n=30,
        dry_sequence_breakers=[" ", "\n"],
    )
    assert (done.code, done.stdout) == (0, f"{expected}\n"), done.stderr
    plain = generate("-p", "the ", "--max-new-tokens", 60).stdout
    off = generate("-p", "the ", "--max-new-tokens", 60, "--xtc-threshold", 0.01, "--dry-base", 3)
    assert (off.code, off.stdout) == (0, plain), (
        off.stderr
    )  # until there is a probability and a multiplier


def test_greedy_is_temperature_zero(generate: Callable[..., Any], generator: Generator) -> None:
    expected = f"{generator.generate('the ', max_new_tokens=30, temperature=0)}\n"
    assert generate("-p", "the ", "--max-new-tokens", 30, "--greedy").stdout == expected
    assert generate("-p", "the ", "--max-new-tokens", 30, "--temperature", 0).stdout == expected


@pytest.mark.parametrize("option", ["--n", "-n"])
def test_several_texts_are_told_apart(
    generate: Callable[..., Any], generator: Generator, option: str
) -> None:
    done = generate("-p", "the ", option, 3, "--max-new-tokens", 20)
    made = list(generator.generate_many(["the "], n=3, max_new_tokens=20))
    assert done.stdout == "\n".join(f"=== text {i} ===\n{text}\n" for i, text in enumerate(made, 1))


def test_lines_are_one_for_each_text(generate: Callable[..., Any], generator: Generator) -> None:
    done = generate("-p", "the \n", "-n", "3", "--output", "lines", "--max-new-tokens", 5)
    texts = generator.generate_many(["the \n"], n=3, max_new_tokens=5, echo=True)
    assert done.stdout.splitlines() == [" ".join(each.text.splitlines()) for each in texts]


def test_several_prompts_are_all_continued(
    generate: Callable[..., Any], generator: Generator
) -> None:
    done = generate("-p", "the ", "-p", "clock", "--max-new-tokens", 20)
    made = list(generator.generate_many(["the ", "clock"], max_new_tokens=20))
    assert done.stdout == "\n".join(f"=== text {i} ===\n{text}\n" for i, text in enumerate(made, 1))
    failed = generate("-p", "the ", "-p", "clock", "--save-state", "state")
    assert (failed.code, failed.stdout, "work on one text" in failed.stderr) == (2, "", True)


def test_an_endless_text_is_one_text(generate: Callable[..., Any], generator: Generator) -> None:
    for more in (("-n", 2), ("--output", "jsonl"), ("--novelty",)):
        failed = generate("-p", "the ", "--max-new-tokens", "none", *more)
        assert (failed.code, failed.stdout) == (2, "")
        assert "never ends; use stream, or give stop" in failed.stderr
    stopped = generate("-p", "the ", "--max-new-tokens", "none", "--stop", "e", "-n", 2)
    made = list(generator.generate_many(["the "], n=2, max_new_tokens=None, stop="e"))
    assert stopped.stdout == "\n".join(
        f"=== text {i} ===\n{text}\n" for i, text in enumerate(made, 1)
    )


def test_json_lines_hold_what_is_known_of_a_text(
    generate: Callable[..., Any], generator: Generator
) -> None:
    done = generate(
        "-p", "the ", "--max-new-tokens", 8, "--output", "jsonl", "--logprobs", 2, "--no-echo"
    )
    assert done.code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    expected = generator.generate("the ", max_new_tokens=8, logprobs=2)
    assert expected.logprobs is not None
    assert (row["text"], row["finish_reason"], row["tokens"]) == (expected.text, "length", 8)
    for entry, known in zip(row["logprobs"], expected.logprobs, strict=True):
        assert (entry["token"], entry["logprob"]) == (known.token, pytest.approx(known.logprob))
        assert [likely["token"] for likely in entry["top"]] == [token for token, _ in known.top]
        assert all(
            likely["text"] == generator.tokenizer.decode([likely["token"]])
            for likely in entry["top"]
        )
    assert "".join(entry["text"] for entry in row["logprobs"]) == expected.text


def test_many_json_lines_have_log_probabilities_too(
    generate: Callable[..., Any], generator: Generator
) -> None:
    options = ("--max-new-tokens", 8, "--output", "jsonl", "--logprobs", 1)
    done = generate("-p", "the ", "-p", "a clock", "-n", 2, *options)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["prompt"], row["index"]) for row in rows] == [
        ("the ", 0),
        ("the ", 1),
        ("a clock", 2),
        ("a clock", 3),
    ]
    for row in rows:
        made = generator.generate(
            row["prompt"], index=row["index"], max_new_tokens=8, logprobs=1, echo=True
        )
        assert made.logprobs is not None
        assert "".join(entry["text"] for entry in row["logprobs"]) == row["text"] == made.text
        prompt = row["logprobs"][: row["prompt_tokens"]]
        assert "".join(entry["text"] for entry in prompt) == row["prompt"]
        assert [entry["logprob"] for entry in row["logprobs"]] == [
            entry.logprob for entry in made.logprobs
        ]


def test_a_json_line_is_made_again_alone_by_its_index(generate: Callable[..., Any]) -> None:
    options = ("--max-new-tokens", 8, "--output", "jsonl")
    lines = generate("-p", "the ", "-p", "a clock", "-n", 3, *options).stdout.splitlines()
    assert [generate("-p", "a clock", "--index", index, *options).stdout for index in (3, 5)] == [
        f"{lines[3]}\n",
        f"{lines[5]}\n",
    ]


def test_what_a_run_was_given_by_set_holds_for_later_texts(
    textgen: Callable[..., Any], write_pipeline: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipeline = write_pipeline(tiny_pipeline())
    changes = (
        "--set",
        "generate.max_new_tokens=3",
        "--set",
        "generate.seed=5",
        "--set",
        'sampler=[{type="greedy"}]',
    )
    for given, expected in ((), {}), (changes, {"max_new_tokens": 3, "seed": 5, "temperature": 0}):
        assert textgen("run", pipeline, *given, cwd=tmp_path).code == 0
        made = load(tmp_path / "run").generate("the ", **expected)
        assert textgen("generate", "run", "-p", "the ", cwd=tmp_path).stdout == f"{made}\n"


@pytest.mark.parametrize(
    "options", [("--greedy",), ("--temperature", "0.8", "--repetition-penalty", "1.2")]
)
def test_a_saved_state_goes_on(
    generate: Callable[..., Any], generator: Generator, tmp_path: Path, options: tuple[str, ...]
) -> None:
    whole = generate("-p", "the ", "--max-new-tokens", 60, *options)
    first = generate("-p", "the ", "--max-new-tokens", 25, *options, "--save-state", "state")
    second = generate(
        "--max-new-tokens", 20, *options, "--load-state", "state", "--save-state", "later"
    )
    last = generate("--max-new-tokens", 15, *options, "--load-state", "later")
    parts = [done.stdout.removesuffix("\n") for done in (first, second, last)]
    assert "".join(parts) + "\n" == whole.stdout
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-3])
    failed = generate("--load-state", "state")
    assert (failed.code, failed.stdout) == (1, "")
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (
            "generate",
            "RUN",
            "-p",
            "the ",
            "--max-new-tokens",
            "5",
            "--temperature",
            "0.7",
            "--top-k",
            "5",
        ),
        ("generate", "RUN", "-p", "the ", "--n", "3", "--max-new-tokens", "5"),
        ("evaluate", "RUN", "text.txt"),
    ],
)
def test_no_torch_is_loaded_on_a_cpu(
    python: Callable[..., Any], finished_run: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "text.txt").write_text("the clock struck", encoding="utf-8")
    given = [str(finished_run) if argument == "RUN" else argument for argument in arguments] + [
        "--device",
        "cpu",
    ]
    script = (
        "import sys\n"
        "from textgen.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = python("-c", script, *given, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stdout
