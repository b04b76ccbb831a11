"""textgen generate."""

from __future__ import annotations

from typing import Any

import click

from textgen.cli.options import device_option


@click.command("generate")
@click.argument("run", type=click.Path())
@click.option("--prompt", "-p", default="", help="The text to continue; none starts from the model's start state.")
@click.option("--max-new-tokens", default=400, show_default=True, help="How many tokens to add.")
@click.option("--temperature", type=float, help="In place of the run's samplers: 0 is greedy, 1 as the model is.")
@click.option("--greedy", is_flag=True, help="In place of the run's samplers: always the most likely token.")
@click.option("--seed", type=int, help="Seed of the random draws; the run's seed if not given.")
@click.option("--n", default=1, show_default=True, help="How many continuations.")
@click.option("--echo/--no-echo", default=True, help="Print the prompt before its continuation.")
@click.option(
    "--unknown-characters",
    type=click.Choice(["error", "skip", "unknown"]),
    default="error",
    show_default=True,
    help="What to do about prompt characters outside the vocabulary.",
)
@device_option
@click.pass_obj
def command(
    settings: Any,
    run: str,
    prompt: str,
    max_new_tokens: int,
    temperature: float | None,
    greedy: bool,
    seed: int | None,
    n: int,
    echo: bool,
    unknown_characters: Any,
    device: str,
) -> None:
    """Continue a prompt with the model of a run directory."""
    from textgen.engine import Engine
    from textgen.errors import UsageError

    if greedy and temperature is not None:
        raise UsageError("--greedy and --temperature exclude each other")
    if n < 1:
        raise UsageError(f"--n must be at least 1, and is {n}")
    sampler: list[dict[str, Any]] | None = None
    if greedy:
        sampler = [{"type": "greedy"}]
    elif temperature is not None:
        sampler = [{"type": "temperature", "temperature": temperature}]
    generator = Engine(disable=settings.disable).load(run, device=device, sampler=sampler)
    for index in range(n):
        generation = generator.generate(
            prompt, max_new_tokens=max_new_tokens, seed=seed, index=index, unknown_characters=unknown_characters
        )
        click.echo(str(generation) if echo else generation.text)
