"""Any mapping and any override is a pipeline, or refused."""

import contextlib
import tomllib

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_config import BASE

from textgen import PipelineError, UsageError
from textgen.pipeline.options import (
    CheckpointOptions,
    DataOptions,
    GeneralOptions,
    GenerateOptions,
)
from textgen.pipeline.pipeline import CHAINS, CHOICES
from textgen.testing import isolated_plugins
from textgen_builtins.commands.show import commented_toml

_OFFERS = isolated_plugins().offers()
TABLES = {"data": DataOptions, "checkpoint": CheckpointOptions, "generate": GenerateOptions}


_NAMES = sorted({offer.name for offer in _OFFERS})


_KEYS = sorted(
    {name for offer in _OFFERS for name in offer.component.options()}
    | {name for table in [*TABLES.values(), GeneralOptions] for name in attrs.fields_dict(table)}
)


keys = st.sampled_from(["type", *_KEYS]) | st.text(max_size=5)


scalars = (
    st.sampled_from([*_NAMES, "auto", "\0", "\ud800", "~x", "a:b", 2**64, 10**4000])
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.text(st.characters(), max_size=10)
    | st.datetimes()
    | st.dates()
    | st.times()
)


values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
)


tables_of = {
    **{
        kind: st.builds(
            lambda t, o: {"type": t, **o}, st.sampled_from(_NAMES), st.dictionaries(keys, values)
        )
        for kind in CHOICES
    },
    **{kind: st.lists(st.dictionaries(keys, values, max_size=3), max_size=3) for kind in CHAINS},
    **{name: st.dictionaries(keys, values, max_size=4) for name in TABLES},
}


@st.composite
def mappings(draw):
    """A good pipeline with a few of its tables, or of their keys, replaced by anything."""
    tables = {**BASE}
    for name in draw(
        st.lists(st.sampled_from([*tables_of, *attrs.fields_dict(GeneralOptions)]), max_size=4)
    ):
        tables[name] = draw(tables_of.get(name, values) | values)
    return {**tables, **draw(st.dictionaries(keys, values, max_size=2))}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(tables=mappings())
def test_any_mapping_is_a_pipeline_or_a_pipeline_error(engine, tables):
    try:
        pipeline = engine.pipeline(tables)
    except (
        UsageError
    ):  # a PipelineError; or one about a value that may be an object, such as a date for a corpus
        return
    if pipeline.corpus.name.startswith("object:"):  # a text, which no table can name
        return
    assert engine.pipeline(pipeline.to_dict()).to_dict() == pipeline.to_dict()
    assert (
        engine.pipeline(tomllib.loads(commented_toml(pipeline, str(pipeline.output)))).to_dict()
        == pipeline.to_dict()
    )


@settings(max_examples=150)
@given(
    override=st.text(max_size=20)
    | st.builds("{}={}".format, st.sampled_from(_KEYS), st.text(max_size=20))
)
def test_any_override_is_taken_or_refused(engine, override):
    with contextlib.suppress(PipelineError):
        engine.pipeline(BASE, [override])
