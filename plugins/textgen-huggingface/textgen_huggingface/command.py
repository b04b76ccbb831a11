"""textgen huggingface-export."""

from __future__ import annotations

from pathlib import Path

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
    def command(
        run: Path, target: Path, adapter: bool, kind: str | None, chat_template: bool
    ) -> None:
        """Write the best weights of a finished RUN to TARGET.

        A TARGET that ends in .gguf becomes a file for llama.cpp, Ollama and LM Studio. Any other
        becomes a folder for transformers, with config and tokenizer. Adapters are added to the
        weights of their model.
        """
        from textgen_huggingface.export import export

        export(context, run, target, adapter=adapter, kind=kind, chat_template=chat_template)
        if target.suffix == ".gguf":
            opens = "llama.cpp opens it" + (" with --lora" if adapter else "")
        else:
            opens = f"{'PeftModel' if adapter else 'AutoModelForCausalLM'}.from_pretrained opens it"
        click.echo(f"textgen: wrote {target}; {opens}", err=True)

    return command
