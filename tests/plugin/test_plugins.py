"""Plugins through the front door: found, used, left out, told apart, blamed. The packages are in tests/packages."""

from __future__ import annotations

import json
import re
import subprocess
import types
import warnings
from pathlib import Path
from typing import Any

import attrs
import pytest
from commands import run_python, run_textgen
from installing import install

import textgen

PACKAGES = Path(__file__).parents[1] / "packages"
TEXT = "It has been said that a model is as good as its text. " * 40
CORE = """
device = "cpu"
[corpus]
type = "file"
path = "text.txt"
[data]
window_length = 8
[generate]
max_new_tokens = 20
"""
TINY = """
[model]
type = "rnn"
hidden_size = 8
[trainer]
type = "sgd"
length = "1 epoch"
"""
UNTRAINED = """
[model]
type = "uniform"
[trainer]
type = "none"
"""
SHOUT = '[tokenizer]\ntype = "shout"\n'
CHAR = '[tokenizer]\ntype = "char"\n'


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each package of tests/packages, holding it as installed there and nowhere else."""
    folder = tmp_path_factory.mktemp("sites")
    return {
        package.name.removeprefix("textgen-"): install(package, folder)
        for package in sorted(PACKAGES.glob("textgen-*"))
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a text in it."""
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def pipeline(folder: Path, *parts: str) -> str:
    """Write a pipeline and return its name."""
    (folder / "p.toml").write_text("\n".join([CORE, *parts]))
    return "p.toml"


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says what is wrong; nothing else may be on stderr but progress and warnings."""
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("textgen: error: ")]
    return line


def listed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `textgen plugins --json` says."""
    assert done.returncode == 0, done.stderr
    described: dict[str, Any] = json.loads(done.stdout)
    return described


# Plugins that work.


def test_a_third_party_sampler_and_tokenizer_shape_the_text(
    folder: Path, sites: dict[str, Path]
) -> None:
    chosen = '[tokenizer]\ntype = "shout"\n[[sampler]]\ntype = "loud"\nfactor = 1e6\n'
    name = pipeline(folder, chosen, TINY)
    done = run_textgen("run", name, folder=folder, site=[sites["shout"]])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 21
    assert done.stdout == done.stdout.upper()
    greedy = run_textgen(
        "generate",
        "runs/p",
        "--greedy",
        "--max-new-tokens",
        "20",
        folder=folder,
        site=[sites["shout"]],
    )
    assert greedy.stdout == done.stdout
    components = json.loads((folder / "runs/p/run.json").read_text())["components"]
    assert {
        "kind": "sampler",
        "name": "loud",
        "plugin": "shout",
        "distribution": "textgen-shout",
        "version": "1.2",
    } in (components)

    gone = run_textgen("generate", "runs/p", folder=folder)
    assert gone.returncode == 2
    assert "textgen-shout 1.2" in error_line(gone)
    for kind, name in (("tokenizer", "shout"), ("sampler", "loud")):  # all that is missing, at once
        assert (
            f"no {kind} is called 'textgen-shout:{name}'; no plugin of textgen-shout is loaded"
            in gone.stderr
        )


def test_its_options_are_checked_like_any_others(folder: Path, sites: dict[str, Path]) -> None:
    name = pipeline(
        folder, '[tokenizer]\ntype = "shout"\n[[sampler]]\ntype = "loud"\nfactr = 2\n', TINY
    )
    done = run_textgen("show", name, folder=folder, site=[sites["shout"]])
    assert done.returncode == 2
    assert "sampler.0.factr: unknown key; did you mean 'factor'?" in done.stderr


def test_plugins_json_says_what_each_component_is_and_takes(
    folder: Path, sites: dict[str, Path]
) -> None:
    described = listed(run_textgen("plugins", "--json", folder=folder, site=[sites["shout"]]))
    assert list(described) == ["components", "clashes", "quarantined"]
    assert described["clashes"] == described["quarantined"] == []
    (loud,) = [c for c in described["components"] if c["name"] == "loud"]
    assert loud == {
        "kind": "sampler",
        "name": "loud",
        "qualified_name": "textgen-shout:loud",
        "summary": "Multiplies logits, so that what is likely becomes certain.",
        "plugin": "shout",
        "distribution": "textgen-shout",
        "version": "1.2",
        "options": [
            {
                "name": "factor",
                "type": "a finite number",
                "required": False,
                "default": 1000.0,
                "help": "what logits are multiplied by",
            }
        ],
    }
    kinds = {c["kind"] for c in described["components"]}
    assert {"corpus", "tokenizer", "model", "trainer", "sampler", "observer"} <= kinds
    only = listed(
        run_textgen("plugins", "--json", "--kind", "sampler", folder=folder, site=[sites["shout"]])
    )
    assert {c["kind"] for c in only["components"]} == {"sampler"}
    assert {"greedy", "loud"} <= {c["name"] for c in only["components"]}


