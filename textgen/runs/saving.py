"""Writes a run directory for a run that has none."""

from __future__ import annotations

from textgen.errors import RunError
from textgen.files.reading import dump_tensors, dump_vocabulary
from textgen.generation.generator import Generator
from textgen.runs import record as run_record
from textgen.runs.directory import RunDirectory


def save_run(generator: Generator, directory: RunDirectory) -> None:
    """Write all that it takes to load the generator. Raises RunError where a run or other files are in the way."""
    made = directory.prepare()
    try:
        with directory.locked():
            if directory.exists():
                raise RunError(f"{directory.path} holds a run already; choose another folder", directory.path)
            record = run_record.described(generator.tables, generator.record)
            directory.write_artifact("pipeline.toml", run_record.pipeline_text(generator.tables))
            files = {
                **record["files"],
                "model.safetensors": directory.write_artifact(
                    "model.safetensors", dump_tensors(generator.model.tensors())
                ),
                "tokenizer.json": directory.write_artifact("tokenizer.json", dump_vocabulary(generator.tokenizer)),
            }
            directory.write_run({**record, "files": files})
    except BaseException:
        directory.abandon(made)
        raise
