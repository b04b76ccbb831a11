"""The pipeline for a text, a machine and some minutes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import tomli_w

from textgen import PluginSet, UsageError
from textgen.messages import byte_count
from textgen.plugin import merged
from textgen_builtins.starter import settings, texts
from textgen_builtins.starter.starts import NONE, Start, Trials
from textgen_builtins.starter.texts import TextFacts

_ORDER: Final = ("seed", "device", "corpus", *settings.KINDS, "checkpoint", "sampler", "generate")


def recipe(
    text: str | Path | None = None,
    *,
    minutes: float = 1.0,
    start: str | None = None,
    plugins: PluginSet | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The pipeline that `textgen init` writes for a text, as a mapping for `textgen.run`.

    text, minutes, start, options   as those of the command: a file, a folder or an address; the
                                    story that comes with textgen if None
    plugins                         in place of the installed ones

    Raises UsageError and CorpusError.
    """
    plugins, folder = plugins or PluginSet.discover(), Path.cwd()
    facts = texts.look_at(str(text), folder, **options) if text is not None else texts.story()
    trials = Trials(facts, minutes * 60, folder, plugins, say=lambda line: None)
    return pipeline(facts, best(trials.starts(start), minutes * 60))


def best(starts: list[Start], seconds: float) -> Start:
    """The start with the lowest expected loss of those that there is time for.

    Raises UsageError where there is time for none.
    """
    timely = [start for start in starts if start.seconds <= seconds]
    if timely:
        return min(timely, key=lambda start: start.loss)
    raise UsageError(
        f"a third of a pass over the text from {starts[0].name} takes at least "
        f"{starts[0].seconds:.0f} seconds here; give at least --minutes "
        f"{math.ceil(starts[0].seconds / 6) / 10}",
        argument="start",
    )


def pipeline(facts: TextFacts, start: Start) -> dict[str, Any]:
    """The tables of a pipeline for a text."""
    tables = merged(settings.read_settings()["pipeline"], {"corpus": facts.corpus})
    against_loops = tables["sampler"][0]
    against_loops["allowed_length"] = settings.allowed_length(facts.sample)
    if facts.longest:
        tables["generate"] = {
            "prompt": "",
            "n": max(1, min(10, 2000 // facts.longest)),
            "distinct": True,
            "max_new_tokens": min(max(2 * facts.longest, 20), 20_000),
        }
    tables = merged(tables, start.tables)
    return {key: tables[key] for key in _ORDER if key in tables}


def commented(
    facts: TextFacts, start: Start, starts: list[Start], seconds: float, file: str
) -> str:
    """The pipeline as TOML with comments, for a file of that name.

    starts  all that were tried
    """
    said = f"For {byte_count(facts.size)} of text and {seconds:.10g} seconds at most."
    if start.a_pass and not start.is_enough:
        said += " More time gives a better model."
    lines = [
        "# A textgen pipeline. Run it with:     textgen run " + file,
        "# Every key, with its default:         textgen show " + file,
        "# Every component there is:            textgen plugins --options",
        "#",
        f"# {said}",
        f"# Expect a validation loss below {start.loss:.2f} a character.",
    ]
    if start.name != NONE or len(starts) > 1:
        lines += ["# What `textgen init --start` takes:", *(f"#   {each}" for each in starts)]
    lines.append("")
    comments = settings.read_settings()["comments"]
    for line in _toml(pipeline(facts, start)).splitlines():
        key = line.partition(" = ")[0]
        # Each is said once.
        comment = comments.pop(line, None) or comments.pop(key, None)
        lines.append(f"{line}  # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def _toml(tables: dict[str, Any]) -> str:
    """The tables as TOML, with a header for each sampler."""
    written = ""
    for key, value in tables.items():
        if isinstance(value, list):
            written += "".join(f"\n[[{key}]]\n{tomli_w.dumps(each)}" for each in value)
        elif isinstance(value, dict):
            written += "\n" + tomli_w.dumps({key: value})
        else:
            written += tomli_w.dumps({key: value})
    return written
