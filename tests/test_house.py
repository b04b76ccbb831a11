"""The public API, what an import may do, and how long files and functions may be."""

import ast
import inspect
import re
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from commands import run_python

import textgen
from textgen import testing

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "numpy", "tqdm", "safetensors", "array_api_compat"}


# The public API.


def test_nothing_but_the_public_names_is_public():
    extra = {
        name
        for name, value in vars(textgen).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name not in textgen.__all__
    }
    assert extra == set()


def test_every_public_name_resolves_and_is_documented():
    assert textgen.__version__ == metadata.version("textgen-engine")
    values = [getattr(textgen, name) for name in textgen.__all__]
    assert all(inspect.getdoc(v) for v in values if inspect.isclass(v) or inspect.isfunction(v))


# What an import may do.


def loaded(code, folder):
    """The top-level modules that a fresh interpreter has loaded after `code`; it must have printed
    nothing.
    """
    code += "\nimport sys; found = {name.partition('.')[0] for name in sys.modules}"
    code += "\nprint('\\n'.join(sorted(found)), file=sys.stderr)"
    done = run_python("-c", code, folder=folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return set(done.stderr.split())


def test_importing_textgen_and_every_plugin_loads_nothing_heavy(tmp_path):
    own = metadata.distribution("textgen-engine").entry_points.select(group="textgen")
    assert len(own) >= 7
    modules = loaded(f"import textgen, {', '.join(each.value for each in own)}", tmp_path)
    assert {"textgen", "textgen_builtins", "pluggy"} <= modules
    assert not HEAVY & modules


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plugins", "--json"], ["run", "--help"], ["show", "docs/pipelines/seed.toml"]],
)
def test_listing_help_and_checking_load_nothing_heavy(arguments):
    done = run_python("-X", "importtime", "-m", "textgen", *arguments, folder=ROOT)
    assert done.returncode == 0, done.stderr
    modules = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert "click" in modules
    assert not HEAVY & modules


def test_generating_on_a_cpu_needs_no_torch(finished_run, tmp_path):
    code = f"import textgen; textgen.load({str(finished_run)!r}).generate(max_new_tokens=3)"
    assert "torch" not in loaded(code, tmp_path)


def test_importing_textgen_leaves_the_process_as_it_was(tmp_path):
    code = """
import logging, os, random, signal, threading, warnings
def outside():
    return (random.getstate(), list(logging.root.handlers), logging.root.level,
            dict(os.environ), os.getcwd(), list(warnings.filters),
            signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
            threading.active_count())
before = outside()
import textgen
assert outside() == before
before = outside()[:5]
textgen.Engine  # NumPy, which this loads, sets warning filters of its own
assert outside()[:5] == before
assert [type(h) for h in logging.getLogger("textgen").handlers] == [logging.NullHandler]
assert logging.getLogger("textgen").level == logging.NOTSET
"""
    loaded(code, tmp_path)
    assert list(tmp_path.iterdir()) == []


# How the source is written. pyproject.toml has the rules of ruff and of the import linter.


def nodes(*folders):
    """All of the source, each with its file."""
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield path, node


def test_nothing_is_too_long_to_read():
    """A file has up to 600 lines, a function up to 60 beside its docstring."""
    long = []
    for path, node in nodes("textgen", "plugins/textgen_builtins", "benchmarks", "campaigns"):
        if isinstance(node, ast.Module) and len(path.read_text("utf-8").splitlines()) > 600:
            long.append(str(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = (ast.get_docstring(node, clean=False) or "").count("\n") + 1
            if (node.end_lineno or 0) - node.lineno + 1 - documented > 60:
                long.append(f"{path}:{node.lineno}")
    assert long == []


def test_the_engine_names_no_component():
    offers = testing.isolated_plugins().offers()
    names = {offer.name for offer in offers if offer.kind not in ("command", "run")}
    assert {"rnn", "char", "temperature"} < names
    names -= {"progress"}  # also a part of a checkpoint
    partners = ROOT / "textgen/testing/partners.py"
    naming = [
        f"{path}:{node.lineno}: {node.value}"
        for path, node in nodes("textgen")
        if isinstance(node, ast.Constant) and node.value in names and path != partners
    ]
    assert naming == []


PAGE = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")
PUBLIC = set(re.findall(r"^\| \[`(textgen[\w.]*)`\]", PAGE, re.M))
PACKAGES = [path.parent for path in (ROOT / "plugins").glob("**/textgen_*/__init__.py")]


@pytest.mark.parametrize("package", sorted(PACKAGES), ids=lambda path: path.name)
def test_a_package_imports_only_what_is_documented_for_plugins(package):
    imported = set()
    for _, node in nodes(package):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module, names = node.module or "", [alias.name for alias in node.names]
            others = {name for name in names if module != "textgen" or name not in textgen.__all__}
            imported |= {f"{module}.{n}" for n in others if n[:1] == "_" or module == "textgen"}
            imported |= {module}
    own = {"textgen", "textgen_builtins"} - {package.name}
    assert {name for name in imported if name.partition(".")[0] in own} <= PUBLIC


@pytest.mark.parametrize("package", sorted(PACKAGES), ids=lambda path: path.name)
def test_no_modules_of_a_package_import_each_other(package):
    """Imports in functions count."""
    names = {
        path: ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for path in package.rglob("*.py")
    }
    imported = {name: set() for name in names.values()}
    for path, node in nodes(package):
        if isinstance(node, ast.Import):
            imported[names[path]] |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & imported.keys()
            imported[names[path]] |= modules or {node.module}
    TopologicalSorter(imported).prepare()  # raises CycleError, which names the modules
