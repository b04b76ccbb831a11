"""What the tests of textgen.testing share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fork_server
import pytest

from textgen.testing import other_process


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the broken components write where they are."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exercise components in a process that has imported torch, and that has a hash seed of its own too.

    Modules are still imported in a fresh one, since what they load is the point there.
    """
    spawn = other_process._spawn

    def run(folder: Path, path: str, time_limit: float) -> bool:
        request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        if request.get("kind", "command") == "command" or "PYTHONHASHSEED" in os.environ:
            return spawn(folder, path, time_limit)
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder / "tmp")}
        done = fork_server.run(["-m", "textgen.testing.child", str(folder)], folder / "cwd", environment)
        (folder / "stdout").write_text(done.stdout, encoding="utf-8")
        (folder / "stderr").write_text(done.stderr, encoding="utf-8")
        return False

    monkeypatch.setattr(other_process, "_spawn", run)
