"""A pipeline as TOML in which every key says what it does."""

from __future__ import annotations

import textwrap
from typing import Any

import attrs
import tomli_w

from textgen.pipeline.options import GeneralOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.structure import Choice, phrase, plain

_WIDTH = 100


def commented_toml(pipeline: Pipeline, output: Any) -> str:
    """TOML with every default filled in. Reading it again gives the same pipeline.

    output  the run directory as it was written, or None: the name of the file, and that of an edited copy, decides
    """
    general = GeneralOptions(pipeline.seed, pipeline.device, pipeline.threads, output)
    start = ""
    if pipeline.start is not None:
        start = _comment("the run whose weights it starts with, needed until training has begun")
        start += tomli_w.dumps({"start": str(pipeline.start.run)})
    chains = {"sampler": pipeline.samplers, "observer": pipeline.observers}
    parts = [
        _keys(general),
        *(f"{kind} = []\n" for kind, chain in chains.items() if not chain),
        _component("[corpus]", pipeline.corpus),
        _component("[tokenizer]", pipeline.tokenizer),
        _table("data", pipeline.data),
        _component("[model]", pipeline.model, start),
        _component("[trainer]", pipeline.trainer),
        *(_component(f"[[{kind}]]", choice) for kind, chain in chains.items() for choice in chain),
        _table("checkpoint", pipeline.checkpoint),
        _table("generate", pipeline.generate),
    ]
    return "\n".join(parts)


def _component(header: str, choice: Choice, start: str = "") -> str:
    """A component's table, and below it those of the components that it is made of."""
    summary = _comment(choice.offer.component.summary)
    made = (
        f"{summary}{header}\n{tomli_w.dumps({'type': choice.name})}{start}{_keys(choice.options)}"
    )
    name = header.strip("[]")
    return "\n".join(
        [made, *(_component(f"[{name}.{key}]", part) for key, part in choice.parts().items())]
    )


def _table(name: str, options: Any) -> str:
    summary = _comment((type(options).__doc__ or "").strip().partition("\n")[0])
    return f"{summary}[{name}]\n{_keys(options)}"


def _keys(options: Any) -> str:
    lines = []
    for field in attrs.fields(type(options)):
        if field.metadata.get("kind"):
            continue
        lines.append(_comment(field.metadata.get("help", "")))
        value = getattr(options, field.name)
        if value is None:
            lines.append(f"# {field.name} = {phrase(field.type)}; not set\n")
        else:
            lines.append(f"{_key(field.name)} = {inline_toml(plain(value))}\n")
    return "".join(lines)


def inline_toml(value: Any) -> str:
    """A value as TOML on the right of `=`, in one line.

    Tables too: the header of one would take over the keys that follow.
    """
    if isinstance(value, dict):
        pairs = ", ".join(f"{_key(key)} = {inline_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline_toml, value))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))
