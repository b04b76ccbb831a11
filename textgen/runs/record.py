"""The run record, run.json, and what it decides: whether a run begins, resumes, is trained on or is
skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import tomli_w

from textgen.data import Dataset
from textgen.errors import Difference, RunError, RunMismatchError, UsageError
from textgen.files.opening import MALFORMED_DATA
from textgen.files.reading import VOCABULARY, WEIGHTS, dump_tensors, dump_vocabulary, read_bytes
from textgen.generation.generator import Generator
from textgen.pipeline.pipeline import Pipeline
from textgen.pipeline.raw_pipeline import MAX_BYTES
from textgen.plugin import discovery
from textgen.plugin.component import OWN_DISTRIBUTION
from textgen.plugin.config_reader import ConfiguredComponent, Start, flat, plain
from textgen.protocols import Table
from textgen.runs.checkpoints import Checkpoint
from textgen.runs.directory import RunDirectory, run_directory
from textgen.runs.encoded_text import EncodedText
from textgen.runs.formats import CorpusDigest, Progress, Stopped
from textgen.runs.split import last_tokens, unknown_share
from textgen.runs.starting import identity, start_in

_RECORDED_PACKAGES: Final = (OWN_DISTRIBUTION, "numpy", "torch")
_STOPPED: Final = Stopped("textgen run --finish", "by request")
_UNFINISHED: Final = (
    "an unfinished run resumes with the length that it had; finish it by `textgen run --finish` "
    "first, to train it for longer"
)
_UNFINISHED_TEXT: Final = (
    "finish it by `textgen run --finish`, and `update` trains its model on with the new text"
)
_NO_STATE: Final = (
    "it has no checkpoint that a longer training would reach as well, so it has to be trained anew"
)


def fingerprint(pipeline: Pipeline, digest: CorpusDigest) -> Table:
    """Everything that determines the model. The corpus is identified by its text, not its path.

    A config class may define `fingerprint() -> dict` to choose which of its options count.
    """
    return {
        "seed": pipeline.seed,
        "data": plain(pipeline.data),
        **{kind: identity(getattr(pipeline, kind)) for kind in ("tokenizer", "model", "trainer")},
        # Of the observers those that may stop a run early, whose config classes say so.
        "observer": {
            choice.offer.canonical_name: plain(choice.options.fingerprint())
            for choice in pipeline.observer
            if hasattr(choice.options, "fingerprint")
        },
        "corpus": attrs.asdict(digest),
    }


@attrs.frozen
class Decision:
    """The effect of a pipeline on a run directory: without a record a run begins, with a checkpoint
    it goes on, and else it is skipped.

    record      that of the run that is there
    checkpoint  the one to go on from: of an unfinished run the last one, of a finished run one that
                a longer training would reach as well
    start       the run whose weights the model begins with, though its table names none
    held_out    the place of the held-out tokens, if they are not the last ones: see DataSizes
    """

    record: Table = attrs.field(factory=dict)
    checkpoint: Checkpoint | None = None
    start: Start | None = None
    held_out: tuple[int, ...] = ()

    @property
    def skips(self) -> bool:
        """Whether nothing is trained."""
        return bool(self.record) and self.checkpoint is None


def resumable_record(directory: RunDirectory) -> Table:
    """The record of the run that was begun last; {} where there is none, or it failed before its
    first checkpoint.

    Raises CorruptFileError.
    """
    place = directory.latest()
    if not place.exists():
        return {}
    record = place.read_run()
    return record if record["status"] == "finished" or place.checkpoints.steps() else {}


def decide(
    directory: RunDirectory,
    record: Table,
    pipeline: Pipeline,
    digest: CorpusDigest,
    *,
    update: bool = False,
) -> Decision:
    """Decide what a pipeline does with the run of a record; `update` as in Engine.run.

    Raises RunMismatchError if the run was made by another pipeline or cannot be trained on,
    CorruptFileError if no checkpoint is intact.
    """
    if not record:
        return Decision()
    changes, is_finished = _changes(record, pipeline, digest), record["status"] == "finished"
    held_out = tuple(record["data"].get("held_out", ()))
    if not changes:
        last = None if is_finished else directory.latest().checkpoints.last()
        return Decision(record, last, held_out=held_out)
    is_text = all(each.key.startswith("corpus.") for each in changes)
    if update and is_finished and is_text:
        kept = held_out or last_tokens(record["data"], pipeline.data)
        return Decision(start=start_in(directory.current(), "model"), held_out=kept)
    if not is_finished and directory.status() == "finished":
        with contextlib.suppress(RunMismatchError):  # what was to replace that one waits
            finished = decide(directory, directory.read_run(), pipeline, digest, update=update)
            if finished.checkpoint is None:  # else it would go on in the place of the other
                return finished
    is_longer = all(_is_more(pipeline.trainer, each) for each in changes)
    if not (is_finished and is_longer):
        reason = _UNFINISHED_TEXT if is_text and not is_finished else ""
        raise RunMismatchError(directory.path, changes, _UNFINISHED if is_longer else reason)
    checkpoint = directory.checkpoints.last(record.get("steps_before_decay") or 0)
    if checkpoint is None:
        raise RunMismatchError(directory.path, changes, _NO_STATE)
    return Decision(record, checkpoint, held_out=held_out)


def _is_more(trainer: ConfiguredComponent, change: Difference) -> bool:
    """Whether an option of the trainer, or of a part of it, that makes a finished run go on has a
    larger value.
    """
    *parents, key = change.key.split(".")
    choice: ConfiguredComponent | None = trainer if parents[:1] == ["trainer"] else None
    for part in parents[1:]:
        choice = choice and choice.parts().get(part)
    field = choice and choice.offer.component.options().get(key)
    more = field.metadata.get("extends_training") if field else None
    try:
        return bool(more and more(change.now) > more(change.before))
    except MALFORMED_DATA:  # the record may hold anything
        return False


def _changes(record: Table, pipeline: Pipeline, digest: CorpusDigest) -> list[Difference]:
    shape, kept = fingerprint(pipeline, digest), dict(record["fingerprint"])
    for kind in ("tokenizer", "model", "trainer"):
        kept[kind] = _with_new_options(kept[kind], shape[kind], getattr(pipeline, kind))
    watching = kept["observer"] = dict(kept["observer"])
    for choice in pipeline.observer:
        if (name := choice.offer.canonical_name) in watching:
            now = shape["observer"].get(name, {})
            watching[name] = _with_new_options(watching[name], now, choice)
    return differences(kept, shape)


def _with_new_options(before: Table, now: Table, choice: ConfiguredComponent) -> Table:
    """The recorded options of a component, with the defaults of those that it has since then."""
    made, parts = dict(before), choice.parts()
    for key, field in choice.offer.component.options().items():
        default: Any = field.default
        if key not in now:
            continue
        if not now[key] and key in choice.runs():  # it is gone, and not needed any more
            made[key] = now[key]
        elif key not in made and default is not attrs.NOTHING:
            made[key] = plain(default.factory() if hasattr(default, "factory") else default)
        if key in parts and isinstance(made.get(key), Mapping):
            made[key] = _with_new_options(made[key], now[key], parts[key])
    return made


def differences(before: Table, now: Table) -> list[Difference]:
    """The keys of nested tables whose values are others, dotted."""
    before, now = flat(before), flat(now)
    keys = [key for key in before | now if before.get(key) != now.get(key)]
    return [Difference(key, before.get(key), now.get(key)) for key in keys]


def is_written(pipeline: Pipeline, directory: RunDirectory) -> bool:
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
    if is_written(pipeline, directory):
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


def begin(
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
    if not directory.is_written:
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
        place = directory.latest()
        record = place.read_run()
        if record["status"] == "finished":  # by another process, or the new run came to nothing
            return False
        newest = place.checkpoints.last()
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
        finish(place, record, progress, _STOPPED)
        return True


def other_versions(record: Table) -> str:
    """A remark on packages that a run writes with and that are installed in another version."""
    then = {each["distribution"]: each["version"] for each in record.get("components", ())}
    return "; ".join(
        f"the run was made with {name} {version}, and {now} is installed"
        for name, version in then.items()
        if (now := discovery.version(name)) not in (None, version)
    )
