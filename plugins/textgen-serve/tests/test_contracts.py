"""What every plugin is held to, by textgen's own suites; and that the package uses nothing private."""

import ast
import subprocess
import sys
from pathlib import Path

import textgen_serve
from textgen.testing import check_plugin

PACKAGE = Path(__file__).parents[1]
PUBLIC = {"textgen", "textgen.events", "textgen.protocols"}


def test_it_keeps_the_contract_of_commands():
    assert {outcome.status for outcome in check_plugin(textgen_serve)} <= {"ok", "skipped"}


def test_the_package_imports_of_textgen_what_its_documentation_names():
    for file in sorted((PACKAGE / "textgen_serve").glob("*.py")):
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


def test_listing_plugins_loads_no_web_server_and_no_numpy():
    code = (
        "import sys, textgen; names = [o.name for o in textgen.PluginSet.discover().offers('command')]; "
        "assert 'serve' in names, names; "
        "assert not {'starlette', 'uvicorn', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
