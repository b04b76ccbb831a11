"""textgen huggingface-export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from textgen import BuildContext


def make_command(context: BuildContext) -> click.Command:
    """The subcommand, with the plugins of the command line."""

    @click.command("huggingface-export")
    @click.argument("run", type=click.Path(path_type=Path))
    @click.argument("target", type=click.Path(path_type=Path))
    @click.option("--adapter", is_flag=True, help="Write the adapter of a run with [model.lora].")
    @click.option(
        "--type",
        "kind",
        type=click.Choice(["f16", "q8_0"]),
        help="How a GGUF file has the weights that were tuned: with 16 bits (f16, the default) "
        "or 8 bits (q8_0).",
    )
    @click.option(
        "--chat-template", is_flag=True, help="Keep the chat template of the base in a GGUF file."
    )
    @click.option(
        "--modelfile", is_flag=True, help="Write a Modelfile for Ollama beside a GGUF file."
    )
    @click.option(
        "--push",
        metavar="OWNER/NAME",
        help="Also send what was written to this model of the Hugging Face Hub. A new one is "
        "private.",
    )
    def command(run: Path, target: Path, **options: Any) -> None:
        """Write the best weights of a finished RUN to TARGET.

        A TARGET that ends in .gguf becomes a file for llama.cpp, Ollama and LM Studio. Any other
        becomes a folder for transformers, with config, tokenizer and model card. Adapters are added
        to the weights of their model.
        """
        from textgen_huggingface.export import ExportOptions, export

        def report(sentence: str) -> None:
            click.echo(f"textgen: {sentence}", err=True)

        export(context, run, target, ExportOptions(**options), report)

    return command
