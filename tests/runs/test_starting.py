"""Fine-tuning: a run that starts from the model of another."""

import shutil
import warnings
from functools import partial

import numpy as np
import pytest
import tomli_w
from commands import run_textgen
from raising import raises
from safetensors.numpy import load_file, save_file
from sealing import seal
from small_run import OTHER, TEXT, flip, interrupt, record_of, tables, tree, tuned

import textgen
from textgen.errors import Difference

CHARACTERS = {"tokenizer": {"type": "char"}}
near = partial(pytest.approx, abs=1e-3)
MIXED = {
    "model": {
        "type": "mixture",
        "first": {"type": "rnn", "hidden_size": 8},
        "second": {"type": "ngram", "order": 3},
    },
    "trainer": {
        "type": "mixture",
        "first": {"type": "adamw", "length": "6 steps", "batch_size": 48},
    },
}


def slow(folder, **changes):
    """The same with so low a rate that the weights stay as they are."""
    trainer = {"type": "adamw", "length": "1 step", "learning_rate": 1e-12, "batch_size": 48}
    return tuned(folder, trainer=trainer, **changes)


def test_it_starts_with_weights_options_and_tokenizer_of_the_other_run(folder, base):
    before = tree(base)
    run = textgen.run(slow(folder), output=folder / "tuned")
    made = run.generator.tables["model"]
    assert (made["type"], made["cell"], made["dropout"]) == ("rnn", "gru", 0.3)
    assert tree(run.path)["tokenizer.json"] == before["tokenizer.json"]
    start = record_of(run.path)["fingerprint"]["model"]["start"]
    assert start["weights"] == record_of(base)["files"]["model.safetensors"]
    assert (run.path / "pipeline.toml").read_text().count(f'start = "{base}"') == 2
    assert run.generator.score(OTHER).loss == pytest.approx(
        textgen.load(base).score(OTHER).loss, abs=1e-4
    )
    assert tree(base) == before


def test_the_other_run_is_needed_to_train_and_not_to_write(folder, base):
    train = partial(textgen.run, tuned(folder))
    run = train(output=folder / "tuned")
    held = base.rename(folder / "held")
    assert textgen.load(run.path).model_id == run.generator.model_id
    with raises(textgen.PipelineError, argument="model.start"):
        train(output=run.path)
    base.mkdir()
    held.rename(base / ".next-run")  # as while it is put in place
    assert train(output=folder / "more").generator.model_id == run.generator.model_id
    textgen.run({**tables(folder, "adamw", cell="gru"), "seed": 1}, output=base, overwrite=True)
    with pytest.raises(textgen.RunMismatchError) as caught:
        train(output=run.path)
    assert "model.start.weights" in {each.key for each in caught.value.differences}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_start_is_named(folder, base, name):
    (base / name).write_bytes(flip((base / name).read_bytes()))
    with raises(textgen.CorruptFileError, path=base / name):
        textgen.run(tuned(folder), output=folder / "tuned")


def test_a_mixture_is_started_from_too_with_a_vocabulary_of_its_own(folder):
    base = textgen.run({**tables(folder, "adamw"), **MIXED}, output=folder / "runs/base").generator
    (folder / "other.txt").write_text(OTHER)
    start = {"start": str(base.path), "first": {"dropout": 0.1}}
    made = tuned(folder, model=start, trainer=MIXED["trainer"])
    run = textgen.run(made, output=folder / "tuned").generator
    model = run.tables["model"]
    parts = (model["first"]["hidden_size"], model["first"]["dropout"], model["second"]["order"])
    assert (model["type"], *parts) == ("mixture", 8, 0.1, 3)
    assert run.score(OTHER).loss < base.score(OTHER).loss
    (folder / "other.txt").write_text(OTHER.replace("v", "\u00e9"), encoding="utf-8")
    run = textgen.run({**made, **CHARACTERS}, output=folder / "own").generator
    text = run.generate("Once", max_new_tokens=200, unknown_characters="skip").text
    assert "\u00e9" in text


def logits(generator, text):
    """Of each token after a text."""
    ids = generator.tokenizer.encode(text)[None].astype("int64")
    made = generator.model.decoder(1).extend(ids)[0].tolist()
    return dict(zip(generator.tokenizer.to_dict()["tokens"], made, strict=True))


