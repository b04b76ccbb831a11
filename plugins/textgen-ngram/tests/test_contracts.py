"""What every plugin is held to, by textgen's own suites; and that the package uses nothing private."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PACKAGE
from textgen_ngram import mixture, ngram

from textgen import Engine, PluginSet
from textgen.testing import TEXT, check_model, check_plugin, check_trainer

PUBLIC = {"textgen", "textgen.data", "textgen.events", "textgen.protocols"}


def test_counting_keeps_its_contracts() -> None:
    outcomes = check_plugin(ngram)
    reasons = {outcome.reason for outcome in outcomes if outcome.status == "skipped"}
    assert reasons == {"it is no torch module", "the model is no torch module"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two runs with the vocabulary that the suites use."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    for name, order in (("first", 2), ("second", 1)):
        tables: dict[str, Any] = {
            "corpus": {"type": "file", "path": str(folder / "text.txt")},
            "tokenizer": {"type": "char"},
            "data": {"window_length": 16},
            "model": {"type": "ngram", "order": order},
            "trainer": {"type": "count"},
            "generate": {"max_new_tokens": 0},
            "observer": [],
        }
        Engine().run(tables, output=folder / name)
    return {name: str(folder / name) for name in ("first", "second")}


def test_mixtures_keep_their_contracts(parts: dict[str, str]) -> None:
    plugins = PluginSet.discover()  # with the names that are in the two runs
    (model,), (trainer,) = mixture.textgen_models(), mixture.textgen_trainers()
    table = {"type": "mixture"}
    outcomes = check_model(model, options=parts, trainer=table, plugin=mixture, plugins=plugins)
    assert {outcome.reason for outcome in outcomes if outcome.status == "skipped"} == {"it is no torch module"}
    # Fitting a weight to nothing is refused: to the text that both parts were trained on it would be fitted wrong.
    outcomes = check_trainer(trainer, model={**table, **parts}, plugin=mixture, plugins=plugins)
    skipped = {outcome.statement.anchor: outcome.reason for outcome in outcomes if outcome.status == "skipped"}
    assert set(skipped) == {"trainer-evaluates", "trainer-validation", "trainer-device"}
    assert "raise data.validation_fraction" in skipped["trainer-evaluates"]


def test_a_mixture_is_checked_from_the_shell_once_its_parts_are_named(
    parts: dict[str, str], command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    named = [argument for name, path in parts.items() for argument in ("--set", f"mixture.{name}={path}")]
    done = command("plugins", "check", "textgen-ngram", *named)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model 'mixture'" in done.stdout
    missing = command("plugins", "check", "textgen-ngram", "--set", f"mixture.first={tmp_path}", *named[2:])
    assert missing.returncode == 0, missing.stdout + missing.stderr
    assert "model 'mixture' of textgen-ngram: it cannot be built here" in missing.stdout
    misspelt = command("plugins", "check", "textgen-ngram", *named, "--set", "mixture.third=3")
    assert misspelt.returncode == 2
    assert "third" in misspelt.stderr


def test_the_package_imports_of_textgen_what_its_documentation_names() -> None:
    for file in sorted((PACKAGE / "textgen_ngram").glob("*.py")):
        assert imported(file) <= PUBLIC, file


def imported(file: Path) -> set[str]:
    """The modules of textgen that a file imports, and each name with an underscore that it takes from one."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_")}
    return {name for name in found if name.partition(".")[0] in ("textgen", "textgen_builtins")}
