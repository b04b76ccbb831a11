"""textgen completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(textgen completion bash)"            in ~/.bashrc
    zsh:   eval "$(textgen completion zsh)"             in ~/.zshrc
    fish:  textgen completion fish | source             in ~/.config/fish/config.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(ctx.find_root().command, {}, "textgen", "_TEXTGEN_COMPLETE").source())
