"""The fingerprint of a run: everything that determines its model, and what has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from textgen.errors import Difference
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.configured import ConfiguredComponent, plain
from textgen.plugin.nested_tables import flat
from textgen.protocols import Table
from textgen.runs.formats import CorpusDigest
from textgen.runs.starting import identity


def fingerprint(pipeline: Pipeline, digest: CorpusDigest) -> Table:
    """Everything that determines the model. The corpus is identified by its text, not its path.

    A config class may define `fingerprint() -> dict` to choose which of its options count.
    """
    return {
        "seed": pipeline.seed,
        "data": plain(pipeline.data),
        **{kind: identity(getattr(pipeline, kind)) for kind in ("tokenizer", "model", "trainer")},
        # Of the observers those that may stop a run early, whose config classes say so.
        "observer": {
            choice.offer.canonical_name: plain(choice.options.fingerprint())
            for choice in pipeline.observer
            if hasattr(choice.options, "fingerprint")
        },
        "corpus": attrs.asdict(digest),
    }


def changes(record: Table, pipeline: Pipeline, digest: CorpusDigest) -> list[Difference]:
    """What has changed since the run of a record; not options that are new since then."""
    shape, kept = fingerprint(pipeline, digest), dict(record["fingerprint"])
    for kind in ("tokenizer", "model", "trainer"):
        kept[kind] = _with_new_options(kept[kind], shape[kind], getattr(pipeline, kind))
    watching = kept["observer"] = dict(kept["observer"])
    for choice in pipeline.observer:
        if (name := choice.offer.canonical_name) in watching:
            now = shape["observer"].get(name, {})
            watching[name] = _with_new_options(watching[name], now, choice)
    return differences(kept, shape)


def _with_new_options(before: Table, now: Table, choice: ConfiguredComponent) -> Table:
    """The recorded options of a component, with the defaults of those that it has since then."""
    made, parts = dict(before), choice.parts()
    for key, field in choice.offer.component.options().items():
        default: Any = field.default
        if key not in now:
            continue
        if not now[key] and key in choice.runs():  # it is gone, and not needed any more
            made[key] = now[key]
        elif key not in made and default is not attrs.NOTHING:
            made[key] = plain(default.factory() if hasattr(default, "factory") else default)
        if key in parts and isinstance(made.get(key), Mapping):
            made[key] = _with_new_options(made[key], now[key], parts[key])
    return made


def differences(before: Table, now: Table) -> list[Difference]:
    """The keys of nested tables whose values are others, dotted."""
    before, now = flat(before), flat(now)
    keys = [key for key in before | now if before.get(key) != now.get(key)]
    return [Difference(key, before.get(key), now.get(key)) for key in keys]
