"""Errors carry facts, and their text serves the command line and programs alike."""

import pytest

import textgen as api
from textgen.errors import Difference


def test_an_argument_its_value_and_all_faults_are_facts(generator):
    with pytest.raises(api.UsageError, match="temperature: must be >= 0") as raised:
        generator.generate("the ", top_p=50.0, temperature=-1.0)
    given = {fault.path: fault.given for fault in raised.value.faults}
    assert given == {"top_p": "50.0", "temperature": "-1.0"}
    assert raised.value.argument in given
    with pytest.raises(api.UsageError) as raised:
        generator.generate("the ", temperatur=1.0)
    assert raised.value.faults[0].hint == "did you mean 'temperature'?"


@pytest.mark.fault(6)
def test_a_mismatch_lists_what_was_and_what_is(tiny_pipeline, write_pipeline, tmp_path, textgen):
    api.run(tiny_pipeline(seed=1))
    other = tiny_pipeline(seed=2)
    with pytest.raises(api.RunMismatchError) as raised:
        api.run(other)
    error = raised.value
    assert (error.differences, error.path) == ((Difference("seed", 1, 2),), tmp_path / "run")
    failed = textgen("run", write_pipeline(other), cwd=tmp_path)
    assert "seed: 1 before, 2 now" in failed.stderr
    assert "choose another --output, or replace it with --overwrite" in failed.stderr
    assert "replace it with `overwrite`" in str(error)
