"""Every error that textgen raises on purpose.

    TextgenError                 exit code 1
    ├── UsageError               exit code 2: .argument, .faults, .source
    │   ├── PipelineError        .faults      every fault found, each with its dotted path
    │   ├── PromptError          .characters  of the prompt, outside the vocabulary
    │   ├── DeviceError          missing, or out of memory
    │   └── RunMismatchError     .path, .differences: key, before and now of each
    ├── CorpusError              .path
    ├── PluginError              .plugin: its name, distribution, version and path; .cause
    │   └── ContractError        .kind, .component: a component broke the contract of its kind
    ├── RunError                 .path        the run directory cannot be used
    │   ├── RunLockedError       .pid         another process is using it
    │   └── CorruptFileError     .path
    ├── TrainingError            .step: training cannot continue
    ├── ProcessesError           .step: one of several processes of a run is lost
    └── Interrupted              .step; exit code 128 + signal

Messages say what is wrong, where, and what to do; the attributes have the same facts. Messages name
options as in Python, in backticks, and the command line replaces that by --overwrite. `.advice` is
set by callers that know better what to do.
"""

from __future__ import annotations

import copyreg
import reprlib
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from textgen.messages import visible

_MAX_VALUE: Final = 60  # characters of a value that is shown whole: no checksum


@attrs.define(slots=False, eq=False)
class TextgenError(Exception):
    """Base class of all errors that textgen raises on purpose. Any other exception is a bug."""

    message: str
    exit_code = 1
    source = ""
    advice = ""

    def __str__(self) -> str:
        text = (f"{self.source}: " if self.source else "") + self._text()
        text += f"; {self.advice}" if self.advice else ""
        return visible(text)  # names, paths and values in it may be a stranger's

    def __reduce__(self) -> tuple[Any, ...]:
        """Text and facts as they are: Exception would make it anew from its text, and break a pool
        of processes.
        """
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # see pickle

    def _text(self) -> str:
        return self.message


@attrs.frozen
class Fault:
    """A fault of a pipeline or of an argument.

    path      dotted, as the keys of overrides: `trainer.batch_size`, `sampler.0.type`
    expected  what was expected, or what is wrong
    given     the value
    hint      what to do
    """

    path: str
    expected: str
    given: str = ""
    hint: str = ""

    def below(self, prefix: str) -> Fault:
        """This fault with `prefix`, a dotted path, put before its own path."""
        return attrs.evolve(self, path=f"{prefix}.{self.path}".strip("."))

    def __str__(self) -> str:
        text = f"{self.path}: {self.expected}" if self.path else self.expected
        if self.given:
            text += f", given {self.given}"
        return f"{text}; {self.hint}" if self.hint else text


class UsageError(TextgenError):
    """The command, the pipeline or an argument is wrong. Nothing was done.

    `faults` has all faults, and `argument` is the path of the first. `source` says where the
    argument is: a file, or an index among several prompts.
    """

    exit_code = 2

    def __init__(
        self,
        message: str = "",
        *,
        argument: str = "",
        value: Any = None,
        suggestion: str = "",
        faults: Sequence[Fault] = (),
    ) -> None:
        given = "" if value is None else reprlib.repr(value)
        self.faults = tuple(faults) or (Fault(argument, message, given, suggestion),)
        self.argument = self.faults[0].path
        super().__init__("; ".join(map(str, self.faults)))


class PipelineError(UsageError):
    """The pipeline cannot be used.

    `faults` has all faults, and `argument` is the key of the first. `source` is "overrides" if
    these are wrong.
    """

    def __init__(self, faults: Sequence[Fault], source: str = "pipeline") -> None:
        super().__init__(faults=faults)
        self.source = source
        if len(faults) > 1:
            self.message = "\n  ".join([f"{len(faults)} faults", *map(str, faults)])


class PromptError(UsageError):
    """The vocabulary lacks `characters` of a prompt, or of a text to score."""

    def __init__(self, characters: Sequence[str], argument: str = "prompt") -> None:
        self.characters = tuple(characters)
        cause = f"the vocabulary lacks {', '.join(map(_shown, characters))}; leave it out"
        advice = ", or set unknown_characters to 'skip' (drop it) or 'unknown' (feed it as <unk>)"
        if argument == "prompt":
            cause += advice
        super().__init__(cause, argument=argument)