def test_a_third_party_subcommand_is_listed_and_runs(folder: Path, sites: dict[str, Path]) -> None:
    (folder / "few.txt").write_text("It has: 2 é\n")
    helped = run_textgen("--help", folder=folder, site=[sites["letters"]])
    assert re.search(
        r"^  letters +Count the letters of a text file\.$", helped.stdout, re.MULTILINE
    )
    done = run_textgen("letters", "few.txt", folder=folder, site=[sites["letters"]])
    assert (done.returncode, done.stdout) == (0, "6\n")
    mistyped = run_textgen("leters", "few.txt", folder=folder, site=[sites["letters"]])
    assert mistyped.returncode == 2
    assert "letters" in mistyped.stderr
    described = listed(run_textgen("plugins", "--json", folder=folder, site=[sites["letters"]]))
    assert ("command", "letters") in {(c["kind"], c["name"]) for c in described["components"]}


def test_a_plugin_can_be_switched_off(folder: Path, sites: dict[str, Path]) -> None:
    name = pipeline(folder, '[tokenizer]\ntype = "shout"\n', TINY)
    arguments = ["--no-plugin", "shout", "--no-plugin", "broken"]
    site = [sites["shout"], sites["broken"]]
    done = run_textgen(*arguments, "show", name, folder=folder, site=site)
    assert done.returncode == 2
    assert "no tokenizer is called 'shout'" in done.stderr
    assert "warning" not in done.stderr
    assert "left out" not in done.stderr


def test_built_in_modules_can_be_switched_off_alone(folder: Path) -> None:
    done = run_textgen("--no-plugin", "adamw", "plugins", "--json", folder=folder)
    offered = {
        (c["distribution"], c["name"]) for c in listed(done)["components"] if c["kind"] == "trainer"
    }
    assert {name for distribution, name in offered if distribution == "textgen-engine"} == {
        "count",
        "mixture",
        "sgd",
    }


def test_a_plugin_to_leave_out_has_to_be_there(folder: Path) -> None:
    done = run_textgen("--no-plugin", "adamv", "plugins", folder=folder)
    assert done.returncode == 2
    assert (
        "no plugin or package that is installed is called 'adamv'; did you mean 'adamw'?"
        in error_line(done)
    )


@pytest.mark.parametrize("how", ["textgen-shout", "Textgen_Shout:shout", "textgen-clash:clash"])
def test_a_plugin_can_be_switched_off_by_its_package(
    folder: Path, sites: dict[str, Path], how: str
) -> None:
    site = [sites["shout"], sites["clash"]]
    name = pipeline(folder, SHOUT, TINY)
    shown = run_textgen("--no-plugin", how, "show", name, folder=folder, site=site)
    assert shown.returncode == 0, shown.stderr  # neither won the name; now there is one
    listed_then = listed(
        run_textgen("--no-plugin", how, "plugins", "--json", folder=folder, site=site)
    )
    both = {"textgen-shout", "textgen-clash"}
    left = both - {how.partition(":")[0].lower().replace("_", "-")}
    assert {c["distribution"] for c in listed_then["components"]} & both == left


@pytest.mark.slow
def test_python_without_docstrings_leaves_nothing_out(folder: Path) -> None:
    done = run_python("-OO", "-m", "textgen", "run", pipeline(folder, CHAR, TINY), folder=folder)
    assert (done.returncode, "left out" in done.stderr) == (0, False), done.stderr


# Plugins that do not work.


