"""Commands from the shell: export, files of a run directory, and lists that load nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import textgen

PACKAGE = Path(__file__).parents[1]


def test_export_writes_a_folder_that_generates_the_same_text(run, command, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    folder = tmp_path / "exported"
    done = command("huggingface-export", run.path, folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if path != folder]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    plain = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer("It's the café", return_tensors="pt")
    assert plain("It's the café")["input_ids"] == ids["input_ids"][0].tolist()
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    made = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    prompt = run.generator.prepare("It's the café").ids  # ids, which follow nothing
    assert run.generator.generate(prompt, max_new_tokens=8).text == tokenizer.decode(made)


def test_export_refuses_a_folder_in_use_and_another_model(command, corpus, tmp_path):
    (tmp_path / "mine").write_text("keep")
    done = command("huggingface-export", tmp_path / "rnn", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is there already" in done.stderr
    rnn = {
        "corpus": {"type": "file", "path": str(corpus)},
        "tokenizer": {"type": "char"},
        "model": {"type": "rnn", "hidden_size": 4},
        "trainer": {"type": "sgd", "length": "1 epoch"},
        "observer": [],
        "generate": {"max_new_tokens": 0},
    }
    textgen.run(rnn, output=tmp_path / "rnn")
    done = command("huggingface-export", tmp_path / "rnn", tmp_path / "new")
    assert done.returncode == 2
    assert "holds no model of type 'huggingface'" in done.stderr
    with pytest.raises(textgen.UsageError):
        textgen.run(rnn | {"observer": [{"type": "huggingface-files"}]}, output=tmp_path / "other")


def test_a_character_tokenizer_works_too(make_pipeline, tmp_path):
    pipeline = make_pipeline() | {"tokenizer": {"type": "char", "letters_only": True}}
    pipeline["trainer"]["length"] = "1 epoch"
    run = textgen.run(pipeline, output=tmp_path / "run")
    assert len(run.generator.generate("The time", max_new_tokens=5).text) == 5
    assert not (run.path / "tokenizer_config.json").exists()


def test_the_pipeline_of_this_package_is_whole(command, tmp_path):
    shown = command("show", PACKAGE / "pipeline.toml")
    assert shown.returncode == 0, shown.stderr
    (tmp_path / "pipeline.toml").write_text(shown.stdout, encoding="utf-8")
    engine = textgen.Engine()
    again = engine.pipeline(tmp_path / "pipeline.toml").to_dict()
    first = engine.pipeline(PACKAGE / "pipeline.toml").to_dict()
    assert again == first


def test_listing_and_checking_load_no_torch():
    script = (
        "import sys, textgen\n"
        "plugins = textgen.PluginSet.discover()\n"
        "assert not plugins.quarantined\n"
        "textgen.Engine(plugins).pipeline(sys.argv[1])\n"
        "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, PACKAGE / "pipeline.toml"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []


def test_the_readme_opens_a_run(run, capsys):
    block = (
        (PACKAGE / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    )
    block = block.replace("runs/pipeline", str(run.path)).replace(
        "max_new_tokens=40", "max_new_tokens=12"
    )
    exec(block, {})
    expected = run.generator.generate(run.generator.prepare("The lamp").ids, max_new_tokens=12)
    assert capsys.readouterr().out == f"The lamp{expected.text}\n"