def test_a_run_with_a_vocabulary_of_its_own_begins_with_what_the_other_knows(folder, base):
    before = textgen.load(base)
    changed = TEXT.replace("v", "\u00e9") + "\u201c"
    (folder / "other.txt").write_text(changed, encoding="utf-8")
    run = textgen.run(slow(folder, **CHARACTERS), output=folder / "tuned").generator
    ours, theirs = logits(run, "Once 8 ra"), logits(before, "Once 8 ra")
    assert ours.keys() - theirs.keys() == {"\u00e9", "\u201c"}
    assert theirs.keys() - ours.keys() == {"v"}
    shared = sorted(ours.keys() & theirs.keys())
    assert [ours[each] for each in shared] == near([theirs[each] for each in shared])
    assert ours["\u00e9"] == near(theirs["e"])  # the letter without its accent
    assert ours["\u201c"] == near(sum(theirs.values()) / len(theirs))  # a plain one is not there
    assert logits(run, "Once 8 ra\u00e9")["n"] == near(logits(before, "Once 8 rae")["n"])


def test_marks_of_print_are_read_and_written_as_their_plain_forms(folder):
    made = {**tables(folder, "adamw"), "tokenizer": {"type": "bpe", "vocab_size": 320}}
    text = """"I don't know--I can't," she said. "You won't?" he said.\n""" * 30
    printed = (
        "\u201cI don\u2019t know\u2014I can\u2019t,\u201d she said. "
        "\u201cYou won\u2019t?\u201d he said.\n"
    )
    (folder / "other.txt").write_text(printed * 30, encoding="utf-8")
    made["corpus"] = {"type": "file", "path": str(folder / "plain.txt")}
    (folder / "plain.txt").write_text(text)
    base = textgen.run(made, output=folder / "runs/base").generator
    run = textgen.run(slow(folder), output=folder / "tuned").generator
    theirs, ours = (each.prepare(t).ids for each, t in ((base, text), (run, printed * 30)))
    assert len(ours) == len(theirs)
    assert run.tokenizer.decode(ours) == printed * 30
    assert len(run.prepare("\u2019t").ids) == 1 < len(run.prepare("'t").ids)  # in its place
    pairs = (base, text), (run, printed)
    after = [each.logits(t[: t.index(" she")])[-1] for each, t in pairs]
    assert [after[1][token] for token in ours] == near([after[0][token] for token in theirs])


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_a_vocabulary_as_large_as_the_other_and_as_the_layers_is_told_from_them(folder, cell):
    size = len(set(TEXT)) + 1
    made = tables(folder, "adamw", cell=cell, hidden_size=size, embedding_size=size)
    base = textgen.run(made, output=folder / "runs/base").generator
    (folder / "other.txt").write_text(TEXT.replace("v", "A"))
    run = textgen.run(slow(folder, **CHARACTERS), output=folder / "tuned").generator
    ours, theirs = logits(run, "Once 8 ra"), logits(base, "Once 8 ra")
    assert len(ours) == len(theirs) == size
    shared = sorted(ours.keys() & theirs.keys())
    assert [ours[each] for each in shared] == near([theirs[each] for each in shared])


def test_the_network_of_a_mixture_starts_from_a_network(folder, base):
    model = {**MIXED["model"], "first": {"start": str(base), "dropout": 0.1}}
    trainer = {"type": "mixture", "first": slow(folder)["trainer"]}
    given = tuned(folder, model=model, trainer=trainer, **CHARACTERS)
    run = textgen.run(given, output=folder / "tuned")
    first = run.generator.tables["model"]["first"]
    assert (first["start"], first["cell"], first["dropout"]) == (str(base), "gru", 0.1)
    weights = textgen.load(base).model.tensors()["rnn.weight_hh_l0"]
    assert run.generator.model.tensors()["first.rnn.weight_hh_l0"] == pytest.approx(weights)
    assert textgen.run(run.path / "pipeline.toml").outcome == "skipped"
    assert textgen.run(given, output=run.path).outcome == "skipped"


def test_weights_of_half_precision_are_read(folder, base):
    """As a package has them, to be half as large."""
    path = base / "model.safetensors"
    halved = {name: array.astype(np.float16) for name, array in load_file(path).items()}
    save_file(halved, path)
    seal(path, base)
    tensors = textgen.load(base).model.tensors()
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    assert textgen.run(tuned(folder), output=folder / "tuned").outcome == "trained"


