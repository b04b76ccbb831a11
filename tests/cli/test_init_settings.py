"""The settings that init writes, by what a text is like."""

import gzip
import io
import json
import textwrap
import tomllib
from pathlib import Path

import pytest

from textgen import Engine, UsageError
from textgen_builtins.starter.recipe import starter_pipeline
from textgen_builtins.starter.settings import Pretrained
from textgen_builtins.starter.starts import Candidate
from textgen_builtins.starter.texts import TextFacts, look_at

VARIED = [
    a + b
    for a in ("bel", "cor", "dan", "el", "fin", "gar", "hal")
    for b in ("a", "etta", "ian", "o", "y")
] * 4

STORY = "the clock struck nine — “naïve” — and nobody came to the café.\n\n" * 90


def text_of(corpus):
    return "".join(Engine().read_corpus(corpus))


NOTHING = Candidate("none", 1.3)


def starter(text, seconds, start=NOTHING):
    return tomllib.loads(starter_pipeline(text, seconds, start))


def test_init_joins_lines_that_are_broken_at_a_width(tmp_path):
    paragraphs = [" ".join(each.split()) for each in text_of({"type": "story"}).split("\n\n")]
    (tmp_path / "my.txt").write_text("\n\n".join(textwrap.fill(each, 66) for each in paragraphs))
    said = io.StringIO()
    facts = look_at(str(tmp_path), tmp_path, console=said)
    assert said.getvalue().count("1 file, ") == 1
    assert (tomllib.loads(facts.corpus)["wrapped_at"], len(facts.remarks)) == (66, 1)
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


def test_init_lets_a_text_repeat_what_its_like_repeats():
    refrain = "and the ship sailed on over the sea"
    for refrains, allowed in ((0, 1), (1, 8)):  # nine words come again, and ten never
        verses = [
            f"verse {i * 7919} has {i * 104729} stars\n" + refrains * f"{refrain} {i}\n"
            for i in range(80)
        ]
        facts = TextFacts('type = "story"', 10_000, 40, sample="".join(verses))
        dry, *others = starter(facts, 60)["sampler"]
        assert [table["type"] for table in (dry, *others)] == ["dry", "min-p", "temperature"]
        assert dry["allowed_length"] == allowed


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
    made = starter(TextFacts('type = "story"', size, characters), seconds)
    Engine().pipeline(made)
    assert made["model"]["first"]["hidden_size"] == width
    assert made["data"]["validation"] == validation
    assert made["trainer"]["second"] == {"type": "count", "max_tokens": counted}
    assert made["trainer"]["first"]["length"] == f"20 epochs or {seconds}s"


def test_init_starts_from_a_model_with_its_tokens_if_they_make_up_every_text():
    def tuned(size, *, length, reads_all):
        start = Pretrained("tiny", size / 25_000, loss=1.4, length=length, reads_all=reads_all)
        text = TextFacts('type = "story"', size, 60)
        return starter(text, 60, Candidate("tiny", 1.3, pretrained=start))

    kept = tuned(30_000, length=1.0, reads_all=False)
    sizes = (30_000, 3_000, 500_000, 2_000_000)
    own, poem, long, large = (tuned(size, length=2.4, reads_all=True) for size in sizes)
    assert kept["tokenizer"] == {"type": "char"}
    assert "tokenizer" not in own
    assert kept["model"] == own["model"] == {"start": "tiny", "dropout": 0.2}
    assert own["sampler"][-1] == {"type": "temperature", "temperature": 0.8}
    trainers = [made["trainer"] for made in (kept, own, poem, long, large)]
    lengths = ["4 epochs", "4 epochs", "4 epochs", "2 epochs", "60s"]
    assert [each["length"] for each in trainers] == lengths
    assert [each["batch_size"] for each in trainers] == [16, 8, 1, 64, 64]
    assert large["model"]["dropout"] < 0.2  # read less often


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
    made = tomllib.loads(facts.corpus)
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
