"""textgen generate."""

from __future__ import annotations

import io
import sys
from typing import Any, Final

import click

from textgen.cli.options import device_option
from textgen.cli.request_options import RequestCommand, request_options, unescaped
from textgen.errors import UsageError

_MAX_CHARACTERS: Final = 20_000  # of a prompt on stdin: a whole novel takes a minute, for nothing


@click.command("generate", cls=RequestCommand)
@click.argument("run", type=click.Path())
@click.option(
    *("--prompt", "-p", "prompts"),
    multiple=True,
    help="The text to continue. May be given several times. Without one, stdin is read to its "
    "end; on a terminal, a session opens.",
)
@click.option(
    "--n", "-n", default=1, show_default=True, help="Number of continuations of each prompt."
)
@click.option(
    "--distinct",
    is_flag=True,
    help="Replace texts that repeat an earlier one, or a document of the training corpus.",
)
@click.option(
    "--index",
    default=0,
    show_default=True,
    help="Index of the first text, which distinguishes the texts of one seed.",
)
@click.option(
    "--batch-size", default=256, show_default=True, help="Number of texts to generate at once."
)
@click.option(
    *("--output", "-o", "form"),
    type=click.Choice(["text", "lines", "jsonl"]),
    default="text",
    help="Format: text, lines (one text per line, without line breaks) or jsonl. To write a file: "
    "> FILE",
)
@click.option(
    "--novelty",
    is_flag=True,
    help="Report how much of the text is copied from the training corpus.",
)
@device_option
@click.pass_obj
def command(
    context: Any,
    /,
    run: str,
    device: str,
    prompts: tuple[str, ...],
    form: str,
    novelty: bool,
    options: dict[str, Any],
    **many: Any,
) -> None:
    """Continue a prompt with the model of a run directory.

    RUN is the directory that `textgen run` made, such as runs/my, or the name of a run that a
    plugin offers.

    \b
    textgen generate runs/my                                      a session: type prompts
    textgen generate runs/my -p "The door" --temperature 0.7
    textgen generate runs/my -p "The door" -n 3 > three.txt
    echo "The door" | textgen generate runs/my

    The defaults come from the run's pipeline. A sampling option changes that option of the run's
    own samplers, or adds the sampler that takes it; the others stay. `--max-new-tokens none`
    continues until Ctrl-C, and `--seed random` draws a seed, which is reported. In an option
    that may be given several times, \\n is a line break, \\t a tab and \\\\ a backslash; a table is
    written as in TOML: --logit-bias '{e = -2}'. All texts share a time limit.
    """
    from textgen.cli.output import write_stream, write_texts
    from textgen.engine import Engine

    is_one = many["n"] == 1 and len(prompts) < 2 and not (novelty or many["distinct"])
    is_typed = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    index, told = many["index"], {"echo": True, **options}
    with Engine(context.plugins).load(run, device=device) as generator:
        if form != "text" or not is_one:
            given = _read(prompts)
            write_texts(generator, given, form=form, novelty=novelty, **many, **told)
        elif prompts or not is_typed:
            write_stream(generator, _read(prompts)[0], index=index or None, **told)
        else:
            from textgen.cli.session import Session

            Session(generator, options, request_options(context.plugins), index=index).run()


def _read(prompts: tuple[str, ...]) -> list[str]:
    """The prompts that are given. Without one, stdin is read to its end, unless it is a terminal.

    Raises UsageError.
    """
    if prompts or sys.stdin is None or sys.stdin.isatty():
        return [*map(unescaped, prompts or [""])]
    try:
        text = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig").read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError("stdin is not UTF-8; save the prompt as UTF-8 text") from error
    if len(text) > _MAX_CHARACTERS:
        said = f"stdin has {len(text):,} characters; its last {_MAX_CHARACTERS:,} are the prompt"
        click.echo(f"textgen: warning: {said}", err=True)
    return [text[-_MAX_CHARACTERS:]]
