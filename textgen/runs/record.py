"""The run record, run.json: origin of the components, fingerprint and progress of a run."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import attrs
import tomli_w

from textgen.data import Dataset
from textgen.errors import Difference, RunMismatchError
from textgen.files import dump_tensors
from textgen.pipeline.pipeline import Pipeline
from textgen.pipeline.structure import Choice, flat
from textgen.protocols import Tokenizer
from textgen.runs.checkpoints import Progress
from textgen.runs.corpus import CorpusDigest
from textgen.runs.directory import RunDirectory
from textgen.runs.observers import Stopped


def fingerprint(pipeline: Pipeline, digest: CorpusDigest | None = None) -> dict[str, Any]:
    """Everything that determines the model. The corpus is identified by its text, not its path; None leaves it out.

    A config class may define `fingerprint() -> dict` to choose which of its options count.
    """
    tables = pipeline.to_dict()
    shape = {key: tables[key] for key in ("seed", "tokenizer", "data", "model", "trainer")}
    for key in ("tokenizer", "model", "trainer"):
        shape[key] = _identity(getattr(pipeline, key))
    # Of the observers, those that may end a run early: their config classes have a fingerprint.
    ending = [choice for choice in pipeline.observers if hasattr(choice.options, "fingerprint")]
    shape["observer"] = {choice.offer.canonical_name: choice.options.fingerprint() for choice in ending}
    return shape if digest is None else {**shape, "corpus": attrs.asdict(digest)}


def _identity(choice: Choice) -> dict[str, Any]:
    """What of a component determines the model."""
    if hasattr(choice.options, "fingerprint"):
        return {"type": choice.offer.canonical_name, **choice.options.fingerprint()}
    return {
        **choice.table(),
        "type": choice.offer.canonical_name,
        **{key: _identity(part) for key, part in choice.parts().items()},
    }


def compare(directory: RunDirectory, record: Mapping[str, Any] | None, shape: Mapping[str, Any]) -> None:
    """Raise RunMismatchError if the run directory was made by another pipeline."""
    if record is not None and (differences := _differences(record, shape)):
        raise RunMismatchError(directory.path, differences)


def _differences(record: Mapping[str, Any], shape: Mapping[str, Any]) -> list[Difference]:
    kept = {key: value for key, value in record["fingerprint"].items() if key != "corpus" or key in shape}
    before, now = flat(kept), flat(shape)
    keys = [key for key in before | now if before.get(key) != now.get(key)]
    return [Difference(key, before.get(key), now.get(key)) for key in keys]


def write_pipeline(pipeline: Pipeline, directory: RunDirectory) -> None:
    """Write the pipeline with every default filled in and this directory as its output."""
    directory.write_artifact("pipeline.toml", _text(pipeline))


def is_written(pipeline: Pipeline, directory: RunDirectory) -> bool:
    """Whether pipeline.toml in the directory is this pipeline, key for key."""
    try:
        return directory.inside("pipeline.toml").read_bytes() == _text(pipeline)
    except OSError:
        return False


def begin(
    pipeline: Pipeline, directory: RunDirectory, digest: CorpusDigest, tokenizer: Tokenizer, data: Dataset, device: str
) -> dict[str, Any]:
    """Write tokenizer.json and run.json before training, and return the record."""
    vocabulary = (json.dumps(tokenizer.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()
    record = {
        "status": "training",
        "step": 0,
        "seed": pipeline.seed,
        "fingerprint": fingerprint(pipeline, digest),
        "data": {
            "training_tokens": len(data.training),
            "validation_tokens": len(data.validation),
            "vocab_size": tokenizer.vocab_size,
        },
        "components": [
            {"kind": choice.offer.kind, "name": choice.offer.name, **choice.offer.plugin.facts()}
            for choice in pipeline.choices()
        ],
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            **{name: metadata.version(name) for name in ("textgen-engine", "numpy", "torch")},
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {"tokenizer.json": directory.write_artifact("tokenizer.json", vocabulary)},
    }
    directory.write_run(record)
    return record


def as_decided(pipeline: Pipeline, directory: RunDirectory) -> Pipeline:
    """The pipeline with what its trainer decided in an earlier part of this run; itself if that was nothing."""
    record = directory.read_run() if directory.exists() else {}
    options = record.get("settled")
    if not options or _differences(record, fingerprint(pipeline)):
        return pipeline
    made = settle(pipeline, options)
    return pipeline if made.trainer == pipeline.trainer else made


def settle(pipeline: Pipeline, options: Mapping[str, Any]) -> Pipeline:
    """The pipeline with options that its trainer decided, as an event or a run record has them."""

    def changed(choice: Choice, options: Mapping[str, Any]) -> Choice:
        parts = choice.parts()
        new = {key: changed(parts[key], value) if key in parts else value for key, value in options.items()}
        return attrs.evolve(choice, options=attrs.evolve(choice.options, **new))

    return attrs.evolve(pipeline, trainer=changed(pipeline.trainer, options))


def finish(
    directory: RunDirectory, record: Mapping[str, Any], progress: Progress, stopped: Stopped | None = None
) -> None:
    """Write the best weights, then mark the run finished; `stopped` says which observer ended it early."""
    step = progress.best_step if progress.best_step is not None else progress.step
    tensors = directory.checkpoints.read(step).tensors
    weights = directory.write_artifact("model.safetensors", dump_tensors(tensors))
    files = {**record["files"], "model.safetensors": weights}
    early = {} if stopped is None else {"stopped": attrs.asdict(stopped)}
    directory.write_run({**record, "status": "finished", **attrs.asdict(progress), **early, "files": files})


def origins(record: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """The distributions of a run's components by kind and name."""
    return {(entry["kind"], entry["name"]): entry["distribution"] for entry in record.get("components", ())}


def _text(pipeline: Pipeline) -> bytes:
    return tomli_w.dumps({**pipeline.to_dict(), "output": "."}).encode()
