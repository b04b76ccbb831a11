"""textgen huggingface-export."""

from __future__ import annotations

from pathlib import Path

import click

from textgen import BuildContext


def make_command(context: BuildContext) -> click.Command:
    """The subcommand, with the plugins of the command line."""

    @click.command("huggingface-export")
    @click.argument("run", type=click.Path(path_type=Path))
    @click.argument("folder", type=click.Path(path_type=Path))
    def command(run: Path, folder: Path) -> None:
        """Write the best weights, config and tokenizer of a finished RUN to a new FOLDER for
        transformers.
        """
        from textgen_huggingface.export import export

        export(context, run, folder)
        click.echo(
            f"textgen: wrote {folder}; AutoModelForCausalLM.from_pretrained opens it", err=True
        )

    return command
