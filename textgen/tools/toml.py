"""Values as TOML."""

from __future__ import annotations

from typing import Any

import tomli_w


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
