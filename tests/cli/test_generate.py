"""The command generate: what it writes, where prompts come from, and that its options are those of
the Python function.
"""

import json
import re

import pytest

TOKENS = ("--max-new-tokens", 12)


def printed(texts):
    """Several texts as the command prints them."""
    return "\n".join(f"=== text {i} ===\n{text}\n" for i, text in enumerate(texts, 1))


def rows(done):
    """The JSON lines of a command that has done well."""
    assert done.code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("--seed", 4), {"seed": 4}),
        (("--temperature", 0), {"temperature": 0}),
        (
            ("--stop", "e", "--stop", "st", "--min-new-tokens", 3),
            {"stop": ["e", "st"], "min_new_tokens": 3},
        ),
        (("--logit-bias", "{a = 1.5, t = -2}"), {"logit_bias": {"a": 1.5, "t": -2.0}}),
        (("--xtc-threshold", 0.01, "--dry-allowed-length", 3), {}),  # off without what they are for
        (("--dry-multiplier", 2), {"dry_multiplier": 2}),
        *(
            (tuple(f"--{name.replace('_', '-')}={value}" for name, value in some.items()), some)
            for some in (
                {"top_k": 9, "repetition_penalty": 1.1},
                {"top_p": 0.95, "presence_penalty": 0.1},
                {"min_p": 0.01, "frequency_penalty": 0.05, "xtc_probability": 0.5},
            )
        ),
    ],
    ids=str,
)
def test_options_are_those_of_the_python_function(generate, generator, arguments, options):
    done = generate("-p", "the ", *TOKENS, *arguments)
    expected = generator.generate("the ", max_new_tokens=12, **options)
    assert (done.code, done.stdout, done.stderr) == (0, f"{expected}\n", "")


def test_several_texts_are_told_apart(generate, generator):
    made = list(generator.generate_many(["the ", "clock"], n=2, max_new_tokens=12))
    done = generate("-p", "the ", "-p", "clock", "-n", 2, *TOKENS)
    assert done.stdout == printed(made)
    lines = generate("-p", "the \n", "-n", 3, "--output", "lines", *TOKENS)
    texts = generator.generate_many(["the \n"], n=3, max_new_tokens=12, echo=True)
    assert lines.stdout.splitlines() == [" ".join(each.text.splitlines()) for each in texts]


def test_an_endless_text_is_one_text(generate, generator):
    stopped = generate("-p", "the ", "--max-new-tokens", "none", "--stop", "e", "-n", 2)
    made = list(generator.generate_many(["the "], n=2, max_new_tokens=None, stop="e"))
    assert stopped.stdout == printed(made)


def test_json_lines_hold_what_is_known_of_a_text(generate, generator):
    options = (*TOKENS, "--output", "jsonl")
    many = rows(generate("-p", "the ", "-p", "a clock", "-n", 2, *options))
    texts = [("the ", 0), ("the ", 1), ("a clock", 2), ("a clock", 3)]
    for row, (prompt, index) in zip(many, texts, strict=True):
        made = generator.generate(prompt, index=index, max_new_tokens=12, echo=True)
        assert row == {
            "prompt": prompt,
            "index": index,
            "seed": 7,
            "text": made.text,
            "token_ids": [*made.tokens],
            "tokens": 12,
            "prompt_tokens": len(prompt),
            "finish_reason": "length",
        }
    (row,) = rows(generate("-p", "the ", "--beams", 2, *options))
    beams = generator.generate("the ", beams=2, max_new_tokens=12).ranked
    assert [text["text"] for text in row["ranked"]] == [text.text for text in beams]
    assert rows(generate("-p", "a clock", "--index", 3, *options)) == many[3:]


@pytest.mark.parametrize("options", [(), ("-o", "lines"), ("-n", "2")])
def test_a_random_seed_is_reported(generate, options):
    command = ("-p", "the ", *TOKENS, *options, "--seed")
    done = generate(*command, "random")
    found = re.fullmatch(r"seed (\d+)\n", done.stderr)
    assert found is not None, done.stderr
    again = generate(*command, found[1])
    assert (again.stdout, again.stderr) == (done.stdout, "")


# Prompts.


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("the clock\n", "the clock"),
        ("\ufeffthe\r\nclock\rt\n", "the\nclock\nt"),
        ("the \n\n", "the \n"),
        ("", ""),
    ],
)
def test_what_is_piped_in_is_the_prompt_without_its_last_line_break(
    generate, generator, given, prompt
):
    done = generate(*TOKENS, stdin=given)
    expected = generator.generate(prompt, max_new_tokens=12)
    assert (done.code, done.stdout, done.stderr) == (0, f"{expected}\n", "")


def test_a_prompt_that_is_typed_may_have_line_breaks(generate, generator):
    expected = generator.generate("the\nclock", max_new_tokens=12, echo=True)
    assert generate(*TOKENS, "-p", r"the\nclock").stdout == f"{expected}\n"


def test_of_a_novel_that_is_piped_in_the_end_is_the_prompt(generate, generator):
    text = "the hour, the clock. " * 1000
    done = generate(*TOKENS, stdin=text)
    expected = generator.generate(text[-20_000:], max_new_tokens=12)
    assert (done.code, done.stdout) == (0, f"{expected}\n")
    assert "stdin has 21,000 characters; its last 20,000 are the prompt" in done.stderr
