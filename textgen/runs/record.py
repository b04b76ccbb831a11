"""Writes the record of a run, run.json, and the files whose checksums it holds."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import tomli_w

from textgen.data import Dataset
from textgen.errors import RunError, UsageError
from textgen.files.reading import read_bytes
from textgen.files.tensors import WEIGHTS, dump_tensors
from textgen.files.vocabularies import VOCABULARY, dump_vocabulary
from textgen.generation.generator import Generator
from textgen.pipeline.pipeline import Pipeline
from textgen.pipeline.raw_pipeline import MAX_BYTES
from textgen.plugin import discovery
from textgen.plugin.component import OWN_DISTRIBUTION
from textgen.protocols import Table
from textgen.runs.directory import RunDirectory, run_directory
from textgen.runs.encoded_text import EncodedText
from textgen.runs.fingerprint import fingerprint
from textgen.runs.formats import Progress, Stopped
from textgen.runs.split import unknown_share

_RECORDED_PACKAGES: Final = (OWN_DISTRIBUTION, "numpy", "torch")
_STOPPED: Final = Stopped("textgen run --finish", "by request")


def pipeline_is_on_disk(pipeline: Pipeline, directory: RunDirectory) -> bool:
    """Whether pipeline.toml in the directory is this pipeline, key for key, as run.json says too if
    there is one.
    """
    sha256 = hashlib.sha256(_toml(pipeline.to_dict())).hexdigest()
    try:
        read_bytes(directory.inside("pipeline.toml"), sha256)
        is_own = not directory.exists() or directory.read_run()["files"]["pipeline.toml"] == sha256
    except RunError:
        return False
    return is_own


def keep_changes(pipeline: Pipeline, directory: RunDirectory, record: Table) -> None:
    """Record what has changed in the pipeline of a finished run, such as its samplers, now that it
    has generated with them.
    """
    if pipeline_is_on_disk(pipeline, directory):
        return
    with directory.locked():
        if directory.read_run() == record:  # else another process has made another run of it
            files = {**record["files"], **_write_pipeline(pipeline, directory)}
            directory.write_run({**record, "files": files})


def _write_pipeline(pipeline: Pipeline, directory: RunDirectory) -> dict[str, str]:
    """Write pipeline.toml, and return its checksum by its name."""
    return {"pipeline.toml": directory.write_artifact("pipeline.toml", _toml(pipeline.to_dict()))}


def _toml(tables: Table) -> bytes:
    """A run's pipeline.toml, with its own directory as output. Raises UsageError."""
    data = tomli_w.dumps({**tables, "output": "."}).encode()
    if len(data) > MAX_BYTES:
        raise UsageError(f"the pipeline has {len(data):,} bytes, and can have {MAX_BYTES:,}")
    return data


def write_initial_record(
    pipeline: Pipeline,
    directory: RunDirectory,
    text: EncodedText,
    data: Dataset,
    device: str,
    progress: Progress,
    priming: Sequence[int],
    model: Any,
) -> dict[str, Any]:
    """Write pipeline.toml, tokenizer.json and run.json before training, and return the record."""
    learnt = None
    if hasattr(model, "parameters"):
        learnt = sum(int(each.numel()) for each in model.parameters() if each.requires_grad)
    record = {
        **attrs.asdict(progress),
        "status": "unfinished",
        "parameters": learnt,
        "seed": pipeline.seed,
        "fingerprint": fingerprint(pipeline, text.digest),
        "data": {
            "training_tokens": len(data.training),
            "validation_tokens": len(data.validation),
            "vocab_size": text.tokenizer.vocab_size,
            "unknown_share": unknown_share(data, text.tokenizer),
            "lost_share": text.lost_share,
            "held_out": text.held_out,
        },
        "priming": priming,
        "components": [
            {"kind": choice.offer.kind, "name": choice.offer.name, **choice.offer.plugin.facts()}
            for choice in pipeline.choices()
        ],
        "environment": _environment(device),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {
            **_write_pipeline(pipeline, directory),
            VOCABULARY: directory.write_artifact(VOCABULARY, dump_vocabulary(text.tokenizer)),
        },
    }
    directory.write_run(record)
    return record


def _environment(device: str) -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        **{name: discovery.version(name) or "" for name in _RECORDED_PACKAGES},
        **{plugin.distribution: plugin.version for plugin in discovery.installed()},
    }


def finish(
    directory: RunDirectory,
    record: Table,
    progress: Progress,
    stopped: Stopped | None = None,
) -> None:
    """Write the best weights and mark the run finished.

    `stopped` says which observer stopped it early.
    """
    if not directory.may_write:
        return
    step = progress.best_step if progress.best_step is not None else progress.step
    weights = directory.checkpoints.weights(step)
    files = {**record["files"], WEIGHTS: directory.write_artifact(WEIGHTS, weights)}
    early = {} if stopped is None else {"stopped": attrs.asdict(stopped)}
    directory.write_run(
        {**record, "status": "finished", **attrs.asdict(progress), **early, "files": files}
    )


def save_run(generator: Generator, path: str | Path) -> None:
    """Write all that it takes to load the generator to a run directory.

    Raises RunError where a run or other files are in the way.
    """
    directory = run_directory(path)
    with directory.prepared(), directory.locked():
        if directory.exists():
            raise RunError(
                f"{directory.path} holds a run already; choose another folder", directory.path
            )
        record = {**generator.record, "status": "finished"}  # though training is not
        contents = {
            "pipeline.toml": _toml(generator.tables),
            WEIGHTS: dump_tensors(generator.model.tensors()),
            VOCABULARY: dump_vocabulary(generator.tokenizer),
        }
        sums = {name: directory.write_artifact(name, data) for name, data in contents.items()}
        directory.write_run({**record, "files": {**record["files"], **sums}})


def finish_run(directory: RunDirectory) -> bool:
    """Take a run's checkpoint of `Progress.model_step` as its model; False if it was finished
    already.

    Raises RunError where there is no run, no checkpoint, RunLockedError while another process
    trains there.
    """
    if directory.latest().read_run()["status"] == "finished":
        return False
    with directory.locked():
        latest = directory.latest()
        record = latest.read_run()
        if record["status"] == "finished":  # by another process, or the new run came to nothing
            return False
        newest = latest.checkpoints.last()
        if newest is None:
            cause = (
                f"the run in {directory.path} has no checkpoint yet; run its pipeline again to "
                "train it"
            )
            raise RunError(cause, directory.path)
        progress = newest.progress
        if progress.model_step != progress.best_step:  # not evaluated
            progress = attrs.evolve(
                progress, best_step=progress.model_step, best_loss=None, best_objective=None
            )
        finish(latest, record, progress, _STOPPED)
        return True


def other_versions(record: Table) -> str:
    """A remark on packages that a run writes with and that are installed in another version."""
    then = {each["distribution"]: each["version"] for each in record.get("components", ())}
    return "; ".join(
        f"the run was made with {name} {version}, and {now} is installed"
        for name, version in then.items()
        if (now := discovery.version(name)) not in (None, version)
    )
