"""Options that several subcommands share."""

from __future__ import annotations

import json

import click

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the pipeline, as in trainer.epochs=5. May be given several times.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help='"auto", "cpu", "cuda", "cuda:N" or "mps".'
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def device_override(device: str | None) -> list[str]:
    """`--device NAME` as an override of the pipeline."""
    return [] if device is None else [f"device={json.dumps(device)}"]