def _shown(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})" if len(character) == 1 else repr(character)


class DeviceError(UsageError):
    """The requested device is missing on this machine, or ran out of memory."""


@attrs.frozen
class Difference:
    """A key of a run's fingerprint whose value has changed. None means that it is not set."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {self._shown(self.before)} before, {self._shown(self.now)} now"

    def _shown(self, value: Any) -> str:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return "not set" if value is None else text if len(text) < _MAX_VALUE else f"{text[:12]}…"


class RunMismatchError(UsageError):
    """The run directory has a run of another pipeline, vocabulary or text.

    `differences` lists the keys that differ. If only the length of training or the text differs,
    `reason` says how the run can be trained further, or why it cannot.
    """

    def __init__(self, path: Path, differences: Sequence[Difference], reason: str = "") -> None:
        self.path, self.differences, self.reason = path, tuple(differences), reason
        advice = "keep it and choose another `output`, or replace it with `overwrite`"
        if all(each.key.startswith("corpus.") for each in differences):
            size = next((f" ({d})" for d in differences if d.key == "corpus.characters"), "")
            cause = f"the text of the run in {path} has changed{size}"
            goes_on = "`update` trains its model on with the new text"
            text = f"{cause}; {reason or goes_on}; {advice}"
        else:
            rows = "".join(f"\n  {difference}" for difference in differences)
            advice = f"{reason}; {advice}" if reason else advice
            text = f"{path} holds a run of another pipeline:{rows}\n{advice}"
        super().__init__(text)


@attrs.define(slots=False, eq=False)
class CorpusError(TextgenError):
    """The corpus cannot be read, or is too small to train on. The message begins with its path."""

    path: Path | None = None

    def _text(self) -> str:
        return self.message if self.path is None else f"{self.path}: {self.message}"


class PluginError(TextgenError):
    """A fault of `plugin`, a textgen.plugin.Plugin; `cause` says what it is."""

    def __init__(self, plugin: Any, cause: str) -> None:
        self.plugin, self.cause = plugin, cause
        super().__init__(f"{plugin}: {cause}")


class ContractError(PluginError):
    """A component broke the contract of its kind (see textgen.protocols)."""

    def __init__(self, offer: Any, cause: str) -> None:
        self.kind, self.component = offer.kind, offer.name
        super().__init__(offer.plugin, f"{offer.kind} {offer.name!r} {cause}")


class BrokenContract(Exception):
    """The object `culprit` broke its contract.

    Raised where the component of the object is not known; whoever built it raises ContractError
    instead.
    """

    def __init__(self, culprit: object, cause: str) -> None:
        self.culprit = culprit
        super().__init__(cause)


@attrs.define(slots=False, eq=False)
class RunError(TextgenError):
    """The run directory cannot be used."""

    path: Path


class RunLockedError(RunError):
    """Another process is using the run directory."""

    def __init__(self, path: Path, pid: int | None) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another run"
        super().__init__(f"{path} is in use by {who}: wait for it, or stop it", path)


class CorruptFileError(RunError):
    """A file of a run is damaged or missing."""

    advice = "restore it from a copy"

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}", path)


@attrs.define(slots=False, eq=False)
class TrainingError(TextgenError):
    """Training cannot continue: the loss is NaN, or there is nothing left to train on.

    `refuses_state` is True if the loaded state does not fit the trainer and the model.
    """

    step: int
    refuses_state: bool = False


@attrs.define(slots=False, eq=False)
class ProcessesError(TextgenError):
    """One of several processes that train together has ended or does not respond.

    `step` is the step of the checkpoint from which the run resumes; None if there is none, or if
    only another process knows it.
    """

    step: int | None = None


@attrs.define(slots=False, eq=False)
class Interrupted(TextgenError):
    """The run was interrupted.

    `step` is the step of the checkpoint from which it resumes; None if there is none.
    """

    step: int | None = None
    exit_code: int = 128 + signal.SIGINT

    def _text(self) -> str:
        advice = "and a checkpoint; run it again, without `overwrite`, to resume"
        return self.message if self.step is None else f"{self.message} {advice}"


class PluginWarning(UserWarning):
    """A plugin is broken and was left out. Everything that does not need it works."""
