"""The pipeline for a text, a machine and some minutes, from `template.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import tomli_w

from textgen import PluginSet
from textgen.messages import byte_count
from textgen_builtins.starter import settings, starts, texts
from textgen_builtins.starter.settings import Pretrained
from textgen_builtins.starter.starts import Candidate
from textgen_builtins.starter.texts import TextFacts

_MOST_NEW: Final = 20_000  # characters of a text
_COMMENTS: Final = {
    "length": "passes over the text or a time for the whole run, what comes first",
    "validation": "tokens held out at most, from the last tenth",
    "learning_rate": "lower if the validation loss rises while the training loss falls",
}
_LACKS_START: Final = (
    "for a text in English, the package textgen-english has a model to start from, which gives "
    "better texts (docs/pretrained.md)"
)


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
    chosen = chosen_start(facts, minutes * 60, start, folder, plugins)
    return tomllib.loads(starter_pipeline(facts, minutes * 60, *chosen))


def remarks(facts: TextFacts, plugins: PluginSet) -> list[str]:
    """Remarks on what was guessed of a text, and what may help."""
    is_english = texts.language_of(facts.sample) == "English"
    lacks = is_english and not facts.longest and not starts.named(plugins)
    return [*facts.remarks, *([_LACKS_START] if lacks else [])]


def chosen_start(
    facts: TextFacts,
    seconds: float,
    start: str | None,
    folder: Path,
    plugins: PluginSet,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Candidate, list[Candidate]]:
    """The model to start from, by the lowest expected loss if `start` names none, and all that
    were tried.

    say   told which it is, and what to expect of the others

    Raises UsageError for a start that cannot be used.
    """
    found = starts.candidates(
        facts.sample, facts.size, facts.vocabulary, start, seconds, plugins, say
    )
    best = starts.best(found, seconds)
    if len(found) > 1:
        others = ", ".join(starts.told(each, seconds) for each in found if each is not best)
        said = f"start: {best.name}, with an expected loss of {best.loss:.2f}; {others}"
        say(f"{said} (--start chooses another)")
    if best.pretrained is not None and start is not None and Path(start).is_dir():
        name = texts.relative(Path(start), folder)
        run = attrs.evolve(best.pretrained, name=name if "/" in name else f"./{name}")
        best = attrs.evolve(best, pretrained=run)
    return best, found


def starter_pipeline(
    facts: TextFacts,
    seconds: float,
    start: Candidate,
    found: Sequence[Candidate] = (),
    file: str = "my.toml",
) -> str:
    """The pipeline as TOML, with its own name in comments.

    start  what it starts from
    found  all that were tried
    """
    made = Path(__file__).with_name("template.toml").read_text(encoding="utf-8")
    chosen: Mapping[str, Any]
    run = start.pretrained
    if start.tables:
        made, chosen = _adapting(made, start.tables), {}
    elif run is None:
        chosen = settings.choose(facts.size, facts.vocabulary, seconds)
    else:
        made = _tuning(made, run)
        chosen = settings.tune(facts.size, seconds, run)
    expected = f"# For {byte_count(facts.size)} of text and {seconds:.10g} seconds"
    if start.name == starts.NONE:
        expected += " at most"
    elif not start.is_enough and chosen.get("length") != settings.ALL_PASSES:
        expected += "; more time gives a better model"
    expected += f".\n# Expect a validation loss below {start.loss:.2f} a character."
    if any(each.name != starts.NONE for each in found):
        lines = (f"{starts.told(each, seconds)}; {each.price}".rstrip("; ") for each in found)
        expected += "\n#   ".join(("\n# What `textgen init --start` takes:", *lines))
    values = {name: _written(value) for name, value in chosen.items()}
    if run is not None:
        name = tomli_w.dumps({"start": run.name}).removeprefix("start = ").rstrip()
        values |= {"start": name, "sample_loss": f"{run.loss:.2f}"}
    values = {"length": f"{seconds:.10g}s", **values, "corpus": facts.corpus, "expected": expected}
    values["allowed_length"] = str(settings.allowed_length(facts.sample))
    values |= {"generate": _generate(facts.longest), "file": file}
    if run is not None and run.strategy:
        table = tomli_w.dumps({"generate": {"strategy": run.strategy}})
        values["generate"] += f"\n\n{table.rstrip()}"
    return re.sub(r"\{(\w+)\}", lambda key: values.get(key[1], key[0]), made)


def _tuning(template: str, start: Pretrained) -> str:
    """The template for a network that is there, in place of the mixture, and for its tokens if they
    make up every text.
    """
    made = Path(__file__).with_name("tuning.toml").read_text(encoding="utf-8")
    if start.reads_all:
        template = re.sub(r"(?s)\[tokenizer\]\n.*?(?=\[data\])", "", template)
    return re.sub(r"(?s)\[model\]\n.*?(?=\[checkpoint\])", lambda _: made, template)


def _adapting(template: str, tables: Mapping[str, Any]) -> str:
    """The template with tables that a plugin offers, and its samplers if it has some."""
    kinds = ("tokenizer", "data", "model", "trainer")
    made = "".join(f"{tomli_w.dumps({kind: tables[kind]})}\n" for kind in kinds if kind in tables)
    for key, comment in _COMMENTS.items():
        made = re.sub(rf"(?m)^{key} = .*$", rf"\g<0>  # {comment}", made)
    samplers = "".join(f"[[sampler]]\n{tomli_w.dumps(each)}\n" for each in tables["sampler"])
    template = re.sub(r"(?s)\[tokenizer\]\n.*?(?=\[checkpoint\])", lambda _: made, template)
    return re.sub(
        r"(?s)(\[\[sampler\]\].*)(?=\[generate\])", lambda own: samplers or own[1], template
    )


def _written(value: float | str) -> str:
    """A number as TOML has it, or a text."""
    if isinstance(value, str):
        return value
    return f"{value:_g}" if isinstance(value, float) else f"{value:_}"


def _generate(longest: int) -> str:
    """The keys of `[generate]`: where texts end by themselves, so many and so long that few are
    cut.
    """
    if not longest:
        return 'prompt = ""            # text to continue\nmax_new_tokens = 500'
    limit = min(max(2 * longest, 20), _MOST_NEW)
    return f"""\
prompt = ""            # the beginning of a text; an empty one begins a new one
n = {max(1, min(10, 2000 // longest)):<17}  # texts
distinct = true        # none twice, and none that is in the text already
# each ends by itself; the longest that was read has {longest:,} characters
max_new_tokens = {limit}"""
