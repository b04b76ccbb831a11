"""Pipelines that hypothesis makes up: a correct result, or an error of textgen.errors.

The examples are others each time; a failure prints what repeats it.
`python -m campaigns.corruptions` spoils files.
"""

import contextlib
import tomllib

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import textgen
from campaigns.mutations import BYTES, restructured

small = st.sampled_from(sorted(name for name in BYTES if "many" not in name))
PIPELINE = """
seed = 1
corpus.type = "story"
tokenizer.type = "char"
model.type = "rnn"
trainer.type = "adamw"
[[sampler]]
type = "temperature"
[generate]
prompt = "a"
stop = ["b"]
"""


def use(pipeline):
    """Anything but an error that is foreseen fails the test."""
    with contextlib.suppress(textgen.TextgenError):
        textgen.Engine().pipeline(pipeline)


@pytest.mark.slow
@given(draw=st.randoms(use_true_random=False), how=small)
@settings(
    derandomize=False,
    print_blob=True,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
)
def test_pipelines(tmp_path_factory, draw, how):
    path = tmp_path_factory.getbasetemp() / "p.toml"
    tables = tomllib.loads(PIPELINE)
    path.write_bytes(BYTES[how](PIPELINE.encode(), draw))
    use(path)
    with contextlib.suppress(TypeError, AttributeError, ValueError):  # what TOML has no word for
        path.write_bytes(tomli_w.dumps(restructured(tables, draw)).encode())
    use(path)
    spoilt = restructured(tables, draw)
    use(spoilt if isinstance(spoilt, dict) else {"model": spoilt})