@pytest.mark.fault(26)
def test_a_plugin_that_raises_at_import_is_left_out_with_one_warning(
    folder: Path, sites: dict[str, Path]
) -> None:
    name = pipeline(folder, CHAR, UNTRAINED)
    done = run_textgen("run", name, folder=folder, site=[sites["broken"], sites["offender"]])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 21
    (warning,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert warning.startswith(
        "textgen: warning: plugin 'broken' (textgen-broken 0.3) is left out: "
        f"RuntimeError: the flux capacitor is not charged ({sites['broken']}"
    )
    assert re.search(r"textgen_broken\S*\.py:\d+\)$", warning)
    plain = run_textgen("plugins", folder=folder, site=[sites["broken"]])
    assert "left out: broken [textgen-broken 0.3]: RuntimeError" in plain.stdout
    assert plain.returncode == 0
    helped = run_textgen("--help", folder=folder, site=[sites["broken"]])
    assert helped.returncode == 0
    assert "run " in helped.stdout
    assert helped.stderr.count("is left out") == 1


@pytest.mark.fault(26)
def test_a_pipeline_that_needs_what_was_left_out_says_so(
    folder: Path, sites: dict[str, Path]
) -> None:
    name = pipeline(folder, '[tokenizer]\ntype = "broken"\n', TINY)
    done = run_textgen("show", name, folder=folder, site=[sites["broken"]])
    assert done.returncode == 2
    assert "tokenizer.type: no tokenizer is called 'broken'" in done.stderr
    assert (
        "no tokenizer is called 'broken'; plugin 'broken' (textgen-broken 0.3) is left out: "
        "RuntimeError" in (error_line(done))
    )
    other = run_textgen(
        "show",
        pipeline(folder, '[tokenizer]\ntype = "chat"\n'),
        folder=folder,
        site=[sites["broken"]],
    )
    assert "no tokenizer is called 'chat'; did you mean 'char'?" in other.stderr


UNFIT = {
    "missing-dependency": [
        "'package_that_nobody_has",
        "is not installed",
    ],
    "misspelt-hook": ["there is no hook 'textgen_sampler'; did you mean 'textgen_samplers'?"],
    "unmarked-hook": ["there is no hook in it, marked with @textgen.hookimpl"],
    "wrong-type": ["textgen_models must return a list of Component records, and returned str"],
    "wrong-record": ["textgen_models must return Component records, and one is of type tuple"],
    "unreadable-config": [
        "textgen_samplers: component 'unreadable'",
        "Sise",
    ],
    "untyped-config": [
        "textgen_samplers: component 'untyped'",
        "config must be an attrs class",
        "dict",
    ],
    "newer-api": ["needs plugin API 99, and this textgen has 1; upgrade textgen-engine"],
    "newer-api-again": ["needs plugin API 99, and this textgen has 1; upgrade textgen-engine"],
    "written-api": ["TypeError: '>' not supported between instances of 'str' and 'int'"],
    "absent-module": [
        "it needs the module 'textgen_unfitt', which is not installed",
    ],
}


@pytest.fixture(scope="session")
def unfit(
    sites: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    return run_textgen(
        "plugins", "--json", folder=tmp_path_factory.mktemp("unfit"), site=[sites["unfit"]]
    )


@pytest.mark.fault(27)
@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_plugin_is_left_out_and_the_cause_named(
    unfit: subprocess.CompletedProcess[str], name: str
) -> None:
    described = listed(unfit)
    (quarantined,) = [q for q in described["quarantined"] if q["plugin"] == name]
    assert (quarantined["distribution"], quarantined["version"]) == ("textgen-unfit", "0.4")
    for phrase in UNFIT[name]:
        assert phrase in quarantined["cause"]
    warned = [
        line for line in unfit.stderr.splitlines() if f"plugin '{name}' (textgen-unfit 0.4)" in line
    ]
    assert warned == [
        f"textgen: warning: plugin '{name}' (textgen-unfit 0.4) is left out: {quarantined['cause']}",
    ]


def test_no_part_of_an_unfit_plugin_stays(unfit: subprocess.CompletedProcess[str]) -> None:
    described = listed(unfit)
    assert sorted(
        q["plugin"] for q in described["quarantined"] if q["distribution"] == "textgen-unfit"
    ) == sorted(UNFIT)
    assert "textgen-unfit" not in {c["distribution"] for c in described["components"]}


@pytest.mark.parametrize("package", ["broken", "unfit"])
def test_strict_plugins_are_errors(folder: Path, sites: dict[str, Path], package: str) -> None:
    done = run_textgen("--debug", "plugins", folder=folder, site=[sites[package]])
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"(textgen-{package} " in done.stderr.splitlines()[-1]


# Names that clash.


@pytest.mark.fault(28)
def test_neither_of_two_plugins_wins_a_name(folder: Path, sites: dict[str, Path]) -> None:
    site = [sites["shout"], sites["clash"]]
    name = pipeline(folder, '[tokenizer]\ntype = "shout"\n[[sampler]]\ntype = "loud"\n', TINY)
    done = run_textgen("show", name, folder=folder, site=site)
    assert done.returncode == 2
    assert "sampler.0.type: 2 plugins offer a sampler called 'loud'" in done.stderr
    assert "'textgen-clash:loud' or 'textgen-shout:loud'" in done.stderr
    assert "tokenizer.type: 2 plugins offer a tokenizer called 'shout'" in done.stderr
    assert "'textgen-clash:shout' or 'textgen-shout:shout'" in done.stderr

    plain = run_textgen("plugins", folder=folder, site=site)
    assert (
        "clash: sampler 'loud' is offered by textgen-clash:loud, textgen-shout:loud" in plain.stdout
    )
    assert (
        "clash: tokenizer 'shout' is offered by textgen-clash:shout, textgen-shout:shout"
        in plain.stdout
    )
    assert (
        "clash: sampler 'greedy' is offered by textgen-clash:greedy, textgen-engine:greedy"
        in plain.stdout
    )


def test_a_name_with_its_package_always_works(folder: Path, sites: dict[str, Path]) -> None:
    site = [sites["shout"], sites["clash"], sites["offender"]]
    chosen = '[tokenizer]\ntype = "textgen-shout:shout"\n[[sampler]]\ntype = "Textgen_Shout:loud"\n'
    done = run_textgen("run", pipeline(folder, chosen, UNTRAINED), folder=folder, site=site)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stdout.upper()
    again = run_textgen("generate", "runs/p", "--max-new-tokens", "20", folder=folder, site=site)
    assert again.stdout == done.stdout
    unclashed = run_textgen(
        "generate",
        "runs/p",
        "--max-new-tokens",
        "20",
        folder=folder,
        site=[sites["shout"], sites["offender"]],
    )
    assert unclashed.stdout == done.stdout


def test_the_built_in_set_keeps_its_bare_names(folder: Path, sites: dict[str, Path]) -> None:
    shown = run_textgen(
        "show",
        pipeline(folder, CHAR, TINY, '[[sampler]]\ntype = "greedy"\n'),
        folder=folder,
        site=[sites["clash"]],
    )
    assert shown.returncode == 0, shown.stderr
    assert "# Always the most likely token; of equals, the first.\n[[sampler]]" in shown.stdout
    theirs = run_textgen(
        "show",
        pipeline(folder, CHAR, TINY, '[[sampler]]\ntype = "textgen-clash:greedy"\n'),
        folder=folder,
        site=[sites["clash"]],
    )
    assert "# Turns the preference round" in theirs.stdout


# Contracts that are broken.


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("changes", "blamed"),
    [
        (["model.extra=1"], "model 'uniform' gave logits of shape (1, 16), and must give (1, 15)"),
        (
            ["model.dtype=float16"],
            "model 'uniform' gave logits of dtype float16, and must give float32 or float64",
        ),
        (
            ["model.dtype=int64"],
            "model 'uniform' gave logits of dtype int64, and must give float32 or float64",
        ),
        (['sampler=[{type="mask-all"}]'], "sampler 'mask-all' forbade every token"),
        (
            ['sampler=[{type="temperature"}, {type="mask-all"}]'],
            "sampler 'mask-all' forbade every token",
        ),
        (
            ['sampler=[{type="mask-all"}, {type="temperature"}]'],
            "sampler 'mask-all' forbade every token",
        ),
        (
            ['sampler=[{type="not-a-number"}, {type="greedy"}]'],
            "sampler 'not-a-number' gave NaN logits",
        ),
        (
            ['sampler=[{type="cannot-be-built"}]'],
            "sampler 'cannot-be-built' cannot be built: ZeroDivisionError: integer division or modulo by zero (",
        ),
        (
            ['sampler=[{type="needs-a-module"}]'],
            "sampler 'needs-a-module' cannot be built: it needs the module 'package_that_nobody_has', which is not "
            "installed",
        ),
        (
            ["model.dtype=none"],
            "model 'uniform' gave NoneType, and must give logits of shape (1, 15)",
        ),
        (
            ['sampler=[{type="built-as-none"}]'],
            "sampler 'built-as-none' cannot be used: what `build` made is of type NoneType",
        ),
        (
            ['model={type="unsaved"}'],
            "model 'unsaved' cannot be used: what `build` made is of type Unsaved, which has no method 'tensors'",
        ),
        (
            ['tokenizer={type="reword"}'],
            "tokenizer 'reword' fails its round trip: what ids decode to encodes to other ids, in 'thi quick ', "
            "from id 2 on",
        ),
    ],
)
def test_what_breaks_a_contract_is_blamed(
    folder: Path, sites: dict[str, Path], changes: list[str], blamed: str
) -> None:
    (folder / "text.txt").write_text("the quick model\n" * 20)
    name = pipeline(folder, CHAR, UNTRAINED)
    overrides = [part for change in changes for part in ("--set", change)]
    done = run_textgen("run", name, *overrides, folder=folder, site=[sites["offender"]])
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"plugin 'offender' (textgen-offender 0.7): {blamed}" in error_line(done)


# Plugins that are no packages, and engines apart from each other.


@attrs.frozen
class FixedConfig:
    """One text, again and again."""

    text: str = textgen.option(TEXT, help="the text")


@attrs.frozen
class Fixed:
    text: str

    def read(self) -> Any:
        yield self.text


def fixed_corpus() -> types.ModuleType:
    """A module with one corpus, as a notebook would define it."""
    module = types.ModuleType("fixed")

    @textgen.hookimpl
    def textgen_corpora() -> list[textgen.Component]:
        return [textgen.Component("fixed", FixedConfig, lambda config, context: Fixed(config.text))]

    module.textgen_corpora = textgen_corpora  # type: ignore[attr-defined]
    return module


TABLES: dict[str, Any] = {
    "device": "cpu",
    "corpus": {"type": "fixed"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn", "hidden_size": 4},
    "trainer": {"type": "sgd", "length": "1 epoch"},
    "data": {"window_length": 8},
    "generate": {"max_new_tokens": 5},
}


def test_an_in_process_plugin_takes_part(tmp_path: Path) -> None:
    plugins = textgen.PluginSet.discover()
    plugins.register(fixed_corpus(), "notebook")
    run = textgen.Engine(plugins).run(TABLES, output=tmp_path / "run")
    assert len(run.generations[0].text) == 5
    (corpus,) = [
        c
        for c in json.loads((tmp_path / "run/run.json").read_text())["components"]
        if c["kind"] == "corpus"
    ]
    assert (corpus["plugin"], corpus["distribution"]) == ("notebook", "unpackaged")


def test_engines_with_different_plugins_do_not_meet() -> None:
    with_fixed, without = textgen.PluginSet.discover(), textgen.PluginSet.discover(disable=["sgd"])
    with_fixed.register(fixed_corpus(), "notebook")
    assert textgen.Engine(with_fixed).pipeline(TABLES).corpus.name == "fixed"
    with pytest.raises(textgen.PipelineError) as caught:
        textgen.Engine(without).pipeline(TABLES)
    assert {fault.path for fault in caught.value.faults} == {"corpus.type", "trainer.type"}
    with pytest.raises(textgen.PipelineError):
        textgen.Engine().pipeline(TABLES)


def test_a_bad_in_process_plugin_is_left_out_and_leaves_nothing_behind() -> None:
    plugins = textgen.PluginSet()
    module = fixed_corpus()
    module.textgen_sampler = module.textgen_corpora  # type: ignore[attr-defined]
    with pytest.raises(textgen.PluginError, match=r"'notebook' \(unpackaged\): there is no hook"):
        plugins.register(module, "notebook")
    assert plugins.offers() == []
    del module.textgen_sampler
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugins.register(module, "notebook")
    assert [offer.qualified_name for offer in plugins.offers()] == ["unpackaged:fixed"]


def test_one_module_and_one_name_are_offered_once_by_a_package() -> None:
    plugins = textgen.PluginSet()
    module, other = fixed_corpus(), fixed_corpus()
    plugins.register(module, "one", distribution="textgen-fixed", version="1")
    with pytest.raises(
        textgen.UsageError,
        match="offers the corpus 'fixed' already, by its plugin 'one'; one of",
    ):
        plugins.register(other, "two", distribution="textgen-fixed", version="1")
    assert [offer.plugin.name for offer in plugins.offers()] == ["one"]
    plugins.register(other, "two", distribution="textgen-other", version="1")
    assert {offer.qualified_name for offer in plugins.offers()} == {
        "textgen-fixed:fixed",
        "textgen-other:fixed",
    }


def test_a_strict_set_raises_with_the_facts() -> None:
    module = types.ModuleType("new")
    module.TEXTGEN_PLUGIN_API = 99  # type: ignore[attr-defined]
    with pytest.raises(textgen.PluginError) as caught:
        textgen.PluginSet().register(module, "new", distribution="textgen-new", version="3.1")
    error = caught.value
    assert (error.plugin, error.distribution, error.version) == ("new", "textgen-new", "3.1")
    assert "plugin API 99" in error.cause


def test_what_has_no_hook_is_no_plugin() -> None:
    plugins = textgen.PluginSet()
    for nothing in (5, types.ModuleType("empty")):
        with pytest.raises(textgen.PluginError, match="it offers nothing: there is no hook in it"):
            plugins.register(nothing, "five")
    assert plugins.offers() == []
