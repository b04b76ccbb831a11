"""The pipeline that `textgen init` writes."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import tomli_w

from textgen.errors import UsageError
from textgen.rundir import write_atomic

_TEMPLATE = """\
# A textgen pipeline. Run it with:     textgen run {file}
# Every key, with its default:         textgen show {file}
# Every component there is:            textgen plugins --options

seed = 0           # another seed gives another model
device = "auto"    # "cpu", "cuda", "cuda:1", "mps"

[corpus]
{corpus}

[tokenizer]
type = "char"          # one token per character
# letters_only = true  # keep only a to z and the space: learns faster, writes without punctuation
# lower_case = true

[data]
window_length = 64          # characters the model sees at once in training
validation_fraction = 0.1   # the last tenth is held out: its loss tells how well the model generalises

[model]
type = "rnn"
cell = "lstm"          # "rnn", "gru", "lstm"
hidden_size = 256      # larger learns more, and is slower
layers = 1
dropout = 0.2          # raise it when validation loss rises while training loss falls

[trainer]
type = "adamw"
epochs = {epochs}            # passes over the text
batch_size = {streams}        # places of the text read side by side; fewer make more steps
order = "streams"      # read the text on from window to window
learning_rate = 4e-3

[[sampler]]
type = "temperature"
temperature = 0.8      # lower is safer, higher is wilder, 0 is greedy

[generate]
prompt = ""            # text to continue
max_new_tokens = 500
"""

_SMALLEST_TEXT = 2000
_STORY_BYTES = 87_000
_STORY = """\
type = "story"         # the story that comes with textgen; for your own text:
# type = "file"
# path = "my.txt\""""


def starter_pipeline(text: str | None, folder: Path) -> str:
    """A commented pipeline for the file or folder `text`, to be put in `folder`; for the embedded story without one.

    Raises UsageError when there is no such text, or next to none.
    """
    corpus, size = _STORY, _STORY_BYTES
    if text is not None:
        path = Path(text)
        if not path.exists():
            raise UsageError(f"{text} does not exist; give a text file, or a folder of them")
        try:
            relative = os.path.relpath(path.absolute(), folder.absolute())
        except ValueError:  # another drive
            relative = str(path.absolute())
        corpus = 'type = "file"\n' + tomli_w.dumps({"path": Path(relative).as_posix()}).strip()
        corpus += "           # a file, a list of files, or a folder of .txt files"
        size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*.txt")))
        if size < _SMALLEST_TEXT:
            raise UsageError(
                f"{text} has {size:,} bytes, which is too little to learn from; give some thousands at least"
            )
    streams, epochs = _schedule(size)
    return _TEMPLATE.replace("{corpus}", corpus).replace("{streams}", str(streams)).replace("{epochs}", str(epochs))


def _schedule(size: int) -> tuple[int, int]:
    """Streams and epochs for a text of so many bytes: about 2,000 steps, and at least 20 windows in each stream."""
    streams = max(4, min(64, size // (64 * 20)))
    steps_an_epoch = max(1, size // (64 * streams))
    return streams, max(3, min(100, 2000 // steps_an_epoch))


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a file that is not there yet. Raises UsageError when it is, or when it cannot be written."""
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another name with --pipeline, or replace it with --force")
    try:
        write_atomic(path, text.replace("{file}", shlex.quote(str(path))).encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
