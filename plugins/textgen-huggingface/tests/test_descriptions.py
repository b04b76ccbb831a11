"""What is written beside an exported model: its card, the licence, and a Modelfile for Ollama."""

import pytest
from conftest import export
from gguf import GGUFReader
from huggingface_hub import ModelCard

import textgen

CARD = "---\nlicense: mit\nlanguage: [de, Klingon]\n---\n# Base\n"


@pytest.fixture
def folder(run, tmp_path):
    """A model folder with a licence."""
    folder = tmp_path / "base-model"
    assert export(run.path, folder).exit_code == 0
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("MIT License")
    return folder


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it
def test_a_folder_has_a_card_whose_code_runs_and_the_licence_of_its_base(
    folder, tune, tmp_path, capsys
):
    tuned = tune(folder, 1e-4, lora={"rank": 1})
    for name, arguments in (("whole", ()), ("adapter", ("--adapter",))):
        result = export(tuned, tmp_path / name, *arguments)
        assert result.exit_code == 0, result.exception
        assert (tmp_path / name / "LICENSE").read_text() == "MIT License"
        card = ModelCard.load(tmp_path / name / "README.md")
        assert card.data.license == "mit"
        assert card.data.language == ["de"]
        assert card.data.base_model is None
        assert card.data.library_name == ("peft" if arguments else "transformers")
        assert "| text | text.txt |" in card.text
        assert "base-model" in card.text
        assert str(tmp_path.parent) not in card.text
        assert "| model.lora.rank | 1 |" in card.text
        code = card.text.split("```python\n")[1].split("```")[0]
        code = code.replace('"FOLDER"', repr(str(tmp_path / name)))
        code = code.replace('"BASE"', repr(str(folder)))
        exec(code.replace("max_new_tokens=4", "max_new_tokens=2"), {})
        assert "The door opened, and" in capsys.readouterr().out


def test_a_card_without_a_base_and_with_an_odd_one(run, folder, tune, tmp_path):
    assert export(run.path, tmp_path / "new").exit_code == 0
    card = ModelCard.load(tmp_path / "new" / "README.md")
    assert card.data.license is None
    assert "trained from scratch" in card.text
    tuned = tune(folder, 1e-4, {"observer": [{"type": "huggingface-files"}]})
    odd = ("license: [", "- a", "license: {}", "license: null\nlanguage: {en: [1]}")
    for number, text in enumerate(f"---\n{head}\n---\n" for head in odd):
        (folder / "README.md").write_text(text)
        assert export(tuned, tmp_path / str(number)).exit_code == 0
        assert ModelCard.load(tmp_path / str(number) / "README.md").data.license is None
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert export(tuned, tmp_path / "gone").exit_code == 0  # the run has all weights
    assert "base-model" in (tmp_path / "gone" / "README.md").read_text()


def test_a_modelfile_writes_as_the_run_does(gguf_base, tune, tmp_path):
    samplers = [
        {"type": "penalties", "repetition": 1.2},
        {"type": "temperature", "temperature": 0.7},
    ]
    tables = {"sampler": samplers, "generate": {"max_new_tokens": 2_000_000, "stop": ["\n"]}}
    tuned = tune(gguf_base, tables=tables, lora={"rank": 1})
    for name, arguments in (("whole", ()), ("lora", ("--adapter",))):
        file = tmp_path / name / "mine.gguf"
        assert export(tuned, file, "--modelfile", *arguments).exit_code == 0
        lines = (file.parent / "Modelfile").read_text().splitlines()
        start = lines.index("FROM ./mine.gguf" if name == "whole" else f"FROM {gguf_base}")
        assert ("ADAPTER ./mine.gguf" in lines) == (name == "lora")
        assert 'TEMPLATE "{{ .Prompt }}"' in lines[start:]
        settings = dict(line.split(" ", 2)[1:] for line in lines if "PARAMETER" in line)
        assert settings["temperature"] == "0.7"
        assert settings["repeat_penalty"] == "1.2"
        assert (settings["top_k"], settings["top_p"], settings["min_p"]) == ("0", "1", "0")
        assert settings["num_predict"] == "2000000"
        assert settings["stop"] == '"""'
        fields = GGUFReader(file).fields
        assert fields["general.sampling.temp"].contents() == pytest.approx(0.7)
        assert fields["general.sampling.penalty_repeat"].contents() == pytest.approx(1.2)
        assert fields["general.sampling.top_k"].contents() == 0
    other = tmp_path / "whole" / "other.gguf"
    with pytest.raises(textgen.UsageError, match="Modelfile is there already"):
        raise export(tuned, other, "--modelfile").exception
    assert not other.exists()
    with pytest.raises(textgen.UsageError, match="--modelfile"):
        raise export(tuned, tmp_path / "folder", "--modelfile").exception
    with pytest.raises(textgen.UsageError, match="OWNER/NAME"):
        raise export(tuned, tmp_path / "folder", "--push", "name").exception
