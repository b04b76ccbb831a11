"""The house rules: what the public API is, what may import what, and what an import may do."""

from __future__ import annotations

import ast
import graphlib
import inspect
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from commands import run_python, run_textgen

import textgen

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "textgen").rglob("*.py"))
BUILTINS = sorted((ROOT / "plugins/textgen_builtins").rglob("*.py"))
SOURCES = [*CORE, *BUILTINS]
HEAVY = {"torch", "numpy", "tqdm", "safetensors", "array_api_compat"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


sources = pytest.mark.parametrize("path", SOURCES, ids=named)


# The public API.


def test_all_is_sorted_constants_first_then_classes_then_functions() -> None:
    def place(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2), name

    assert textgen.__all__ == sorted(textgen.__all__, key=place)


def test_all_is_exactly_the_public_names() -> None:
    """A name is public where it is defined or imported without an underscore, and is no submodule."""
    tree = ast.parse((ROOT / "textgen/__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name in imported if not name.startswith("_")} == set(textgen.__all__)
    extra = {
        name
        for name, value in vars(textgen).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name not in textgen.__all__
    }
    assert extra == set()


@pytest.mark.parametrize("name", textgen.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(textgen, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = textgen.nothing


# What may import what.

# From the ground up: a room imports only from rooms below it, in functions and for types too.
FLOORS = (
    (
        "suggest",
        "visible",
        "errors",
        "documents",
        "events",
        "protocols",
        "data",
        "deprecation",
        "devices",
        "meeting",
        "processes",
    ),
    ("files",),
    ("plugin",),
    ("pipeline",),
    ("contracts", "gradient"),
    ("generation",),
    ("runs",),
    ("engine",),
    ("tools", "testing"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "plugins" if path in BUILTINS else ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def imported_modules(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Which of our modules the import statements among `nodes` name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from outside_functions(node)


def test_no_modules_import_each_other() -> None:
    """Not in a circle of any length, imports for types included."""
    graph = {
        module: set(imported_modules(outside_functions(ast.parse(path.read_text("utf-8")))))
        - {module}
        for module, path in MODULES.items()
    }
    assert len(graph["textgen.engine"]) > 5
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError shows the circle


@pytest.mark.parametrize(
    "path", [path for path in CORE if path.parent != ROOT / "textgen"], ids=named
)
def test_a_room_imports_only_from_those_below(path: Path) -> None:
    room = path.relative_to(ROOT / "textgen").parts[0]
    for module in imported_modules(ast.walk(ast.parse(path.read_text("utf-8")))):
        other = module.split(".")[1] if "." in module else "the public door"
        assert other == room or FLOOR_OF.get(other, len(FLOORS)) < FLOOR_OF[room], (
            f"{room} imports {module}"
        )


@pytest.mark.parametrize("path", sorted((ROOT / "textgen").glob("*.py")), ids=named)
def test_a_module_beside_the_rooms_imports_from_none_above(path: Path) -> None:
    if path.stem.startswith("__"):
        return  # the public door and the command
    for module in imported_modules(ast.walk(ast.parse(path.read_text("utf-8")))):
        assert FLOOR_OF[module.split(".")[1]] <= FLOOR_OF[path.stem], module


def imports(path: Path) -> Iterator[str]:
    """The full name of every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", CORE, ids=named)
def test_the_core_names_no_built_in(path: Path) -> None:
    assert not [name for name in imports(path) if name.partition(".")[0] == "textgen_builtins"]
    names = {
        node.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant)
    }
    assert "textgen_builtins" not in names


@pytest.mark.parametrize("path", BUILTINS, ids=named)
def test_a_built_in_uses_nothing_that_others_may_not(path: Path) -> None:
    """No private name of the engine."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "textgen":
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]


@sources
def test_nothing_that_is_loaded_can_carry_code(path: Path) -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    assert not [name for name in imports(path) if name.partition(".")[0] in forbidden]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {
            "eval",
            "exec",
            "compile",
            "__import__",
            "torch.load",
            "torch.save",
            "np.load",
            "np.save",
        }
        assert not [keyword for keyword in node.keywords if keyword.arg == "allow_pickle"]


@sources
def test_nobody_seeds_or_sets_threads_for_the_whole_process(path: Path) -> None:
    called = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    forbidden = {
        "torch.manual_seed",
        "np.random.seed",
        "random.seed",
        "torch.set_num_threads",
        "logging.basicConfig",
    }
    if named(path) in ("textgen/devices.py", "textgen/testing/process_state.py"):
        # for a pipeline that sets `threads`, and put back after it; and in a process of a check, which then ends
        forbidden -= {"torch.set_num_threads"}
    assert not called & forbidden


# What an import may do.


def loaded(code: str, folder: Path) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`; it must have printed nothing."""
    code += "\nimport sys; print('\\n'.join(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    done = run_python("-c", code, folder=folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return set(done.stderr.split())


def test_importing_textgen_and_every_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    own = [
        e.value
        for e in metadata.distribution("textgen-engine").entry_points
        if e.group == "textgen"
    ]
    assert len(own) >= 7
    modules = loaded(f"import textgen, {', '.join(own)}", tmp_path)
    assert {"textgen", "textgen_builtins", "pluggy"} <= modules
    assert not HEAVY & modules


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["plugins"], ["plugins", "--json"], ["run", "--help"]]
)
def test_listing_and_help_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    done = run_python("-X", "importtime", "-m", "textgen", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    modules = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert "click" in modules
    assert not HEAVY & modules


def test_checking_a_pipeline_loads_nothing_heavy(tmp_path: Path) -> None:
    pipeline = ROOT / "docs/pipelines/seed.toml"
    done = run_python("-X", "importtime", "-m", "textgen", "show", pipeline, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    modules = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert not HEAVY & modules


def test_generating_on_a_cpu_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a word or two, " * 40)
    (tmp_path / "p.toml").write_text(
        'device = "cpu"\ncorpus = {type="file", path="text.txt"}\ntokenizer = {type="char"}\n'
        'model = {type="rnn", hidden_size=4}\ntrainer = {type="sgd", epochs=1}\ndata = {window_length=8}\n'
    )
    assert run_textgen("run", "p.toml", folder=tmp_path).returncode == 0
    code = "import textgen; assert len(textgen.load('runs/p').generate(max_new_tokens=3).text) == 3"
    assert "torch" not in loaded(code, tmp_path)


def test_importing_textgen_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    code = """
import logging, os, random, signal, threading, warnings
def outside():
    return (random.getstate(), list(logging.root.handlers), logging.root.level, dict(os.environ), os.getcwd(),
            list(warnings.filters), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
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


# How the source is written.


@sources
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{named(path)} has no docstring"
    assert not list(undocumented(tree, named(path)))


def undocumented(parent: ast.Module | ast.ClassDef, label: str) -> Iterator[str]:
    """The public classes, functions and methods under `parent` that have no docstring."""
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            stub = any(ast.unparse(d) == "overload" for d in node.decorator_list)
            if not ast.get_docstring(node) and not stub and not is_inherited(node, parent):
                yield f"{label}:{node.lineno} {node.name}"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, label)


def is_inherited(node: ast.FunctionDef | ast.ClassDef, parent: ast.Module | ast.ClassDef) -> bool:
    """Whether `node` overrides a method of a click class, whose documentation says it all."""
    return isinstance(parent, ast.ClassDef) and any(
        ast.unparse(base).startswith("click.") for base in parent.bases
    )
