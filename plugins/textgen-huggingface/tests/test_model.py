"""The model: training, decoding, and what it refuses. transformers itself is the reference."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from conftest import CONTEXT

import textgen
from textgen import BuildContext, PipelineError

PROMPT = "The time"


def weights(path):
    return (path / "model.safetensors").read_bytes()


def decoder(run, batch_size=1):
    return run.generator.model.decoder(batch_size)


def tokens(*shape):
    return np.random.default_rng(0).integers(0, 256, shape)


def reopened(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def built(options, run, **context):
    """The model of other options with the tokenizer of a run."""
    from textgen_huggingface.plugin import HuggingFaceConfig, build_model

    context = {
        "folder": Path.cwd(),
        "requested_device": "cpu",
        "tokenizer": run.generator.tokenizer,
    } | context
    return build_model(HuggingFaceConfig(**options), BuildContext(**context))


def test_evaluations_read_contexts_as_long_as_texts_have(run, corpus):
    text = corpus.read_text(encoding="utf-8")
    held_out = text[-round(len(text) / 10) :]
    loss = textgen.load(run.path, device="cpu").score(held_out).loss
    assert run.best_loss == pytest.approx(loss, rel=0.01)


def test_training_lowers_the_loss(run):
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"] < np.log(300)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(
    make_pipeline, tmp_path
):
    def trained(name, **changes):
        return weights(textgen.run(make_pipeline() | changes, output=tmp_path / name).path)

    first = trained("first")
    torch.manual_seed(99)  # of no influence
    before = torch.get_rng_state()
    assert trained("again") == first
    assert trained("other", seed=2) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_those_of_transformers(run):
    """The same draws as transformers makes from a seeded global generator."""
    options = run.pipeline.model.options
    ours = built({"architecture": options.architecture, "config": options.config}, run, seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        theirs = type(ours.model)(ours.model.config)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, ours.model.state_dict()[name]), name


def test_greedy_text_is_what_transformers_generates_from_the_run_directory(run):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.path, local_files_only=True)
    ids = tokenizer(PROMPT, return_tensors="pt")
    count = CONTEXT - ids["input_ids"].shape[1]
    made = reopened(run.path).generate(**ids, max_new_tokens=count, do_sample=False)[0, -count:]
    ours = run.generator.generate(ids["input_ids"][0].tolist(), max_new_tokens=count)
    assert list(ours.tokens) == made.tolist()
    assert ours.text == tokenizer.decode(made)


def test_transformers_ends_the_texts_of_a_run_on_documents_where_the_run_does(
    make_pipeline, tmp_path
):
    from transformers import AutoTokenizer

    lines = "".join(json.dumps({"text": f"The time: {n % 9} 🍵."}) + "\n" for n in range(200))
    (tmp_path / "texts.jsonl").write_text(lines)
    corpus = {"type": "file", "path": str(tmp_path / "texts.jsonl"), "documents": "jsonl"}
    pipeline = make_pipeline() | {"corpus": corpus}
    pipeline["trainer"]["length"] = "12 epochs"
    made = textgen.run(pipeline, output=tmp_path / "run")
    ours = made.generator.generate(PROMPT, max_new_tokens=20)
    assert ours.finish_reason == "end"
    tokenizer = AutoTokenizer.from_pretrained(made.path, local_files_only=True)
    start = tokenizer.decode(made.generator.record["priming"])
    assert start.endswith("<|endoftext|>")
    ids = tokenizer(start + PROMPT, return_tensors="pt")
    theirs = reopened(made.path).generate(
        **ids, max_new_tokens=20, do_sample=False, eos_token_id=made.generator.tokenizer.end_id
    )[0]
    assert theirs.tolist()[-len(ours.tokens) :] == [*ours.tokens]
    assert tokenizer.decode(theirs).startswith(start + PROMPT + ours.text)


def test_a_run_directory_holds_the_best_weights_under_the_names_of_transformers(run):
    theirs = reopened(run.path).state_dict()
    for name, array in run.generator.model.tensors().items():
        assert np.array_equal(array, theirs[name].numpy()), name


def test_an_empty_prompt_starts_after_the_start_text(run):
    newline = run.generator.tokenizer.encode("\n")[None]
    np.testing.assert_allclose(
        decoder(run).extend(tokens(1, 0)), decoder(run).extend(newline), atol=1e-6
    )
    asked, unasked = decoder(run), decoder(run)
    asked.extend(tokens(1, 0))  # leaves nothing behind
    np.testing.assert_array_equal(asked.extend(tokens(1, 3)), unasked.extend(tokens(1, 3)))


def test_without_a_known_start_text_every_token_is_as_likely(run):
    options = run.pipeline.model.options
    model = built(
        {"architecture": options.architecture, "config": options.config, "start_text": ""}, run
    )
    assert not model.decoder(2).extend(tokens(2, 0)).any()


def test_state_can_be_saved_restored_and_forked(run):
    ids = tokens(3, 12)
    first = decoder(run, 3)
    last = first.extend(ids[:, :8])
    state = first.read_state()
    kept = {name: array.copy() for name, array in state.items()}
    for array in state.values():
        array[:] = 0  # a copy, so this changes nothing
    expected = first.extend(ids[:, 8:]).copy()
    state = kept
    other = decoder(run, 1)
    other.extend(ids[:1, 4:])
    other.write_state(state)
    assert other.batch_size == 3
    np.testing.assert_allclose(other.extend(ids[:, :0]), last, atol=1e-5)
    np.testing.assert_allclose(other.extend(ids[:, 8:]), expected, atol=1e-5)
    rows = [2, 0, 0, 2]
    other.write_state({name: array[rows] for name, array in state.items()})
    np.testing.assert_allclose(other.extend(ids[rows, 8:]), expected[rows], atol=1e-5)
    other.write_state(decoder(run, 2).read_state())
    np.testing.assert_allclose(other.extend(ids[:2]), decoder(run, 2).extend(ids[:2]), atol=1e-6)


def test_rows_of_a_batch_are_independent(run):
    ids = tokens(4, 5)
    together, alone = decoder(run, 4), [decoder(run) for _ in range(4)]
    logits, feed = None, ids
    for _ in range(30):  # over the border of the context
        logits = together.extend(feed)
        apart = np.concatenate([d.extend(feed[i : i + 1]) for i, d in enumerate(alone)])
        np.testing.assert_allclose(logits, apart, atol=1e-5)
        feed = logits.argmax(-1)[:, None]
        assert (feed == apart.argmax(-1)[:, None]).all()


def test_a_full_context_keeps_its_last_half(run):
    ids = tokens(2, 3 * CONTEXT)
    stepwise = decoder(run, 2)
    steps = np.stack(
        [stepwise.extend(ids[:, i : i + 1]).copy() for i in range(ids.shape[1])], axis=1
    )
    np.testing.assert_allclose(decoder(run, 2).score(ids), steps, atol=1e-5)
    np.testing.assert_allclose(decoder(run, 2).extend(ids), steps[:, -1], atol=1e-5)
    half = CONTEXT // 2
    np.testing.assert_allclose(
        decoder(run, 2).extend(ids[:, half : CONTEXT + 1]), steps[:, CONTEXT], atol=1e-5
    )
    assert stepwise.read_state()["tokens"].shape[1] <= CONTEXT


def test_streams_read_on_from_window_to_window(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    pipeline["data"]["window_length"] = 8
    pipeline["trainer"] |= {"order": "streams", "length": "1 epoch"}
    assert textgen.run(pipeline, output=tmp_path / "run").outcome == "trained"


def test_dropout_is_repeatable_survives_an_interruption_and_draws_from_no_global_generator(
    make_pipeline, tmp_path
):
    pipeline = make_pipeline(dropout=0.2)
    pipeline["trainer"]["length"] = "1 epoch"
    before = torch.get_rng_state()
    whole = textgen.run(pipeline, output=tmp_path / "whole")
    steps = []
    with pytest.raises(textgen.Interrupted):
        textgen.run(
            pipeline,
            output=tmp_path / "parts",
            cancelled=lambda: bool(steps.append(1)) or len(steps) == 3,
        )
    resumed = textgen.run(pipeline, output=tmp_path / "parts")
    assert resumed.outcome == "resumed"
    assert weights(resumed.path) == weights(whole.path)
    assert torch.equal(torch.get_rng_state(), before)
    dry = make_pipeline()
    dry["trainer"]["length"] = "1 epoch"
    assert weights(textgen.run(dry, output=tmp_path / "dry").path) != weights(whole.path)


def test_a_model_without_a_plain_cache_is_fed_its_whole_context(run):
    config = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 4}
    model = built({"architecture": "mamba", "config": config}, run)
    ids = tokens(2, 6)
    whole, state = model(torch.from_numpy(ids))
    steps = model.decoder(2)
    stepwise = np.stack([steps.extend(ids[:, i : i + 1]).copy() for i in range(6)], axis=1)
    np.testing.assert_allclose(stepwise, whole.detach().numpy(), atol=1e-5)
    other = model.decoder(1)
    other.write_state(steps.read_state())
    np.testing.assert_allclose(other.extend(ids[:, :1]), steps.extend(ids[:, :1]), atol=1e-5)
    more, _ = model(torch.from_numpy(ids[:, :1]), state)
    np.testing.assert_allclose(more[:, 0].detach().numpy(), steps.extend(ids[:, :0]), atol=1e-5)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """A model as transformers saves it, with a vocabulary padded beyond the tokenizer's, and its
    tokenizer.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    options = run.pipeline.model.options
    path = tmp_path_factory.mktemp("folder")
    config = AutoConfig.for_model(
        options.architecture, vocab_size=320, **options.config, bos_token_id=7, eos_token_id=None
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    shutil.copy(run.path / "tokenizer.json", path)
    return path


@pytest.fixture
def quoting(folder, make_pipeline, tmp_path):
    """A pipeline that trains the model of a copy of `folder` on."""
    copy = Path(shutil.copytree(folder, tmp_path / "original"))
    pipeline = make_pipeline(None, path=str(copy), config=None)
    pipeline["tokenizer"] = {"type": "huggingface-tokenizer", "path": str(copy)}
    return pipeline


def test_a_folder_is_loaded_trained_on_and_no_longer_needed(folder, quoting, tmp_path):
    theirs = reopened(folder)
    model = textgen.Engine().pipeline(quoting).model.options
    made = textgen.run(quoting, output=tmp_path / "run")
    start = built({"path": model.path}, made)
    ids = tokens(2, 9)
    with torch.inference_mode():
        expected = theirs(input_ids=torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(start.decoder(2).score(ids), expected[..., :300], atol=1e-5)
    begin = start.decoder(1).extend(np.full((1, 1), 7))
    np.testing.assert_allclose(start.decoder(1).extend(tokens(1, 0)), begin, atol=1e-6)
    shutil.rmtree(model.path)
    again = textgen.load(made.path, device="cpu").generate("", max_new_tokens=4)
    assert again.tokens == made.generations[0].tokens
    edited = (made.path / "pipeline.toml").read_text().replace("seed = 1", "seed = 2", 1)
    (made.path / "pipeline.toml").write_text(edited)
    with pytest.warns(UserWarning, match="changed"):
        assert textgen.load(made.path, device="cpu").generate("", max_new_tokens=4).tokens
    assert reopened(made.path).config.vocab_size == 320


def test_a_config_beside_the_pipeline_is_not_the_models(quoting, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "p.toml").write_text(tomli_w.dumps(quoting))
    assert textgen.run(tmp_path / "p.toml", output=tmp_path / "run").generations


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "there is no folder"),
        (lambda path: (path / "config.json").unlink(), "has no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "is not valid JSON"),
        (
            lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
            "pickled files are not read",
        ),
        (lambda path: (path / "model.safetensors").write_bytes(b"no weights"), "cannot be loaded"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(quoting, tmp_path, spoil, said):
    path = Path(quoting["model"]["path"])
    quoting["tokenizer"]["path"] = shutil.copy(path / "tokenizer.json", tmp_path)
    spoil(path)
    with pytest.raises(PipelineError) as caught:
        textgen.run(quoting, output=tmp_path / "run")
    assert caught.value.argument == "model.path"
    assert said in str(caught.value)


def test_a_folder_that_lacks_weights_is_refused_and_none_are_made_up(quoting, tmp_path):
    from safetensors.numpy import load_file, save_file

    file = Path(quoting["model"]["path"]) / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2 and "mlp" in name)
    save_file(
        {key: tensor for key, tensor in tensors.items() if key != name},
        file,
        metadata={"format": "pt"},
    )
    before = torch.get_rng_state()
    with pytest.raises(PipelineError) as caught:
        textgen.run(quoting, output=tmp_path / "run")
    assert caught.value.argument == "model.path"
    assert name in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_a_folder_is_silent_and_leaves_the_settings_of_transformers(quoting, tmp_path):
    program = """
import json, sys, textgen
from transformers.utils import logging
settings = logging.is_progress_bar_enabled(), logging.get_verbosity()
textgen.run(json.loads(sys.argv[1]), output=sys.argv[2])
assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == settings
assert settings[0]
"""
    environment = {
        key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"
    }
    line = [sys.executable, "-c", program, json.dumps(quoting), str(tmp_path / "run")]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_folder_counts_by_what_is_in_it_and_not_by_its_place(quoting, tmp_path):
    from safetensors.numpy import load_file, save_file

    textgen.run(quoting, output=tmp_path / "run")
    first, second = Path(quoting["model"]["path"]), tmp_path / "moved"
    first.rename(second)
    with pytest.raises(PipelineError) as caught:
        textgen.run(
            quoting | {"tokenizer": {**quoting["tokenizer"], "path": str(second)}},
            output=tmp_path / "run",
        )
    assert caught.value.argument == "model.path"
    quoting["model"]["path"] = quoting["tokenizer"]["path"] = str(second)
    assert textgen.run(quoting, output=tmp_path / "run").outcome == "skipped"
    tensors = load_file(second / "model.safetensors")
    save_file(
        {k: v + 1 for k, v in tensors.items()},
        second / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run(quoting, output=tmp_path / "run")
    assert {each.key for each in caught.value.differences} == {"model.files.model.safetensors"}
    save_file(tensors, second / "model.safetensors", metadata={"format": "pt"})
    (second / "tokenizer.json").write_text((second / "tokenizer.json").read_text() + " ")
    with pytest.raises(textgen.RunMismatchError) as caught:
        textgen.run(quoting, output=tmp_path / "run")
    assert all(each.key.startswith("tokenizer.files.") for each in caught.value.differences)


def test_a_tokenizer_of_another_model_is_refused(quoting, tmp_path):
    quoting["tokenizer"] = {"type": "bpe", "vocab_size": 400}
    with pytest.raises(PipelineError, match="320 tokens"):
        textgen.run(quoting, output=tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "argument", "said"),
    [
        ({"architecture": "gtp2"}, "model.architecture", "did you mean 'gpt2'"),
        ({"config": {"n_layrs": 2}}, "model.config.n_layrs", "did you mean 'n_layer'"),
        ({"config": {"vocab_size": 9}}, "model.config.vocab_size", ""),
        ({"config": {"n_embd": 33, "n_head": 2}}, "model.config", "transformers refuses it"),
        ({"config": {"n_layer": "two"}}, "model.config", "transformers refuses it"),
        ({"architecture": None}, "model", "architecture"),
        ({"path": "somewhere"}, "model", "architecture"),
        ({"dropout": 1.0}, "model.dropout", ""),
    ],
)
def test_a_wrong_option_is_named(make_pipeline, tmp_path, model, argument, said):
    with pytest.raises(PipelineError) as caught:
        textgen.run(make_pipeline(**model), output=tmp_path / "run")
    assert caught.value.argument == argument
    assert said in str(caught.value)


def test_a_window_longer_than_the_context_is_refused(make_pipeline, tmp_path):
    pipeline = make_pipeline() | {"data": {"window_length": CONTEXT + 1}}
    with pytest.raises(textgen.UsageError, match="25 tokens"):
        textgen.run(pipeline, output=tmp_path / "run")


def test_a_model_that_looks_at_later_tokens_is_refused(make_pipeline, tmp_path):
    config = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    with pytest.raises(textgen.ContractError) as caught:
        textgen.run(make_pipeline("bert", config=config), output=tmp_path / "run")
    assert caught.value.kind == "model"


def test_weights_of_another_shape_are_refused(run):
    model = textgen.load(run.path, device="cpu").model
    tensors = model.tensors()
    name = next(iter(tensors))
    with pytest.raises(ValueError, match=f"{name} is missing; other is not known"):
        model.load_tensors(
            {**{k: v for k, v in tensors.items() if k != name}, "other": tensors[name]}
        )
    with pytest.raises(ValueError, match=f"{name} is float64"):
        model.load_tensors({**tensors, name: tensors[name].astype(np.float64)})
