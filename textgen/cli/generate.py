"""textgen generate."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from textgen.cli.options import SamplingCommand, check_run, device_option


def _integer_or(word: str) -> Callable[..., int | str | None]:
    """A callback of an option that takes an integer from 0, or a word."""

    def convert(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> int | str | None:
        if value in (None, word):
            return value
        if not value.isdecimal():
            raise click.BadParameter(f"expected an integer from 0 or {word!r}, given {value!r}")
        return int(value)

    return convert


def _unescaped(text: str) -> str:
    return re.sub(r"\\([nt\\])", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], "\\"), text)


@click.command("generate", cls=SamplingCommand)
@click.argument("run", type=click.Path())
@click.option(
    *("--prompt", "-p", "prompts"),
    multiple=True,
    help="The text to continue. May be given several times. Without one, it is what is piped in on stdin; on a "
    "terminal, a session opens.",
)
@click.option("--prompt-file", type=click.Path(), metavar="FILE", help="Continue the text of a file; '-' is stdin.")
@click.option(
    "--prompts-file",
    type=click.Path(),
    metavar="FILE",
    help="Continue each line of a file; '-' is stdin. Empty lines are skipped.",
)
@click.option(
    "--max-new-tokens",
    metavar="N",
    callback=_integer_or("none"),
    help="How many tokens to add at most; 'none' continues until it is stopped.",
)
@click.option("--min-new-tokens", type=int, metavar="N", help="How many tokens to add before a stop counts.")
@click.option(
    "--stop",
    multiple=True,
    callback=lambda _ctx, _parameter, texts: tuple(map(_unescaped, texts)),
    help=r"A text that ends the continuation; \n is a line break, \t a tab, \\ a backslash. Repeat it for several.",
)
@click.option("--ignore-end/--no-ignore-end", default=None, help="Go on where the model ends the text.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="End after so long, all texts together.")
@click.option(
    "--seed",
    metavar="N",
    callback=_integer_or("random"),
    help="Seed of the random draws; 'random' draws one, and reports it on stderr or in the JSON lines.",
)
@click.option("--n", "-n", default=1, show_default=True, help="How many continuations of each prompt.")
@click.option(
    "--index",
    default=0,
    show_default=True,
    help="Index of the first text, as JSON lines have it: of the texts of one seed, which.",
)
@click.option("--batch-size", default=256, show_default=True, help="How many texts to work on at once.")
@click.option(
    "--exact/--no-exact",
    default=None,
    help="Each text to the last bit what it would be alone, for models whose texts may differ in a batch.",
)
@click.option("--greedy", is_flag=True, help="Always the most likely token: --temperature 0.")
@click.option("--echo/--no-echo", default=None, help="Print the prompt before its continuation.")
@click.option("--stream", "as_stream", is_flag=True, help="Print the text as it comes.")
@click.option(
    *("--output", "-o", "form"),
    type=click.Choice(["text", "jsonl"]),
    default="text",
    help="Text, or JSON lines. For a file: > FILE",
)
@click.option(
    "--logprobs", type=int, metavar="K", help="With JSON lines: log-probabilities of each token and the K likeliest."
)
@click.option("--novelty", is_flag=True, help="Report how much of the text is copied from the training corpus.")
@click.option("--save-state", type=click.Path(), metavar="FILE", help="Save where the text ends, to resume there.")
@click.option("--load-state", type=click.Path(), metavar="FILE", help="Resume from a saved state.")
@click.option(
    "--unknown-characters",
    type=click.Choice(["error", "skip", "unknown"]),
    help="What to do about prompt characters outside the vocabulary.",
)
@device_option
@click.pass_obj
def command(context: Any, /, run: str, device: str, greedy: bool, sampling: dict[str, Any], **arguments: Any) -> None:
    """Continue a prompt with the model of a run directory.

    RUN is the directory that `textgen run` made, such as runs/my.

    \b
    textgen generate runs/my                                      a session: type prompts, read on
    textgen generate runs/my -p "The door" --temperature 0.7
    textgen generate runs/my -p "The door" -n 3 > three.txt
    echo "The door" | textgen generate runs/my

    What is not given is as the run's pipeline has it. A sampling option changes that option of the run's own samplers,
    or adds the sampler that takes it; the others stay.
    """
    check_run(run, "generate")
    from textgen.cli.writing import OutputOptions, write
    from textgen.engine import Engine
    from textgen.errors import UsageError

    if greedy:
        if "temperature" in sampling:
            raise UsageError("--greedy and --temperature exclude each other")
        sampling["temperature"] = 0.0
    if "" in arguments["stop"]:
        raise UsageError("--stop was given an empty text, which is nothing to stop at; give one character at least")
    output = OutputOptions.of(arguments)
    output.check()
    with Engine(disable=context.disable).load(run, device=device) as generator:
        write(generator, output, sampling, **arguments)
