"""Every error that textgen raises on purpose.

    TextgenError                 exit code 1
    ├── UsageError               exit code 2: the command, the pipeline or an argument is wrong
    │   ├── PipelineError        .faults      every fault found, each with its dotted path
    │   ├── PromptError          .characters  prompt characters outside the vocabulary
    │   ├── DeviceError          .device      asked for and not there
    │   └── RunMismatchError     .differences another pipeline, vocabulary or corpus made this run directory
    ├── CorpusError              .path        unreadable, undecodable, empty or too short
    ├── PluginError              .plugin, .distribution, .version, .cause
    │   └── ContractError        .kind, .component: a component broke the contract of its kind
    ├── RunError                 .path        the run directory cannot be used
    │   ├── RunLockedError       .pid         another process is using it
    │   └── CorruptFileError     .path, .expected, .actual
    ├── TrainingError            .step, .learning_rate: training cannot go on
    └── Interrupted              .signal_number, exit code 128 + signal

Each is raised with the facts it carries as attributes, and its text says what was wrong, where, and what to do. An
argument of the Python API stands between backticks in it; the command line shows its own option there.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs


class TextgenError(Exception):
    """Base class of every expected error. A bug is never one of these."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Text and facts as they are: Exception would make it anew from its text, and break a pool of processes."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[TextgenError], texts: tuple[Any, ...], facts: dict[str, Any]) -> TextgenError:
    error = kind.__new__(kind, *texts)
    error.__dict__.update(facts)
    return error


class UsageError(TextgenError):
    """The command, the pipeline or an argument is wrong; nothing was done."""

    exit_code = 2


@attrs.frozen
class Fault:
    """One thing wrong with a pipeline.

    `path` is dotted (`trainer.epochs`), `expected` and `given` are phrases, and `hint` says what may have been meant.
    """

    path: str
    expected: str
    given: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.expected}" if self.path else self.expected
        if self.given:
            text += f", given {self.given}"
        return f"{text}; {self.hint}" if self.hint else text


class PipelineError(UsageError):
    """A pipeline that cannot be used. All its faults are in `faults`."""

    def __init__(self, faults: Sequence[Fault], source: str = "pipeline") -> None:
        self.faults = tuple(faults)
        self.source = source
        if len(self.faults) == 1:
            text = f"{source}: {self.faults[0]}"
        else:
            text = "\n  ".join([f"{source}: {len(self.faults)} faults", *map(str, self.faults)])
        super().__init__(text)


class PromptError(UsageError):
    """The prompt has characters that the vocabulary lacks."""

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = tuple(characters)
        shown = ", ".join(f"{c!r} (U+{ord(c):04X})" if len(c) == 1 else repr(c) for c in self.characters)
        super().__init__(
            f"the prompt has characters outside the vocabulary: {shown}; leave them out, or set "
            "`unknown_characters` to 'skip' (drop them) or 'unknown' (feed them as <unk>)"
        )


class DeviceError(UsageError):
    """A device was asked for that this machine does not have, or that ran out of memory."""

    def __init__(self, message: str, device: str) -> None:
        self.device = device
        super().__init__(message)


class RunMismatchError(UsageError):
    """The run directory was made from something else. `differences` lists what, one phrase each."""

    def __init__(self, path: Path, differences: Sequence[str]) -> None:
        self.path = path
        self.differences = tuple(differences)
        of_text = [difference.startswith("corpus.") for difference in self.differences]
        made = "was trained on another text" if all(of_text) else "holds a run of another pipeline"
        rows = "".join(f"\n  {row}" for row in _rows(self.differences))
        super().__init__(
            f"{path} {made}:{rows}\nkeep it and choose another folder with `output`, or replace it with `overwrite`"
        )


def _rows(differences: Sequence[str]) -> list[str]:
    """Differences as they are shown: of a text, first how long it was and is, then the beginning of each checksum."""
    rows = []
    for difference in differences:
        if not difference.startswith("corpus."):
            rows.append(difference)
        elif difference.startswith("corpus.sha256"):
            rows.append(re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", difference))
            if not any(other.startswith("corpus.characters") for other in differences):
                rows.append("corpus.characters: as many there as here")
        else:
            rows.append(re.sub(r"\d+", lambda number: f"{int(number[0]):,}", difference))
    return rows


class CorpusError(TextgenError):
    """The corpus cannot be read, or is too small to train on."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        self.path = path
        super().__init__(message)


class PluginError(TextgenError):
    """A plugin is to blame. `plugin` is its name; `distribution` and `version` say which package brought it."""

    def __init__(self, cause: str, *, plugin: str, distribution: str, version: str) -> None:
        self.plugin, self.distribution, self.version, self.cause = plugin, distribution, version, cause
        super().__init__(f"plugin {plugin!r} ({distribution} {version}): {cause}")


class ContractError(PluginError):
    """A component did what the contract of its kind (textgen.protocols) forbids."""

    def __init__(self, cause: str, *, kind: str, component: str, plugin: str, distribution: str, version: str) -> None:
        self.kind, self.component = kind, component
        super().__init__(f"{kind} {component!r} {cause}", plugin=plugin, distribution=distribution, version=version)


class RunError(TextgenError):
    """The run directory cannot be used."""

    def __init__(self, message: str, path: Path) -> None:
        self.path = path
        super().__init__(message)


class RunLockedError(RunError):
    """Another process is using the run directory."""

    def __init__(self, path: Path, pid: int | None) -> None:
        self.pid = pid
        who = "another run of this process" if pid == os.getpid() else f"process {pid}" if pid else "another run"
        super().__init__(f"{path} is in use by {who}; wait for it, stop it, or choose another `output`", path)


class CorruptFileError(RunError):
    """A file is not what the run wrote: its checksum differs or it cannot be read."""

    def __init__(self, path: Path, message: str, *, expected: str = "", actual: str = "") -> None:
        self.expected, self.actual = expected, actual
        super().__init__(f"{path}: {message}", path)


class TrainingError(TextgenError):
    """Training cannot go on: the loss is no longer a number, or nothing is left to train on."""

    def __init__(self, message: str, *, step: int, learning_rate: float | None = None) -> None:
        self.step, self.learning_rate = step, learning_rate
        super().__init__(message)


class Interrupted(TextgenError):
    """The run was asked to stop, and stopped after writing a checkpoint. `signal_number` is None without a signal."""

    def __init__(self, message: str, *, signal_number: int | None = None) -> None:
        self.signal_number = signal_number
        self.exit_code = 128 + (signal_number or signal.SIGINT)
        super().__init__(message)


class PluginWarning(UserWarning):
    """A plugin was quarantined: it is left out, and everything that does not need it works."""
