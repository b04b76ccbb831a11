"""What every plugin is held to, by textgen's own suites; and that the package uses nothing private."""

import ast
from pathlib import Path

import textgen_series

from textgen import PluginSet
from textgen.testing import check_command, check_corpus, check_plugin

PACKAGE = Path(__file__).parents[1]
PUBLIC = {"textgen", "textgen.protocols"}


def test_all_three_keep_their_contracts():
    outcomes = check_plugin(textgen_series)
    skipped = {outcome.reason for outcome in outcomes if outcome.status == "skipped"}
    assert all(reason.startswith("no ") for reason in skipped), (
        skipped
    )  # the two that follow have what was missing


def test_a_csv_column_keeps_the_contract_of_corpora(tmp_path):
    (tmp_path / "tide.csv").write_text(
        "hour,level\n" + "".join(f"{i},{i / 7}\n" for i in range(500)), encoding="utf-8"
    )
    (component,) = textgen_series.textgen_corpora()
    options = {"path": str(tmp_path / "tide.csv"), "column": "level"}
    outcomes = check_corpus(
        component, options=options, unreadable={"path": str(tmp_path / "none.csv")}
    )
    assert {outcome.status for outcome in outcomes} == {"ok"}


def test_forecast_keeps_the_contract_of_commands(run, tmp_path):
    (component,) = textgen_series.textgen_commands()
    arguments = [
        str(run),
        "--samples",
        "2",
        "--steps",
        "1,4",
        "--output",
        str(tmp_path / "plot.svg"),
    ]
    outcomes = check_command(component, arguments=arguments, plugins=PluginSet.discover())
    assert {outcome.status for outcome in outcomes} == {"ok"}


def test_the_package_imports_of_textgen_what_its_documentation_names():
    for file in sorted((PACKAGE / "textgen_series").glob("*.py")):
        assert imported(file) <= PUBLIC, file


def imported(file):
    """The modules of textgen that a file imports, and each name with an underscore that it takes from one."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {
                f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_")
            }
    return {name for name in found if name.partition(".")[0] in ("textgen", "textgen_builtins")}
