"""The settings that init writes, by what a text is like."""

import gzip
import io
import json
import textwrap
from pathlib import Path

import pytest

from textgen import Engine, UsageError
from textgen_builtins.starter.settings import allowed_length, new_network, tuning, with_time
from textgen_builtins.starter.texts import look_at

VARIED = [
    a + b
    for a in ("bel", "cor", "dan", "el", "fin", "gar", "hal")
    for b in ("a", "etta", "ian", "o", "y")
] * 4

STORY = "the clock struck nine — “naïve” — and nobody came to the café.\n\n" * 90


def text_of(corpus):
    return "".join(Engine().read_corpus(corpus))


def test_init_joins_lines_that_are_broken_at_a_width(tmp_path):
    paragraphs = [" ".join(each.split()) for each in text_of({"type": "story"}).split("\n\n")]
    (tmp_path / "my.txt").write_text("\n\n".join(textwrap.fill(each, 66) for each in paragraphs))
    said = io.StringIO()
    facts = look_at(str(tmp_path), tmp_path, console=said)
    assert said.getvalue().count("1 file, ") == 1
    assert (facts.corpus["wrapped_at"], len(facts.remarks)) == (66, 1)
    assert facts.sample == "\n\n".join(paragraphs)


@pytest.mark.parametrize(
    "text",
    [
        "\n\n".join(["The rain fell on the town.", "And nobody came to the old mill."] * 50),
        "Roses are red,\nViolets are blue,\nSugar is sweet\nAnd so are you.\n\n" * 40,
        "".join(f"{'ACGT'[i % 4] * 60}\n" for i in range(60)),
        Path(textwrap.__file__).read_text(encoding="utf-8"),
    ],
    ids=["paragraphs", "verse", "letters", "code"],
)
def test_init_joins_no_other_lines(tmp_path, text):
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")
    assert "wrapped_at" not in look_at(str(tmp_path / "my.txt"), tmp_path, documents="none").corpus


@pytest.mark.parametrize(("refrains", "allowed"), [(0, 1), (1, 8)])
def test_init_lets_a_text_repeat_what_its_like_repeats(refrains, allowed):
    refrain = "and the ship sailed on over the sea"
    verses = [
        f"verse {i * 7919} has {i * 104729} stars\n" + refrains * f"{refrain} {i}\n"
        for i in range(80)
    ]
    assert allowed_length("".join(verses)) == allowed


@pytest.mark.parametrize(
    ("length", "limited"),
    [
        ("1 epoch", "1 epoch or 60s"),
        ("3 epochs or 5 min", "3 epochs or 60s"),
        ("500 steps", "500 steps or 60s"),
        ("2h", "60s"),
    ],
)
def test_a_length_that_a_plugin_offers_ends_with_the_minutes(length, limited):
    assert with_time(length, 60) == limited


@pytest.mark.parametrize(
    ("size", "characters", "seconds", "width", "validation", "counted"),
    [
        (40_000, 60, 3600, 640, 100_000, 10_000_000),  # by the size of the text
        (600_000_000, 60, 60, 256, 100_000, 6_000_000),  # by the time
        (300_000, 60, 60, 512, 100_000, 6_000_000),
        (300_000, 3_000, 60, 256, 3_000, 6_000_000),  # Chinese has thousands, scored one by one
        (1_200_000, 60, 5, 128, 100_000, 500_000),
    ],
)
def test_init_sizes_the_network_by_the_text_and_by_the_time(
    size, characters, seconds, width, validation, counted
):
    made = new_network(size, characters, seconds)
    Engine().pipeline({"corpus": {"type": "story"}, **made})
    assert made["model"]["first"]["hidden_size"] == width
    assert made["data"]["validation"] == validation
    assert made["trainer"]["second"] == {"type": "count", "max_tokens": counted}
    assert made["trainer"]["first"]["length"] == f"20 epochs or {seconds}s"


def test_a_model_is_tuned_at_a_rate_and_in_batches_that_suit_the_length_of_the_text():
    sizes = ((30_000, 1.0), (30_000, 0.4), (3_000, 0.4), (500_000, 0.4), (4_000_000, 0.4))
    made = [tuning(size, share, seconds=60) for size, share in sizes]
    trainers = [each["trainer"] for each in made]
    lengths = [each["length"] for each in trainers]
    assert lengths == ["4 epochs", "4 epochs", "4 epochs", "4 epochs", "1 epoch"]
    assert [each["batch_size"] for each in trainers] == [16, 8, 1, 64, 64]
    assert [each["learning_rate"] for each in trainers] == [0.001] * 3 + [0.002] * 2
    # What is read less often needs less.
    assert [each["model"]["dropout"] for each in made] == [0.2, 0.2, 0.2, 0.2, 0.05]


@pytest.mark.parametrize(
    ("name", "options"), [("lines/part.JSONL", {}), ("my.json", {}), ("my.txt", {"field": "body"})]
)
def test_init_of_json_lines(tmp_path, name, options):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    line = '{"id": "a long name", "body": "the clock struck nine and nobody came"}\n'
    path.write_text("\n" + line * 90)
    facts = look_at(str(path), tmp_path, **options)
    assert ("its field 'body'" in "".join(facts.remarks)) != bool(options)  # which say it
    made = facts.corpus
    assert (made["documents"], made["field"]) == ("jsonl", "body")
    assert "the clock struck nine and nobody came" in list(
        Engine().read_corpus({**made, "path": str(path)})
    )


@pytest.mark.parametrize("data", [[{"text": "the clock struck nine"}] * 200, {"texts": [STORY]}])
def test_init_of_json_that_is_not_lines_says_what_to_do(tmp_path, data):
    file = tmp_path / "Data.JSON.gz"
    file.write_bytes(gzip.compress(json.dumps(data, indent=1).encode()))
    with pytest.raises(UsageError, match=r"\.jsonl"):
        look_at(str(file), tmp_path)


NAMES = "".join(f"{first}{last}\n" for first in ("Ann", "Bel", "Cor", "Dor") for last in VARIED)


TALK = "".join(f"[9:{n:02}] Ann: {word}?\nBob: {word}!\n" for n, word in enumerate(VARIED))


VERSE = "".join(f"O {word}, my {word}, and nothing else,\nIs what I sing\n" for word in VARIED)
