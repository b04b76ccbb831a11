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
    @click.option("--adapter", is_flag=True, help="Write the adapter of a run with [model.lora].")
    def command(run: Path, folder: Path, adapter: bool) -> None:
        """Write the best weights, config and tokenizer of a finished RUN to a new FOLDER for
        transformers; adapters are added to the weights of their model.
        """
        from textgen_huggingface.export import export

        export(context, run, folder, adapter=adapter)
        opens = "PeftModel" if adapter else "AutoModelForCausalLM"
        click.echo(f"textgen: wrote {folder}; {opens}.from_pretrained opens it", err=True)

    return command
