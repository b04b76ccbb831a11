"""The JSON files of a run as attrs classes.

Keys that are not listed are errors, except in run.json, where they are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs
from attrs.validators import deep_iterable

from textgen.errors import CorruptFileError, RunError
from textgen.files.reading import json_checksum, read_json
from textgen.pipeline.options import is_seed
from textgen.plugin.strict_json import (
    COUNT,
    OPTIONAL_COUNT,
    checked_json,
    is_number,
)
from textgen.protocols import Table

FORMAT_VERSION: Final = 1


@attrs.frozen
class Manifest:
    """manifest.json of a checkpoint, written last: the SHA-256 of its files."""

    files: Mapping[str, str]


@attrs.define(kw_only=True, on_setattr=attrs.setters.NO_OP)
class Progress:
    """The engine's own state, kept when a run is resumed.

    first_loss    the training loss of the first step, and `last_loss` of the last one
    steps         how many there are to be, as the trainer's last StepDone said
    steps_before_decay   of that StepDone
    """

    step: int = attrs.field(default=0, validator=COUNT)
    evaluations: int = attrs.field(default=0, validator=COUNT)
    since_best: int = attrs.field(default=0, validator=COUNT)
    seconds: float = 0.0
    best_step: int | None = attrs.field(default=None, validator=OPTIONAL_COUNT)
    best_loss: Any = attrs.field(default=None, validator=is_number)
    best_objective: Any = attrs.field(default=None, validator=is_number)
    first_loss: Any = attrs.field(default=None, validator=is_number)
    last_loss: Any = attrs.field(default=None, validator=is_number)
    steps: int | None = attrs.field(default=None, validator=OPTIONAL_COUNT)
    steps_before_decay: int | None = attrs.field(default=None, validator=OPTIONAL_COUNT)

    @property
    def model_step(self) -> int:
        """The step whose weights are the model if training ends here.

        This step, unless an evaluation after the best one was worse: since the last evaluation the
        model has learnt.
        """
        return self.step if self.best_step is None or not self.since_best else self.best_step


@attrs.frozen
class TrainingState:
    """trainer.json of a checkpoint.

    What is under `trainer` is the trainer's own, which checks it, and so under `observers`.
    """

    trainer: Table
    progress: Progress
    observers: Table = attrs.field(factory=dict)


@attrs.frozen
class DataSizes:
    """Sizes of the split, the share of tokens outside the vocabulary, and the share of characters
    that decoding does not give again.

    held_out   first of the tokens that were held out and of those after them, where these follow
    """

    training_tokens: int
    validation_tokens: int
    vocab_size: int
    unknown_share: float
    lost_share: float = 0.0
    held_out: tuple[int, ...] = attrs.field(default=(), validator=deep_iterable(COUNT))


@attrs.frozen
class Origin:
    """The origin of a component. `path` is that of a plugin in a single file."""

    kind: str
    name: str
    plugin: str
    distribution: str
    version: str
    path: str = ""


@attrs.frozen
class CorpusDigest:
    """The identity of a text: the SHA-256 of its UTF-8 form with the ends of documents, and its
    number of characters.
    """

    sha256: str
    characters: int


@attrs.frozen
class Fingerprint:
    """Everything that determined the model. The tables have the keys of the components' options."""

    seed: int = attrs.field(validator=is_seed)
    tokenizer: Table
    data: Table
    model: Table
    trainer: Table
    observer: Table
    corpus: CorpusDigest


@attrs.frozen
class Stopped:
    """The observer that stopped the run early, and its reason."""

    by: str
    reason: str


@attrs.define(kw_only=True, on_setattr=attrs.setters.NO_OP)
class RunFigures(Progress):
    """The part of run.json that a list of runs shows.

    parameters  the number of weights that are trained; None for a model of counts
    cause       why training ended, in a run that is not finished
    """

    status: Literal["unfinished", "finished"]
    step: int = attrs.field(validator=COUNT)
    parameters: int | None = attrs.field(default=None, validator=OPTIONAL_COUNT)
    stopped: Stopped | None = None
    cause: str | None = None


@attrs.define(kw_only=True, on_setattr=attrs.setters.NO_OP)
class RunRecord(RunFigures):
    """run.json.

    priming      ids that stood before the start of a text in training, and that prompts follow
    environment  any keys
    files        the SHA-256 of each file that loading reads
    checksum     of all the rest, see `checksum_of`
    """

    format_version: int
    seed: int = attrs.field(validator=is_seed)
    fingerprint: Fingerprint
    data: DataSizes
    components: tuple[Origin, ...]
    environment: Mapping[str, str]
    started: str
    files: Mapping[str, str]
    checksum: str
    priming: tuple[int, ...] = attrs.field(default=(), validator=deep_iterable(COUNT))

    def __attrs_post_init__(self) -> None:
        wanted = {"tokenizer.json", "pipeline.toml"}
        if self.status == "finished":
            wanted.add("model.safetensors")
        if missing := wanted - self.files.keys():
            raise ValueError(f"files: {min(missing)} is missing")


def signed(record: Table) -> Table:
    """A record as run.json has it: with format version and checksum."""
    made = json.loads(json.dumps({"format_version": FORMAT_VERSION, **record}))
    return {**made, "checksum": checksum_of(made)}


def checksum_of(record: Table) -> str:
    """The SHA-256 of a record without its own `checksum`."""
    return json_checksum({key: value for key, value in record.items() if key != "checksum"})


def read_record(path: Path, cls: type[Any] = RunRecord) -> Table:
    """The values of a run.json. Those that the class `cls` has are checked.

    Raises CorruptFileError, and RunError for a record of another format.
    """
    record = read_json(path)
    if (version := record.get("format_version")) != FORMAT_VERSION:
        cause = f"{path}: its format version is {version!r}, and this textgen reads"
        raise RunError(f"{cause} {FORMAT_VERSION}; use the version that made it", path)
    kept, actual = str(record.get("checksum")), checksum_of(record)
    if kept != actual:  # first: a flipped bit is no misspelt key
        cause = "it is damaged: its content has another checksum than it says"
        raise CorruptFileError(path, cause)
    fields = attrs.fields_dict(cls)
    checked_json(cls, {key: record[key] for key in fields if key in record}, path)
    return record
