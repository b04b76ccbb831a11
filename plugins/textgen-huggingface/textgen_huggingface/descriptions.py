"""What is written beside an exported model: its card, and a Modelfile for Ollama."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from textgen import PipelineError
from textgen.files import MAX_BYTES
from textgen.protocols import Table
from textgen_huggingface.locations import located
from textgen_huggingface.model_folder import find_file, is_gguf

if TYPE_CHECKING:
    from textgen import Generator
    from textgen_huggingface.hub import HubName

CARD: Final = "README.md"
MODELFILE: Final = "Modelfile"
_LICENCES: Final = ("LICENSE", "LICENSE.txt", "LICENSE.md")
_SETTINGS: Final = ("data", "model", "trainer")  # tables of a pipeline


@attrs.frozen
class Base:
    """What is known about the model that a run was tuned from.

    name       as a reader knows it
    hub        owner/name on the Hugging Face Hub; "" if that is not known
    licence    an identifier such as "apache-2.0"; "" if that is not known
    licence_files   files with the text of it
    """

    name: str
    hub: str = ""
    licence: str = ""
    languages: tuple[str, ...] = ()
    licence_files: tuple[Path, ...] = ()

    @classmethod
    def of(cls, path: HubName | Path | None) -> Base | None:
        """The base of a model with this option, by its files if they are there; None for a model
        that was trained from scratch.
        """
        if path is None:
            return None
        hub = "" if isinstance(path, Path) else path.partition("@")[0]
        name = path.name if isinstance(path, Path) else hub
        with contextlib.suppress(PipelineError):  # not in the cache, where a whole run needs none
            found = located(path, "model.path")
            if is_gguf(found):
                return cls._of_gguf(found)
            if found.is_dir():
                return cls._of_folder(found, name, hub)
        return cls(name, hub)

    @classmethod
    def _of_folder(cls, path: Path, name: str, hub: str) -> Base:
        facts = _read_card(path)
        languages = facts.get("language")
        files = [file for each in _LICENCES if (file := _find_file(path, each))]
        return cls(
            name,
            hub,
            _text(facts.get("license")),
            tuple(map(_text, [languages] if isinstance(languages, str) else languages or ())),
            tuple(files),
        )

    @classmethod
    def _of_gguf(cls, path: Path) -> Base:
        import gguf

        fields = gguf.GGUFReader(path).fields
        values = {
            name: fields[key].contents()
            for name in ("name", "organization", "repo_url", "license", "languages")
            if (key := f"general.{name}") in fields
        }
        title = [_text(values.get(name)) for name in ("organization", "name")]
        prefix, _, hub = _text(values.get("repo_url")).partition("https://huggingface.co/")
        return cls(
            " ".join(filter(None, title)) or path.stem,
            "" if prefix else hub,
            _text(values.get("license")),
            tuple(map(_text, values.get("languages") or ())),
        )

    def metadata(self) -> dict[str, Any]:
        """What the Hub accepts of it at the top of a card."""
        known = re.fullmatch(r"[a-z0-9.-]+", self.licence)
        found = {
            "license": self.licence if known else "other" if self.licence else "",
            "base_model": self.hub if re.fullmatch(r"[\w.-]+/[\w.-]+", self.hub) else "",
            "language": [each for each in self.languages if re.fullmatch("[a-z]{2,3}", each)],
        }
        return {key: value for key, value in found.items() if value}


def sampling(generator: Generator) -> dict[str, float]:
    """The run's sampling settings, by the names that Ollama has for them, which are those of
    transformers too; also what is off, since other programs have other defaults.
    """
    found = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
    found |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    names = {
        "temperature": {"temperature": "temperature"},
        "top-k": {"k": "top_k"},
        "top-p": {"p": "top_p"},
        "min-p": {"p": "min_p"},
        "penalties": {
            "repetition": "repeat_penalty",
            "presence": "presence_penalty",
            "frequency": "frequency_penalty",
        },
    }
    for table in generator.tables.get("sampler", ()):
        kind = str(table["type"]).rpartition(":")[2]
        if kind == "greedy":
            found["temperature"] = 0.0
        found |= {
            ours: table[theirs] for theirs, ours in names.get(kind, {}).items() if theirs in table
        }
    return found


def modelfile(generator: Generator, file: Path, base: Path | None, *, chat_template: bool) -> str:
    """A Modelfile for the GGUF file `file` in its folder; `base` is the GGUF file of the model if
    that is an adapter.
    """
    name = file.stem
    lines = [f"# ollama create {name} -f Modelfile", f'# ollama run {name} "The door opened, and"']
    if base is None:
        lines.append(f"FROM ./{file.name}")
    else:
        lines += [f"FROM {base.absolute()}", f"ADAPTER ./{file.name}"]
    if not chat_template:
        lines.append('TEMPLATE "{{ .Prompt }}"')
    settings: dict[str, Any] = sampling(generator)
    if settings["repeat_penalty"] != 1:
        settings["repeat_last_n"] = -1  # the whole context
    if (length := generator.defaults.get("max_new_tokens")) is not None:
        settings["num_predict"] = length
    lines += [f"PARAMETER {key} {value:.9g}" for key, value in settings.items()]
    lines += [f'PARAMETER stop """{text}"""' for text in generator.defaults.get("stop", ())]
    return "\n".join(lines) + "\n"


def model_card(
    generator: Generator,
    base: Base | None,
    name: str,
    file: str = "",
    *,
    adapter: bool = False,
    source: str = "FOLDER",
) -> str:
    """The README.md of an exported model, in the form of the Hugging Face Hub.

    name    of the model
    file    the name of the GGUF file, if it is one
    source  where transformers finds the folder
    """
    library = "gguf" if file else "peft" if adapter else "transformers"
    head: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-generation"}
    head["tags"] = ["textgen"]
    if base is not None:
        head |= base.metadata()
    parts = [
        "---\n" + "".join(f"{key}: {_yaml(value)}\n" for key, value in head.items()) + "---",
        f"# {name}",
        _origin(generator, base, adapter=adapter),
        "## Training\n\n" + _facts(generator),
        "## Settings\n\n" + _rows({"setting": "value"} | _settings(generator.tables)),
        "## Writing with it\n\n" + _usage(generator, base, file, source, adapter=adapter),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(generator: Generator, base: Base | None, *, adapter: bool) -> str:
    what = "An adapter (LoRA) for a language model" if adapter else "A language model"
    if base is None:
        return f"{what}, trained from scratch with textgen. It continues texts."
    said = f"{what}, tuned with textgen. It continues texts.\n\nThe base is {base.name}"
    if base.licence:
        said += f", under the licence {base.licence}, which also holds for this model."
    else:
        said += ", whose files name no licence: look it up before you publish this model."
    if (before := generator.tables["model"].get("adapter")) is not None:
        said += f" The adapter {Path(before).name!r} was added to it before."
    return said


def _facts(generator: Generator) -> str:
    record, corpus = generator.record, generator.tables.get("corpus", {})
    data = record.get("data", {})
    text = corpus.get("path") if isinstance(corpus, Mapping) else None
    paths = text if isinstance(text, (list, tuple)) else [text]
    names = [Path(path).name for path in paths if isinstance(path, str)]
    rows: dict[str, Any] = {"fact": "value", "text": ", ".join(names) or "not a file"}
    characters = record.get("fingerprint", {}).get("corpus", {}).get("characters")
    counts = {
        "characters": characters,
        "tokens to train on": data.get("training_tokens"),
        "tokens held out": data.get("validation_tokens"),
        "steps": record.get("best_step"),
    }
    rows |= {key: f"{value:,}" for key, value in counts.items() if isinstance(value, int)}
    losses = {
        "loss on the text": record.get("last_loss"),
        "loss on what was held out": record.get("best_loss"),
    }
    for key, loss in losses.items():
        if isinstance(loss, float) and math.isfinite(loss):
            rows[key] = f"{loss:.3f} nats a token (perplexity {math.exp(min(loss, 99)):.1f})"
    return _rows(rows)


def _settings(tables: Table) -> dict[str, Any]:
    """Settings of training: numbers and words, and no paths."""
    found = {"seed": tables.get("seed")}
    for kind in _SETTINGS:
        for key, value in dict(tables.get(kind) or {}).items():
            if isinstance(value, Mapping):
                found |= {f"{kind}.{key}.{inner}": each for inner, each in value.items()}
            elif key not in ("path", "adapter", "start", "start_text"):
                found[f"{kind}.{key}"] = value
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, (int, float)) or (isinstance(value, str) and not {*value} & {*"/\\"})
    }


def _usage(
    generator: Generator, base: Base | None, file: str, source: str, *, adapter: bool
) -> str:
    settings = sampling(generator)
    length = generator.defaults.get("max_new_tokens", 200)
    if file:
        options = {
            "--temp": settings["temperature"],
            "--top-k": settings["top_k"],
            "--top-p": settings["top_p"],
            "--min-p": settings["min_p"],
            "--repeat-penalty": settings["repeat_penalty"],
            "-n": length,
        }
        shown = " ".join(f"{key} {value:.9g}" for key, value in options.items())
        model = f"-m BASE.gguf --lora {file}" if adapter else f"-m {file}"
        command = f'llama-completion {model} -no-cnv {shown} -p "The door opened, and"'
        return f"With llama.cpp:\n\n```sh\n{command}\n```"
    if settings["temperature"] == 0:
        options = {"do_sample": False}
    else:
        options = {"do_sample": True} | {
            key: settings[key] for key in ("temperature", "top_k", "top_p", "min_p")
        }
    options["repetition_penalty"] = settings["repeat_penalty"]
    options["max_new_tokens"] = length
    shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    folder, loads = json.dumps(source), "AutoModelForCausalLM.from_pretrained"
    model = f"{loads}({folder})"
    if adapter:
        imports = f"from peft import PeftModel\n{imports}"
        name = base.hub if base is not None and base.hub else "BASE"
        model = f"PeftModel.from_pretrained({loads}({json.dumps(name)}), {folder})"
    code = (
        f"{imports}\ntokenizer = AutoTokenizer.from_pretrained({folder})\nmodel = {model}\n"
        'ids = tokenizer("The door opened, and", return_tensors="pt")\n'
        f"text = model.generate(**ids, {shown})\nprint(tokenizer.decode(text[0]))"
    )
    return f"With `transformers`:\n\n```python\n{code}\n```"


def _rows(rows: Mapping[str, Any]) -> str:
    """A table of Markdown, whose first row is its head."""
    lines = [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    return "\n".join([lines[0], "| --- | --- |", *lines[1:]])


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _read_card(folder: Path) -> dict[str, Any]:
    """The metadata in a model folder's README.md, if that has any."""
    from huggingface_hub.repocard import metadata_load

    file = _find_file(folder, CARD)
    if file is None or file.stat().st_size > MAX_BYTES:
        return {}
    try:
        return metadata_load(file) or {}
    except Exception:  # a stranger's YAML
        return {}


def _find_file(folder: Path, name: str) -> Path | None:
    """A file of the base; None if there is none, or one that is refused."""
    with contextlib.suppress(PipelineError):
        return find_file(folder, name, "model.path")
    return None


def _text(value: Any) -> str:
    """A value on one line; "" for what is no text."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # which is YAML, too
