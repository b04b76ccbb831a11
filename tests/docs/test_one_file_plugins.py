"""The plugins in one file of docs/writing-plugins.md: as short as they are said to be, and they work as they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs/writing-plugins.md"


def example(name: str) -> str:
    """The file of this name on the page."""
    (text,) = re.findall(rf"^```python\n# file: {name}\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(text)


def length(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def test_early_stopping(
    tmp_path: Path,
    textgen: Callable[..., Any],
    tiny_pipeline: Callable[..., dict[str, Any]],
    write_pipeline: Callable[..., Path],
) -> None:
    text = example("patience.py")
    assert length(text) <= 15
    (tmp_path / "patience.py").write_text(text)
    pipeline = write_pipeline(
        tiny_pipeline(
            text="abcd" * 300 + "dcba" * 30,
            data={"validation_fraction": 0.09},
            trainer={"type": "adamw", "epochs": 40, "learning_rate": 0.05},
            observer=[{"type": "patience", "evaluations": 2}],
        )
    )
    done = textgen("--plugin", "patience.py", "run", pipeline, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert re.search(r"patience ended it at step \d+: no lower loss in 2 evaluations", done.stderr)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["evaluations"] < 40
    assert "skipped:" in textgen("--plugin", "patience.py", "run", pipeline, cwd=tmp_path).stderr