@pytest.mark.parametrize(
    ("key", "value", "argument"),
    [
        ("model.hidden_size", 9, "model.start"),  # the weights do not fit
        ("model.cell", "lstm", "model.start"),
        ("model.start", "nowhere", "model.start"),
        ("model.start", 5, "model.start"),
        ("model.first", {"start": "nowhere"}, "model.first"),
        ("model.hiden_size", 8, "model.hiden_size"),
        ("tokenizer.letters_only", True, "tokenizer.letters_only"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(folder, base, key, value, argument):
    made = tuned(folder, tokenizer={"start": str(base)})
    with raises(textgen.PipelineError, argument=argument):
        textgen.run(made, {key: value}, output=folder / "tuned")
    assert not (folder / "tuned").exists()


def test_a_run_that_is_not_finished_is_no_start(folder, base):
    interrupt(1, tables(folder), output=base, overwrite=True)
    assert textgen.run(tuned(folder), output=folder / "tuned").outcome == "trained"  # from the old
    (base / ".next-run").rename(folder / "unfinished")
    shutil.rmtree(base)
    (folder / "unfinished").rename(base)
    with raises(textgen.PipelineError, argument="model.start"):
        textgen.run(tuned(folder), output=folder / "other")


def test_show_says_what_a_run_starts_from(folder, base):
    made = tuned(folder)
    made["model"]["start"] = "runs/base"  # from the folder of the pipeline
    (folder / "tuned.toml").write_text(tomli_w.dumps(made))
    shown = run_textgen("show", "tuned.toml", folder=folder)
    assert shown.returncode == 0, shown.stderr
    assert f'start = "{base}"\n' in shown.stdout
    assert "hidden_size = 8" in shown.stdout
    (folder / "shown.toml").write_text(shown.stdout)
    first = textgen.run(folder / "tuned.toml", output=folder / "tuned")
    assert textgen.run(folder / "shown.toml", output=first.path).outcome == "skipped"


def test_the_end_of_a_document_begins_as_a_line_break(base, folder):
    made = tuned(folder)
    made["corpus"]["documents"] = "line"
    made["trainer"] |= {"length": "1 steps", "learning_rate": 1e-9}
    generator = textgen.run(made, output=folder / "run").generator
    with textgen.load(base) as before:
        assert (before.tokenizer.end_id, before.tokenizer.vocab_size) == (
            None,
            generator.tokenizer.end_id,
        )
    logits = generator.logits("Once 3 ravens")
    (line,) = generator.prepare("\n").ids
    assert logits[:, generator.tokenizer.end_id] == near(logits[:, line])


def test_a_run_goes_on_with_its_changed_text(folder):
    made = tables(folder, "adamw")
    made["trainer"] |= {"learning_rate": 0.05, "length": "4 epochs"}
    run, text = partial(textgen.run, made, output=folder / "run"), TEXT + "Xanadu had none.\n" * 9
    first = run().generator
    (folder / "text.txt").write_text(text)
    with pytest.raises(textgen.RunMismatchError) as caught:
        run()
    assert Difference("corpus.characters", len(TEXT), len(text)) in caught.value.differences
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run({**made, "seed": 8}, output=folder / "run", update=True)
    assert "seed" in {each.key for each in caught.value.differences}
    updated = run(update=True)
    assert updated.outcome == "trained"
    before, after = first.record["data"], updated.generator.record["data"]
    assert after["training_tokens"] == before["training_tokens"] + len(text) - len(TEXT)
    assert after["validation_tokens"] == before["validation_tokens"]
    assert updated.generator.copy_finder().report("Xanadu had none.\nXanadu").longest > 20
    assert logits(updated.generator, "").keys() - logits(first, "").keys() == {"X", "u"}
    assert updated.history[0]["training_loss"] < first.record["best_loss"] + 0.4
    assert run().outcome == run(update=True).outcome == "skipped"


def test_what_is_left_of_the_held_out_part_is_held_out_of_a_shorter_text(folder):
    made = tables(folder, "adamw")
    run = partial(textgen.run, made, output=folder / "run")
    before = run().generator.record["data"]
    begin, size = before["training_tokens"], before["validation_tokens"]
    (folder / "text.txt").write_text(TEXT[: begin + size // 2])
    after = run(update=True).generator.record["data"]
    assert (after["training_tokens"], after["validation_tokens"]) == (begin, size // 2)
    assert run().outcome == "skipped"
    (folder / "text.txt").write_text(TEXT)  # and that stays held out
    after = run(update=True).generator.record["data"]
    assert (after["training_tokens"], after["validation_tokens"]) == (
        len(TEXT) - size // 2,
        size // 2,
    )
    (folder / "text.txt").write_text(TEXT[: begin // 2])
    with pytest.warns(UserWarning):
        run(update=True)


@pytest.mark.parametrize(
    ("length", "batch_size", "is_told"),
    [
        ("0.001s", 1, True),
        ("0.001s", 96, False),  # all of the text in a step
        ("1 step", 1, False),  # as it was asked for
    ],
)
def test_a_tuning_that_read_little_of_the_text_says_so(folder, base, length, batch_size, is_told):
    trainer = {"type": "adamw", "length": length, "batch_size": batch_size}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        textgen.run(tuned(folder, trainer=trainer), output=folder / "tuned")
    said = [str(each.message) for each in told if "trainer.length" in str(each.message)]
    assert len(said) == is_told
    assert all("after 1 step, in which" in each for each in said)
