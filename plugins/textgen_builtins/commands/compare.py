"""textgen compare: runs side by side, on the command line and in a notebook."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Self

import attrs
import click

from textgen import PromptError, TextgenError
from textgen.cli import check_output, device_option, json_option, write_output
from textgen_builtins.commands import comparison_page, text
from textgen_builtins.commands.columns import as_row, table
from textgen_builtins.commands.compared import ComparedRun, differences, ranked, read_runs, warning

if TYPE_CHECKING:
    from textgen import Engine, Generator


@attrs.frozen(repr=False)
class Comparison:
    """Runs side by side.

    `Comparison.of("runs/a", "runs/b")` in a notebook shows the page of `textgen compare --html`.

    runs    the one with the lowest loss first, or where their tokens differ, with the fewest bits
            per character
    prompt  what they continue; None where they write nothing
    """

    runs: Sequence[ComparedRun]
    prompt: str | None = None

    @classmethod
    def of(
        cls,
        *paths: str,
        prompt: str | None = None,
        max_new_tokens: int = 200,
        seed: int = 0,
        device: str = "auto",
        engine: Engine | None = None,
    ) -> Self:
        """The runs at the paths, or in the folders there.

        The arguments are the options of the command.

        Raises UsageError where there is no run.
        """
        from textgen import Engine  # which loads NumPy

        runs = [run for _, run in ranked(read_runs(paths))]
        if max_new_tokens:
            options = {"max_new_tokens": max_new_tokens, "seed": seed}
            prompt, runs = _with_texts(runs, engine or Engine(), prompt, device, options)
        return cls(runs, prompt)

    def page(self) -> str:
        """The page, which needs no other file."""
        return comparison_page.page(self.runs, self.prompt)

    def __repr__(self) -> str:
        return _as_text(self.runs)

    def _repr_html_(self) -> str:
        style = "width: 100%; height: 45rem; border: 0"
        return f'<iframe sandbox style="{style}" srcdoc="{escape(self.page())}"></iframe>'


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option(
    "--html",
    "page",
    type=click.Path(),
    metavar="FILE",
    help="Write all of it as one page, with the curves of the losses.",
)
@click.option(
    "--prompt",
    "-p",
    metavar="TEXT",
    help="Prompt of the samples, which --html and --json have; that of the first run if not given.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="0 writes no samples.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the samples."
)
@device_option
@json_option
@click.pass_obj
def compare(
    context: Any,
    /,
    runs: Sequence[str],
    page: str | None,
    prompt: str | None,
    max_new_tokens: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Compare runs: settings that differ, losses, speed, size, curves and samples.

    RUNS are run directories, or folders of them, such as that of a sweep. The run with the lowest
    loss comes first, or if the tokens differ, the run with the fewest bits per character. Losses
    are the lowest ones, in nats per token, of the held-out text. With --html or --json every model
    continues the same prompt with the same seed; that of a run which is not finished is a
    checkpoint's.
    """
    from textgen import Engine  # which loads NumPy

    if page is not None:
        check_output("--html", page, "page of textgen compare", comparison_page.is_page)
    compared = Comparison.of(
        *runs,
        prompt=prompt,
        max_new_tokens=max_new_tokens if as_json or page is not None else 0,
        seed=seed,
        device=device,
        engine=Engine(context.plugins()),
    )
    if page is not None:
        write_output(page, compared.page())
    if as_json:
        values = _as_json(compared.runs, compared.prompt)
        click.echo(json.dumps(values, indent=2, ensure_ascii=False))
    else:
        click.echo(repr(compared))


def _as_text(runs: Sequence[ComparedRun]) -> str:
    parts = [table(runs, comparison_page.COLUMNS)]
    if cause := warning(runs):
        parts.append(f"note: {cause}")
    lines = []
    for difference in differences(runs):
        lines.append(text.printable(difference.key))
        width = min(40, max(len(value) for value, _ in difference.values))
        lines += [
            f"    {text.printable(value).ljust(width)}  {text.printable(', '.join(labels))}"
            for value, labels in difference.values
        ]
    if len(runs) > 1:
        parts.append(
            "\n".join(["settings that differ:", *lines] if lines else ["the same settings"])
        )
    return "\n\n".join(parts)


def _as_json(runs: Sequence[ComparedRun], prompt: str | None) -> dict[str, Any]:
    rows = [
        as_row(run, curve=run.curve, text=run.text, why_no_text=run.why_no_text) for run in runs
    ]
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
    device: str,
    options: dict[str, Any],
) -> tuple[str, list[ComparedRun]]:
    """The prompt, and the runs with what each model writes; where one cannot, why."""
    made = []
    for run in runs:
        try:
            with warnings.catch_warnings():
                # The table says that a run is not finished.
                warnings.simplefilter("ignore", UserWarning)
                generator = engine.load(run.summary.path, device=device)
            with generator:
                if prompt is None:
                    prompt = str(generator.tables.get("generate", {}).get("prompt", ""))
                _tell_what_is_left_out(run.label, generator, prompt)
                options |= {"unknown_characters": "skip", "echo": False}
                made.append(attrs.evolve(run, text=generator.generate(prompt, **options).text))
        except TextgenError as error:
            made.append(attrs.evolve(run, why_no_text=str(error)))
    return prompt or "", made


def _tell_what_is_left_out(label: str, generator: Generator, prompt: str) -> None:
    try:
        generator.encode_prompt(prompt)  # as the run has it
    except PromptError as error:
        lacking = ", ".join(map(repr, error.characters))
        told = f"{label} continues the prompt without what its vocabulary lacks: {lacking}"
        warnings.warn(text.printable(told), stacklevel=2)
