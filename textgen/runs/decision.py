"""What a pipeline does with a run directory: begin a run, resume it, train it on or skip it."""

from __future__ import annotations

import contextlib
from typing import Final

import attrs

from textgen.errors import Difference, RunMismatchError
from textgen.files.opening import MALFORMED_DATA
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.configured import BaseRun, ConfiguredComponent
from textgen.protocols import Table
from textgen.runs.checkpoints import Checkpoint
from textgen.runs.directory import RunDirectory
from textgen.runs.fingerprint import changes
from textgen.runs.formats import CorpusDigest
from textgen.runs.split import last_tokens
from textgen.runs.starting import start_in

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


@attrs.frozen
class Decision:
    """The effect of a pipeline on a run directory: without a record a run begins, with a checkpoint
    it goes on, and else it is skipped.

    record      that of the run that is there
    checkpoint  the one to go on from: of an unfinished run the last one, of a finished run one that
                a longer training would reach as well
    start       the run whose weights the model begins with, though its table names none
    held_out    begin and end of the held-out tokens, if they are not the last ones: see DataSizes
    """

    record: Table = attrs.field(factory=dict)
    checkpoint: Checkpoint | None = None
    start: BaseRun | None = None
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
    newest = directory.latest()
    if not newest.exists():
        return {}
    record = newest.read_run()
    return record if record["status"] == "finished" or newest.checkpoints.steps() else {}


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
    found, is_finished = changes(record, pipeline, digest), record["status"] == "finished"
    held_out = tuple(record["data"].get("held_out", ()))
    if not found:
        last = None if is_finished else directory.latest().checkpoints.last()
        return Decision(record, last, held_out=held_out)
    is_text = all(each.key.startswith("corpus.") for each in found)
    if update and is_finished and is_text:
        kept = held_out or last_tokens(record["data"], pipeline.data)
        return Decision(start=start_in(directory.current(), "model"), held_out=kept)
    if not is_finished and directory.status() == "finished":
        with contextlib.suppress(RunMismatchError):  # what was to replace that one waits
            finished = decide(directory, directory.read_run(), pipeline, digest, update=update)
            if finished.checkpoint is None:  # else it would go on in the place of the other
                return finished
    is_longer = all(_is_more(pipeline.trainer, each) for each in found)
    if not (is_finished and is_longer):
        reason = _UNFINISHED_TEXT if is_text and not is_finished else ""
        raise RunMismatchError(directory.path, found, _UNFINISHED if is_longer else reason)
    checkpoint = directory.checkpoints.last(record.get("steps_before_decay") or 0)
    if checkpoint is None:
        raise RunMismatchError(directory.path, found, _NO_STATE)
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
