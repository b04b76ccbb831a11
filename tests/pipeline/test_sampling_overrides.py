"""Overrides of the chain of samplers as a whole: sampler.temperature=0.5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import textgen
from textgen import Engine, PipelineError

Make = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("chain", "overrides", "expected"),
    [
        (None, ["sampler.temperature=0.5"], [("temperature", 0.5)]),
        ([], ["sampler.temperature=0.5", "sampler.top-k=7"], [("top-k", 7), ("temperature", 0.5)]),
        ([{"type": "temperature"}], ["sampler.temperature=0.5"], [("temperature", 0.5)]),
        (
            [{"type": "top-k", "k": 3}],
            {"sampler.temperature": 0.5},
            [("top-k", 3), ("temperature", 0.5)],
        ),
        ([{"type": "top-k", "k": 3}], {"sampler": {"top_k": 5}}, [("top-k", 5)]),
        ([{"type": "greedy"}], ["sampler.temperature=0.5"], [("temperature", 0.5)]),
        (
            [{"type": "greedy"}],
            ["sampler.top_k=4", 'sampler=[{type="xtc"}]'],
            [("top-k", 4), ("xtc", None)],
        ),
    ],
)
def test_an_option_changes_its_sampler_or_joins_the_chain(
    tiny_pipeline: Make, chain: Any, overrides: Any, expected: list[tuple[str, float]]
) -> None:
    tables = tiny_pipeline() | ({} if chain is None else {"sampler": chain})
    found = Engine().pipeline(tables, overrides).to_dict()["sampler"]
    assert [
        (table["type"], table.get("k", table.get("temperature"))) for table in found
    ] == expected


def test_a_run_writes_with_it_and_trains_no_model_anew(
    textgen: Callable[..., Any],
    tiny_pipeline: Make,
    write_pipeline: Callable[..., Path],
    tmp_path: Path,
) -> None:
    pipeline = write_pipeline(tiny_pipeline())
    first = textgen("run", pipeline, cwd=tmp_path)
    sharp = textgen("run", pipeline, "--set", "sampler.temperature=0", cwd=tmp_path)
    assert (first.code, sharp.code) == (0, 0), sharp.stderr
    assert "skipped" in sharp.stderr
    assert sharp.stdout != first.stdout
    assert (
        sharp.stdout
        == textgen("generate", tmp_path / "run", "--temperature", "0", cwd=tmp_path).stdout
    )


@pytest.mark.parametrize("key", ["sampler.0.temperature", "observer.0.every", "observer.every"])
def test_a_table_of_a_chain_that_is_not_there_says_what_to_write(
    tiny_pipeline: Make, key: str
) -> None:
    kind = key.partition(".")[0]
    with pytest.raises(PipelineError) as refused:
        textgen.Engine().pipeline(
            {k: v for k, v in tiny_pipeline().items() if k != kind}, [f"{key}=5"]
        )
    (fault,) = refused.value.faults
    assert (fault.path, fault.hint) == (key, f'it has no [[{kind}]]: write {kind}=[{{type="…"}}]')


def test_all_that_is_wrong_with_the_options_is_said_with_the_rest(tiny_pipeline: Make) -> None:
    with pytest.raises(PipelineError) as refused:
        Engine().pipeline(
            tiny_pipeline(), ["sampler.temprature=1", "sampler.top_p=7", "trainer.batch_size=0"]
        )
    assert sorted(fault.path for fault in refused.value.faults) == [
        "sampler.temprature",
        "sampler.top_p",
        "trainer.batch_size",
    ]
