"""Options of components that could not be used as declared are refused when the plugin is loaded, by name."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any

import attrs
import pytest
from commands import run_textgen

import textgen
from textgen import Component, hookimpl, option
from textgen.pipeline.options import DecodingOptions
from textgen.plugin.component import REQUEST_OPTIONS


def sampler(**options: Any) -> Component:
    """A sampler `odd` with these options, each of which is typed as a number."""
    body = {"__annotations__": dict.fromkeys(options, float), "__doc__": "Odd.", **options}
    return Component(
        "odd", attrs.frozen(type("OddConfig", (), body)), lambda config, context: config
    )


def refusal(component: Component) -> str:
    """Why a plugin that offers the sampler is left out; "" where it is not."""

    @hookimpl
    def textgen_samplers() -> list[Component]:
        return [component]

    plugins = textgen.PluginSet()
    try:
        plugins.register(
            types.SimpleNamespace(textgen_samplers=textgen_samplers),
            "odd",
            distribution="textgen-odd",
            version="2.1",
        )
    except textgen.PluginError as error:
        return str(error)
    return ""


START = "plugin 'odd' (textgen-odd 2.1): textgen_samplers: component 'odd': the argument "


@pytest.mark.parametrize(
    "name", ["steady penalty", "steady-penalty", "Steady", "_steady", "1st", "", "é"]
)
def test_an_argument_is_a_keyword_and_an_option(name: Any) -> None:
    said = f"{START}{name!r} of its option 'penalty' is taken, or is not lower-case words joined"
    assert refusal(sampler(penalty=option(1.0, help="what", argument=name))).startswith(
        said if name else ""
    )


@pytest.mark.parametrize("name", ["seed", "max_new_tokens", "stop", "prompt", "n", "state"])
def test_an_argument_is_not_one_that_requests_take(name: str) -> None:
    said = f"{START}{name!r} of its option 'penalty' is taken"
    assert refusal(sampler(penalty=option(1.0, help="what", argument=name))).startswith(said)


def test_two_options_do_not_share_an_argument() -> None:
    shared = option(1.0, help="what", argument="odd_penalty")
    said = f"{START}'odd_penalty' of its option 'more' is taken"
    assert refusal(sampler(penalty=shared, more=shared)).startswith(said)
    assert (
        refusal(sampler(penalty=shared, more=option(1.0, help="what", argument="odd_more_2"))) == ""
    )


def test_the_names_that_requests_take_are_all_known() -> None:
    many = inspect.signature(textgen.Generator.generate_many).parameters.keys()
    taken = {"prompt", *many, *textgen.RequestOptions.__annotations__} - {"self", "options"}
    of_samplers = textgen.PluginSet.discover().sampling_options().keys()
    assert set(REQUEST_OPTIONS) == taken - of_samplers
    assert of_samplers <= taken
    assert len(REQUEST_OPTIONS) == len(set(REQUEST_OPTIONS))
    assert (
        attrs.fields_dict(DecodingOptions).keys() <= textgen.RequestOptions.__annotations__.keys()
    )


def installed(folder: Path, argument: str) -> Path:
    """A folder with an installed package whose sampler has an option of this name."""
    information = folder / "textgen_odd-2.1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: textgen-odd\nVersion: 2.1\n"
    )
    (information / "entry_points.txt").write_text("[textgen]\nodd = textgen_odd\n")
    (folder / "textgen_odd.py").write_text(
        "import attrs\nfrom textgen import Component, hookimpl, option\n\n\n@attrs.frozen\nclass Odd:\n"
        f'    """Odd."""\n\n    penalty: float = option(1.0, help="what", argument={argument!r})\n\n\n@hookimpl\n'
        'def textgen_samplers():\n    return [Component("odd", Odd, lambda config, context: lambda x, history: x)]\n'
    )
    return folder


def test_the_command_goes_on_without_such_a_plugin(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", "steady penalty")
    for arguments, code in ((["--help"], 0), (["runs/p", "--steady", "5"], 2)):
        done = run_textgen("generate", *arguments, folder=tmp_path, site=[site])
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert (
            "warning: plugin 'odd' (textgen-odd 2.1) is left out: textgen_samplers: component 'odd'"
            in done.stderr
        )


@pytest.mark.parametrize("name", ["help", "stream"])
def test_the_command_keeps_its_own_options(tmp_path: Path, name: str) -> None:
    """A name that it takes for itself is for programs."""
    done = run_textgen(
        "generate", "--help", folder=tmp_path, site=[installed(tmp_path / "site", name)]
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(f"--{name} ") == 1
