"""A run in several processes: what the first tells the others, and how those take part in training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from textgen import devices
from textgen.contracts.components import Components
from textgen.data import Dataset
from textgen.errors import UsageError
from textgen.files.opening import file_signature
from textgen.files.reading import dump_tensors, load_tensors
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import BuildContext
from textgen.processes import Processes, RunEnded
from textgen.protocols import Ids, Tokenizer, TrainerState, TrainingContext
from textgen.runs import record as run_record
from textgen.runs.checkpoints import Checkpoint

_BLOCK: Final = 1 << 24  # tokens sent at once


def check_trainer(trainer: Any, name: str) -> None:
    """Raise UsageError for one that trains in one process only."""
    if not getattr(trainer, "distributed", False):
        raise UsageError(
            f"the trainer {name!r} does not train in several processes; run it without torchrun",
            argument="trainer",
        )


def lead(
    processes: Processes,
    pipeline: Pipeline,
    record: Mapping[str, Any],
    tokenizer: Tokenizer,
    data: Dataset,
    device: str,
    checkpoint: Checkpoint | None,
) -> None:
    """Tell the others what to train, and from where. `device` is a kind, such as "cuda"."""
    trainer = TrainerState() if checkpoint is None else checkpoint.trainer
    facts = {
        "fingerprint": run_record.fingerprint(pipeline),
        "settled": record.get("settled") or {},
        "tokenizer": tokenizer.to_dict(),
        "vocab_size": data.vocab_size,
        "characters_per_token": data.characters_per_token,
        "device": device,
        "trainer": None if checkpoint is None else trainer.values,
    }
    processes.agree(lambda: facts)
    processes.share(lambda: dump_tensors(trainer.arrays))
    for tokens in (data.training, data.validation):
        _send_tokens(processes, tokens)


def follow(processes: Processes, make_pipeline: Callable[[], Pipeline]) -> int:
    """Take part in what the first process trains; return its exit code.

    `make_pipeline` is called when there is something to train. Nothing is written. Raises ProcessesError, and what the
    components raise.
    """
    try:
        while True:
            facts = processes.agree(dict)
            pipeline = make_pipeline()
            with devices.threads(processes.threads(pipeline.threads)), Components() as components:
                _follow(processes, pipeline, facts, components)
    except RunEnded as end:
        return int(end.code or 0)


def _follow(
    processes: Processes, pipeline: Pipeline, facts: Mapping[str, Any], components: Components
) -> None:
    if json.dumps(run_record.fingerprint(pipeline), sort_keys=True) != json.dumps(
        facts["fingerprint"], sort_keys=True
    ):
        raise UsageError(
            f"the pipeline of process {processes.rank} is another than that of process 0"
        )
    pipeline = run_record.settle(pipeline, facts["settled"])
    context = BuildContext(
        folder=pipeline.folder,
        requested_device=processes.device(facts["device"]),
        seed=pipeline.seed,
        plugins=pipeline.plugins,
    )
    tokenizer = components.build(pipeline.tokenizer, context).from_dict(facts["tokenizer"])
    components.add(tokenizer, pipeline.tokenizer.offer)
    context = attrs.evolve(context, tokenizer=tokenizer)
    model = components.build(pipeline.model, context)
    trainer = components.build(pipeline.trainer, context)
    arrays = load_tensors(Path("what process 0 sent"), processes.share(bytes))
    if facts["trainer"] is not None:
        trainer.load_state(TrainerState(arrays, facts["trainer"]))
    with tempfile.TemporaryDirectory(prefix="textgen-", ignore_cleanup_errors=True) as folder:
        data = Dataset(
            training=_receive_tokens(processes, Path(folder, "training.bin")),
            validation=_receive_tokens(processes, Path(folder, "validation.bin")),
            vocab_size=facts["vocab_size"],
            window_length=pipeline.data.window_length,
            window_stride=pipeline.data.window_stride or pipeline.data.window_length,
            characters_per_token=facts["characters_per_token"],
        )
        told = TrainingContext(seed=pipeline.seed, device=context.device, processes=processes)
        for _ in trainer.train(model, data, told):
            pass


def _send_tokens(processes: Processes, tokens: Ids) -> None:
    """Tell the others where the tokens (N,) are, and send them where one of the others cannot see the file."""
    processes.agree(lambda: _described(tokens))
    if processes.any(False):
        for start in range(0, len(tokens), _BLOCK):
            processes.share(tokens[start : start + _BLOCK].tobytes)


def _receive_tokens(processes: Processes, path: Path) -> Ids:
    """The leader's tokens (N,), mapped from its file if that can be seen from here, else received into `path`."""
    facts = processes.agree(dict)
    found = _mapped(facts)
    if processes.any(found is None):
        with path.open("wb") as file:
            for _ in range(0, facts["count"], _BLOCK):
                file.write(processes.share(bytes))
        found = np.memmap(path, facts["dtype"], "r", shape=(facts["count"],))
    assert found is not None
    return found


def _described(tokens: Ids) -> dict[str, Any]:
    """Which file holds the tokens, and where in it."""
    facts = {"count": len(tokens), "dtype": tokens.dtype.str, "path": None}
    base: Any = tokens
    while isinstance(base.base, np.ndarray):
        base = base.base
    if isinstance(base, np.memmap) and base.filename is not None and tokens.flags.c_contiguous:
        inside = tokens.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        path = Path(base.filename).absolute()
        facts |= {"path": str(path), "offset": base.offset + inside, "state": _state(path)}
    return facts


def _mapped(facts: Mapping[str, Any]) -> Ids | None:
    """The tokens, where their file is visible from here: on the same machine, or in a shared file system."""
    if not facts["count"]:
        return np.empty(0, facts["dtype"])
    if facts["path"] is None or _state(Path(facts["path"])) != facts["state"]:
        return None
    return np.memmap(facts["path"], facts["dtype"], "r", facts["offset"], (facts["count"],))


def _state(path: Path) -> list[int]:
    """What tells a file from another that is in its place on another machine: its size and time."""
    return list(file_signature(path) or ())[:2]
