"""textgen generate."""

from __future__ import annotations

from typing import Any

import click

from textgen.cli.options import check_run, device_option, readable_file
from textgen.cli.request_options import RequestCommand, request_options


@click.command("generate", cls=RequestCommand)
@click.argument("run", type=click.Path())
@click.option(
    *("--prompt", "-p", "prompts"),
    multiple=True,
    help="The text to continue. May be given several times. Without one, stdin is read to "
    "its end; on a terminal, "
    "a session opens.",
)
@click.option(
    "--prompts-file",
    type=readable_file,
    metavar="FILE",
    help="Continue each line of a file; '-' is stdin. Empty lines are skipped.",
)
@click.option(
    "--n", "-n", default=1, show_default=True, help="Number of continuations of each prompt."
)
@click.option(
    "--distinct",
    is_flag=True,
    help="Replace a text that came before, or is a document of the training corpus, by another.",
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
    help="Text; a line for each text, with spaces for its line breaks; or JSON lines. For "
    "a file: > FILE",
)
@click.option(
    "--novelty",
    is_flag=True,
    help="Report how much of the text is copied from the training corpus.",
)
@device_option
@click.pass_obj
def command(
    context: Any, /, run: str, device: str, options: dict[str, Any], **arguments: Any
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
    check_run(run, context.plugins())
    from textgen.cli.output import OutputOptions, write
    from textgen.engine import Engine

    output = OutputOptions(**arguments)
    output.check()
    with Engine(context.plugins()).load(run, device=device) as generator:
        if output.is_interactive():
            from textgen.cli.session import Session

            table = request_options(context.plugins(), of_plugins=True)
            Session(generator, options, table, index=output.index).run()
        else:
            write(generator, output, options)
