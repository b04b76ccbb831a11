"""The model knows English, and texts of one's own are trained from it on."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import textgen

PACKAGE = Path(__file__).parents[1]
SAMPLE = (
    "She looked at him for a long time without speaking, and then went to the window, where the "
    "rain was coming down upon the garden as if it would never stop."
)
GERMAN = (
    "Sie sah ihn lange an, ohne zu sprechen, und ging dann ans Fenster, wo der Regen auf den "
    "Garten niederging, als wollte er nie wieder aufhoeren."
)


@pytest.fixture(scope="module")
def english():
    with textgen.load("english") as generator:
        yield generator


def test_a_folder_of_its_name_that_holds_no_run_is_not_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("english").mkdir()
    textgen.load("english").close()


def test_init_names_a_text_as_it_is_found_from_behind_a_link(tmp_path):
    (tmp_path / "my.txt").write_text((SAMPLE + "\n") * 20, encoding="utf-8")
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    command = [sys.executable, "-m", "textgen", "init", "my.txt", "--pipeline", "link/my.toml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    options = textgen.Engine().pipeline(tmp_path / "link/my.toml").corpus.options
    assert options.path == (tmp_path / "my.txt").resolve()


def test_it_knows_english_and_no_german(english):
    assert english.score(SAMPLE).bits_per_character < 2.2
    assert english.score(GERMAN).bits_per_character > 3.5


def test_the_card_says_the_loss_of_the_run(english):
    card = (PACKAGE / "README.md").read_text(encoding="utf-8")
    assert f"{english.record['best_loss']:.3f} nats a token" in card


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("She looked at ", "a her his him it me my that the them this"),
        ("He took a kn", "ife ight ot ock oll owing uckle"),
    ],
)
def test_a_prompt_may_end_after_a_space_or_in_a_word(english, prompt, words):
    texts = english.generate_many([prompt] * 40, max_new_tokens=4, temperature=0.5)
    likely = [each for each in texts if re.match(r"\w*", each.text)[0] in words.split()]
    assert len(likely) > 20


def test_a_text_of_documents_ends_them(tmp_path):
    (tmp_path / "my.jsonl").write_text(f'{{"text": "{SAMPLE}"}}\n' * 30, encoding="utf-8")
    tables = {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(tmp_path / "my.jsonl"), "documents": "jsonl"},
        "model": {"start": "english"},
        "trainer": {"type": "adamw", "length": "60 steps", "batch_size": 2, "learning_rate": 2e-3},
        "sampler": [{"type": "greedy"}],
        "observer": [],
        "generate": {"max_new_tokens": 200},
    }
    run = textgen.run(tables, output=tmp_path / "run")
    (made,) = run.generations
    assert made.finish_reason == "end"
    assert made.text.endswith(SAMPLE[-60:])


def test_a_text_of_ones_own_is_trained_on(tmp_path, english):
    (tmp_path / "my.txt").write_text(
        (SAMPLE + " \u201cOh\u201d, she said.\n") * 20, encoding="utf-8"
    )
    tables = {
        "device": "cpu",
        "corpus": {"type": "file", "path": str(tmp_path / "my.txt")},
        "model": {"start": "english", "dropout": 0.1},
        "trainer": {"type": "adamw", "length": "2 steps", "learning_rate": 1e-4, "batch_size": 2},
        "observer": [],
        "generate": {"prompt": "\u201cOh", "max_new_tokens": 20},
    }
    run = textgen.run(tables, output=tmp_path / "run")
    loss = run.generator.score(SAMPLE).bits_per_character
    assert loss == pytest.approx(english.score(SAMPLE).bits_per_character, abs=0.2)
    written = tomllib.loads((run.path / "pipeline.toml").read_text())
    assert (written["model"]["start"], written["model"]["hidden_size"]) == (
        "english",
        english.tables["model"]["hidden_size"],
    )
    command = [sys.executable, "-m", "textgen", "--no-plugin", "english", "generate", str(run.path)]
    done = subprocess.run([*command, "--prompt", "She"], capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert textgen.run(run.path / "pipeline.toml").outcome == "skipped"


def test_the_pipeline_of_the_story_knows_its_language_after_a_few_steps(tmp_path):
    run = textgen.run(
        PACKAGE / "pipeline.toml",
        ["device=cpu", "trainer.length=20 steps"],
        output=tmp_path / "run",
    )
    assert run.generator.score(SAMPLE).bits_per_character < 2.2
    assert [len(made.tokens) for made in run.generations] == [200]


def test_init_starts_english_texts_from_it_and_no_others(tmp_path):
    made = {}
    story = "".join(textgen.Engine().read_corpus({"type": "story"}))[:30_000]
    printed = story.replace("'", "\u2019").replace(' "', " \u201c").replace('"', "\u201d")
    for name, text in (("mine", printed), ("other", f"{GERMAN}\n" * 40), ("pipeline", "")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
        named = [f"{name}.txt"] if text else []  # without a text, the story
        command = [sys.executable, "-m", "textgen", "init", *named]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        made[name] = (tmp_path / f"{name}.toml").read_text()
    assert 'start = "english"' in made["mine"]
    assert 'start = "english"' in made["pipeline"]
    assert "start = " not in made["other"]
    chosen = textgen.Engine().pipeline(tmp_path / "mine.toml")
    assert any(part.start is not None for part in chosen.model.flattened())
    assert "cann\u2019t" in tomllib.loads(made["mine"])["generate"]["strategy"]["phrases"]


def test_texts_without_a_prompt_begin_with_words(english):
    texts = english.generate_many([""] * 40, max_new_tokens=8, temperature=0.5)
    assert all(re.match(r"\s?\S", made.text) for made in texts)


@pytest.mark.parametrize("prompt", ["", '"I know', "\u201cI know"])
def test_a_text_keeps_its_kind_of_marks_and_whole_characters(prompt, english):
    made = english.generate_many([prompt] * 30, max_new_tokens=200)
    texts = [prompt + each.text for each in made]
    plain, typographic = r"\"|\w'\w", "[\u201c\u201d]|\\w\u2019\\w"
    mixed = [each for each in texts if re.search(plain, each) and re.search(typographic, each)]
    assert len(mixed) <= 1
    assert not any("\ufffd" in each for each in texts)


def test_its_pipeline_is_one_of_this_version():
    pipeline = textgen.Engine().pipeline(PACKAGE / "textgen_english/run/pipeline.toml")
    assert (pipeline.model.name, pipeline.trainer.name) == ("rnn", "adamw")
