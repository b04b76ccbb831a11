"""textgen show: a pipeline as TOML in which every key says what it does."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import attrs
import click
import tomli_w

from textgen import ConfiguredComponent, Pipeline
from textgen.cli import set_option
from textgen.pipeline import GeneralOptions, inline_toml
from textgen.plugin import phrase, plain
from textgen.runs import resolve

_WIDTH = 100


@click.command("show")
@click.argument("pipeline", type=click.Path())
@set_option
@click.pass_obj
def show(context: Any, pipeline: str, overrides: tuple[str, ...]) -> None:
    """Print a pipeline with every default, and what each key does.

    The output is itself a pipeline. If it does not set `output`, its run directory has the name of
    the file that you save it to.
    """
    made = resolve(pipeline, overrides, context.plugins)
    is_default = made.output == Path.cwd() / "runs" / made.name
    is_below = made.output.is_relative_to(made.folder)
    output = made.output.relative_to(made.folder) if is_below else made.output
    click.echo(commented_toml(made, None if is_default else output), nl=False)


def commented_toml(pipeline: Pipeline, output: Any) -> str:
    """TOML with every default filled in. Reading it again gives the same pipeline.

    output  the run directory as it was written, or None: the name of the file, and that of an
            edited copy, decides
    """
    general = GeneralOptions(pipeline.seed, pipeline.device, pipeline.threads, output)
    chains = {"sampler": pipeline.sampler, "observer": pipeline.observer}
    parts = [
        _keys(general),
        *(f"{kind} = []\n" for kind, chain in chains.items() if not chain),
        _component("[corpus]", pipeline.corpus),
        _component("[tokenizer]", pipeline.tokenizer),
        _table("data", pipeline.data),
        _component("[model]", pipeline.model),
        _component("[trainer]", pipeline.trainer),
        *(_component(f"[[{kind}]]", choice) for kind, chain in chains.items() for choice in chain),
        _table("checkpoint", pipeline.checkpoint),
        _table("generate", pipeline.generate),
        *(
            _component("[generate.strategy]", choice)
            for choice in pipeline.decoding[len(pipeline.sampler) :]
        ),
    ]
    return "\n".join(parts)


def _component(header: str, choice: ConfiguredComponent) -> str:
    """A component's table, and below it those of the components that it is made of."""
    made = f"{_comment(choice.offer.component.summary)}{header}\n"
    made += tomli_w.dumps({"type": choice.name})
    if choice.start is not None:
        what = "weights it starts with" if choice.offer.kind == "model" else "vocabulary it keeps"
        made += _comment(f"the run whose {what}, which `textgen run` needs")
        made += tomli_w.dumps({"start": choice.start.name})
    made += _keys(choice.options)
    name = header.strip("[]")
    return "\n".join(
        [made, *(_component(f"[{name}.{key}]", part) for key, part in choice.parts().items())]
    )


def _table(name: str, options: Any) -> str:
    doc = inspect.cleandoc(type(options).__doc__ or "")
    summary = _comment(" ".join(doc.partition("\n\n")[0].split()))
    return f"{summary}[{name}]\n{_keys(options)}"


def _keys(options: Any) -> str:
    lines = []
    for field in attrs.fields(type(options)):
        if field.metadata.get("kind", "") not in ("", "run"):
            continue
        lines.append(_comment(field.metadata.get("help", "")))
        value = getattr(options, field.name)
        if value is None:
            lines.append(f"# {field.name} = {phrase(field.type)}; not set\n")
        else:
            lines.append(f"{field.name} = {inline_toml(plain(value))}\n")
    return "".join(lines)


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))
