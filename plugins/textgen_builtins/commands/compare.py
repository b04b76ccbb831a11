"""textgen compare: runs side by side."""

from __future__ import annotations

import json
import shutil
import textwrap
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from textgen import PromptError, TextgenError, UsageError
from textgen.cli.options import json_option
from textgen.files.durable import write_atomic
from textgen_builtins.commands import comparison_page, curves, text
from textgen_builtins.commands.compared import ComparedRun, differences, ranked, read_runs, warning
from textgen_builtins.commands.runs import as_row

if TYPE_CHECKING:
    from textgen import Engine, Generator

_LEAST_COLUMN: Final = 30
_BEGINNING: Final = 1 << 10  # bytes that tell what a file is


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--svg", type=click.Path(), metavar="FILE", help="Write the curves of the losses.")
@click.option(
    "--html", "page", type=click.Path(), metavar="FILE", help="Write all of it as one page."
)
@click.option(
    "--prompt",
    "-p",
    metavar="TEXT",
    help="What every model continues; that of the first run if not given.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="0 writes no samples.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the samples."
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help='"auto", "cpu", "cuda", "cuda:N" or "mps".',
)
@json_option
@click.pass_obj
def compare(
    context: Any,
    /,
    runs: Sequence[str],
    svg: str | None,
    page: str | None,
    prompt: str | None,
    max_new_tokens: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Compare runs: settings that differ, losses, speed, size, curves and samples.

    RUNS are run directories, or folders of them, such as that of a sweep. The one with the lowest loss comes first, or
    where their tokens differ, that with the fewest bits per character. Losses are the lowest ones, in nats per token,
    of the held-out text. Every model continues the same prompt with the
    same seed; that of a run which is not finished is its best checkpoint.
    """
    from textgen import Engine  # which loads NumPy

    for option, file, is_ours in (
        ("--svg", svg, curves.is_picture),
        ("--html", page, comparison_page.is_page),
    ):
        if file is not None:
            _check_file(option, file, is_ours)
    read = [run for _, run in ranked(read_runs(runs))]
    if max_new_tokens:
        prompt, read = _with_texts(
            read, Engine(context.plugins()), prompt, max_new_tokens, seed, device
        )
    if svg is not None:
        _write("--svg", svg, curves.draw(read))
    if page is not None:
        _write("--html", page, comparison_page.page(read, prompt))
    click.echo(
        json.dumps(_as_json(read, prompt), indent=2, ensure_ascii=False)
        if as_json
        else _as_text(read, prompt)
    )


def _as_text(runs: Sequence[ComparedRun], prompt: str | None) -> str:
    parts = [
        text.table(
            comparison_page.HEADER, [comparison_page.cells(run) for run in runs], right=range(2, 9)
        )
    ]
    if cause := warning(runs):
        parts.append(f"note: {cause}")
    lines = []
    for difference in differences(runs):
        lines.append(text.printable(difference.key))
        width = min(40, max(len(value) for value, _ in difference.values))
        lines += [
            f"    {text.printable(v).ljust(width)}  {text.printable(', '.join(n))}"
            for v, n in difference.values
        ]
    if len(runs) > 1:
        parts.append(
            "\n".join(["settings that differ:", *lines]) if lines else "their settings are the same"
        )
    if any(run.text or run.why_no_text for run in runs):
        parts.append(_samples(runs, prompt or ""))
    return "\n\n".join(parts)


def _samples(runs: Sequence[ComparedRun], prompt: str) -> str:
    """What each writes: in columns where the terminal is wide enough, else one below the other."""
    width = shutil.get_terminal_size().columns
    each = (width + 2) // len(runs) - 2
    columns = []
    for run in runs:
        lines = [text.printable(line) for line in (run.text or f"({run.why_no_text})").splitlines()]
        column = each if each >= _LEAST_COLUMN else width
        columns.append([part for line in lines for part in (textwrap.wrap(line, column) or [""])])
    heading = f"what they write after {prompt!r}:" if prompt else "what they write:"
    names = [text.printable(run.label) for run in runs]
    if each < _LEAST_COLUMN:
        blocks = [
            "\n".join([f"=== {name} ===", *lines])
            for name, lines in zip(names, columns, strict=True)
        ]
        return "\n\n".join([heading, *blocks])
    header = [textwrap.shorten(name, each, placeholder="…") for name in names]
    rows = list(zip_longest(*columns, fillvalue=""))
    return f"{heading}\n\n{text.table(header, rows)}"


def _as_json(runs: Sequence[ComparedRun], prompt: str | None) -> dict[str, Any]:
    rows = []
    for run in runs:
        speed = {
            "characters_per_second": run.characters_per_second,
            "bits_per_character": run.bits_per_character,
        }
        samples = {"text": run.text, "why_no_text": run.why_no_text}
        rows.append(
            {**as_row(run.summary), "name": run.label, **speed, "curve": run.curve, **samples}
        )
    differ = [
        {
            "key": difference.key,
            "values": [{"value": value, "runs": names} for value, names in difference.values],
        }
        for difference in differences(runs)
    ]
    return {"runs": rows, "settings": differ, "note": warning(runs), "prompt": prompt}


def _with_texts(
    runs: Sequence[ComparedRun],
    engine: Engine,
    prompt: str | None,
    max_new_tokens: int,
    seed: int,
    device: str,
) -> tuple[str, list[ComparedRun]]:
    """The prompt, and the runs with what each model writes; where one cannot, why."""
    made = []
    for run in runs:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # that a run is not finished: the table says so
                generator = engine.load(run.summary.path, device=device)
            with generator:
                if prompt is None:
                    prompt = str(generator.tables.get("generate", {}).get("prompt", ""))
                _tell_what_is_left_out(run.label, generator, prompt)
                written = generator.generate(
                    prompt,
                    max_new_tokens=max_new_tokens,
                    seed=seed,
                    unknown_characters="skip",
                    echo=False,
                )
            made.append(attrs.evolve(run, text=written.text))
        except TextgenError as error:
            made.append(attrs.evolve(run, why_no_text=str(error)))
    return prompt or "", made


def _tell_what_is_left_out(label: str, generator: Generator, prompt: str) -> None:
    try:
        generator.encode_prompt(prompt)  # as the run has it
    except PromptError as error:
        lacking = ", ".join(map(repr, error.characters))
        told = f"{label} continues the prompt without what its vocabulary lacks: {lacking}"
        click.echo(f"textgen: warning: {text.printable(told)}", err=True)


def _check_file(option: str, file: str, is_ours: Callable[[bytes], bool]) -> None:
    """Raise UsageError, before any work, where a file cannot be written or would take the place of something else."""
    path = Path(file)
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = (
            "is a folder"
            if path.is_dir()
            else f"cannot be written: there is no folder {path.parent}"
        )
        raise UsageError(f"{option} {file} {what}; give the name of a file")
    if path.exists():
        try:
            with path.open("rb") as opened:
                beginning = opened.read(_BEGINNING)
        except OSError as error:
            raise UsageError(
                f"{option} {file} cannot be read: {error.strerror or error}"
            ) from error
        if not is_ours(beginning):
            raise UsageError(
                f"{file} exists, and was not written by {option}; it is not replaced: give another name"
            )


def _write(option: str, file: str, content: str) -> None:
    try:
        write_atomic(Path(file), content.encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(f"{option} {file} cannot be written: {error.strerror or error}") from error
    click.echo(f"textgen: wrote {file}", err=True)
