"""The command compare: figures, settings that differ, curves and samples of several runs."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

import textgen
from textgen.cli.context import CommandContext
from textgen_builtins.commands.compare import compare
from textgen_builtins.curves import Curve, draw

HOSTILE = "<script>alert(1)&\"'"
SVG = "{http://www.w3.org/2000/svg}"


def invoke(*arguments: object) -> Any:
    made = CliRunner().invoke(
        compare, list(map(str, arguments)), obj=CommandContext(), catch_exceptions=False
    )
    assert made.exit_code == 0, made.output
    return made


@pytest.fixture
def runs(finished_run: Path, tiny_pipeline: Callable[..., Any], tmp_path: Path) -> Path:
    """A finished run, a stopped one of another size and with a hostile prompt and name, and a damaged one."""
    folder = tmp_path / "runs"
    shutil.copytree(finished_run, folder / "first")
    asked = iter([False] * 2)
    tables = tiny_pipeline(observers=True, model={"hidden_size": 12}, trainer={"evaluate_every": 1})
    tables |= {
        "seed": 7,
        "generate": {"prompt": HOSTILE, "max_new_tokens": 10, "unknown_characters": "skip"},
    }
    tables |= {"sampler": [{"type": "top-k", "k": 5}]}
    with pytest.raises(textgen.Interrupted):
        textgen.run(
            tables, output=folder / HOSTILE.replace("/", ""), cancelled=lambda: next(asked, True)
        )
    (folder / "damaged").mkdir()
    (folder / "damaged/run.json").write_text("[\x1b")
    return folder


def test_a_prompt_that_a_model_cannot_read_is_said(runs: Path) -> None:
    made = invoke(runs / "first", "--prompt", "the §", "--max-new-tokens", "3")
    assert (
        made.stderr
        == "textgen: warning: first continues the prompt without what its vocabulary lacks: '§'\n"
    )
    assert not invoke(runs / "first", "--prompt", "the ", "--max-new-tokens", "3").stderr


def test_runs_are_compared(runs: Path, tmp_path: Path) -> None:
    found = json.loads(invoke(runs, "--json", "--seed", "3", "--max-new-tokens", "9").stdout)
    rows = {row["name"]: row for row in found["runs"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "first": "finished",
        HOSTILE: "stopped",
        "damaged": "damaged",
    }
    assert found["runs"][-1]["name"] == "damaged", "the best comes first"
    differ = {
        each["key"]: {each["value"]: each["runs"] for each in each["values"]}
        for each in found["settings"]
    }
    assert differ["model.hidden_size"] == {"8": ["first"], "12": [HOSTILE]}, (
        "and nothing of the damaged one"
    )
    assert differ["sampler.0.k"].get("5") == [HOSTILE], "as --set writes it"
    assert "seed" not in differ
    expected = textgen.load(runs / "first").generate(
        found["prompt"], max_new_tokens=9, seed=3, echo=False
    )
    assert rows["first"]["text"] == expected.text
    assert len(rows[HOSTILE]["text"]) == 9, "of its best checkpoint"
    assert "is not valid JSON" in rows["damaged"]["why_no_text"]
    assert len(rows[HOSTILE]["curve"]) == 2
    assert rows["first"]["parameters"] == textgen.summarize(runs / "first").parameters
    shown = invoke(runs, "--max-new-tokens", "9").stdout
    assert "\x1b" not in shown
    assert "settings that differ:" in shown
    assert "hidden_size" in shown
    same = invoke(runs / "first", runs / "first", "--max-new-tokens", "0").stdout
    assert "what they write" not in same
    assert len(same.splitlines()) == 2, "the same run is there once"


def test_losses_of_other_texts_are_not_compared(
    tiny_pipeline: Callable[..., Any], runs: Path, tmp_path: Path
) -> None:
    tokenizer = {"type": "char", "lower_case": True, "letters_only": True}
    assert (
        json.loads(invoke(runs / "first", "--json", "--max-new-tokens", "0").stdout)["note"] == ""
    )
    for changes, said in (
        ({"text": "another text, that is long enough to be one. " * 30}, "different texts"),
        ({"data": {"validation": 0.3}}, "different parts of the text"),
        ({"tokenizer": tokenizer}, "compare their bits per character"),
        ({"data": {"validation": 0.0}}, "some of training text"),
    ):
        other = tmp_path / said.replace(" ", "-")
        textgen.run(tiny_pipeline(**changes), output=other, overwrite=True)
        assert (
            said
            in json.loads(invoke(runs / "first", other, "--json", "--max-new-tokens", "0").stdout)[
                "note"
            ]
        )


def test_tokens_that_stand_for_unknown_text_are_not_compared(
    tiny_pipeline: Callable[..., Any], runs: Path, tmp_path: Path
) -> None:
    """What they stand for costs no bits: the run that knows less would seem the better one."""
    tables = tiny_pipeline(tokenizer={"min_frequency": 40})
    with pytest.warns(UserWarning, match="stand for text outside the vocabulary"):
        made = textgen.run(tables, output=tmp_path / "coarse")
    share = json.loads((made.path / "run.json").read_text())["data"]["unknown_share"]
    assert 0.01 < share < 1
    found = json.loads(invoke(runs / "first", made.path, "--json", "--max-new-tokens", "0").stdout)
    assert found["note"] == (
        "the runs have different tokens, and some stand for text outside the vocabulary "
        f"({share:.0%} in coarse), whose spelling costs no bits: they cannot be compared"
    )


class Page(HTMLParser):
    """The elements of a page, and the text in each kind of them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.text.setdefault(tag, "")
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.text[tag] += data


def test_the_page_holds_all_of_it_and_escapes_it(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    invoke(runs, "--html", page, "--prompt", HOSTILE)
    text = page.read_text(encoding="utf-8")
    read = Page()
    read.feed(text)
    assert not read.open
    assert "script" not in read.text
    assert HOSTILE in read.text["q"]
    assert HOSTILE in read.text["h3"]
    assert HOSTILE in read.text["tbody"]
    assert (
        textgen.load(runs / "first")
        .generate(HOSTILE, max_new_tokens=200, seed=0, echo=False, unknown_characters="skip")
        .text
        in read.text["pre"]
    )
    assert not re.search(
        r'(?:src|href)="|https?://(?!www\.w3\.org)|url\(', text.replace("url(#plot)", "")
    ), "self-contained"
    assert "prefers-color-scheme: dark" in text
    assert "loss of the held-out text (nats per token)" in read.text["text"]
    invoke(runs, "--html", page, "--max-new-tokens", "0")  # replaces its own
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for file, said in (
        (notes, "is not a page of textgen compare"),
        (runs, "is not a page of textgen compare"),
        (tmp_path / "no/where.html", "the folder .* does not exist"),
    ):
        with pytest.raises(textgen.UsageError, match=said):
            invoke(runs, "--html", file)
    assert notes.read_text() == "mine"
    with pytest.raises(textgen.UsageError, match="is not a run directory, and there is none in it"):
        invoke(tmp_path / "runs/first/checkpoints")


def curves_of(number: int, length: int = 9, last: float = 2.0) -> list[Curve]:
    """Curves that end close together."""
    name = "hidden_size={},and_a_very_long_name_of_a_setting={}"
    return [
        Curve(
            name.format(place, place),
            [(10 * step, last + place / 1000 + 2 / step) for step in range(1, length + 1)],
        )
        for place in range(number)
    ]


@pytest.mark.parametrize("number", [2, 12, 40])
def test_every_curve_has_a_name_that_no_other_covers(number: int) -> None:
    made = curves_of(number)
    far = [(10 * step, 4.0 - step / 100) for step in range(1, 10)]  # not twice as high
    made += [Curve("far off", far), Curve("none yet", [])]
    root = ElementTree.fromstring(draw(made, "loss"))
    height, width = float(root.attrib["height"]), float(root.attrib["width"])
    names = [
        node for node in root.iter(f"{SVG}text") if node.attrib.get("class", "").startswith("f")
    ]
    assert len(names) == number + 1
    places = [float(node.attrib["y"]) for node in names]
    assert all(below - above >= 16 for above, below in itertools.pairwise(places))
    assert min(places) > 0
    assert max(places) < height - 20
    for node in names:
        shown = "".join(node.itertext()).removeprefix(node[0].text or "")
        assert float(node.attrib["x"]) + 7.2 * len(shown) < width, "it ends in the picture"
    lines = [node for node in root.iter(f"{SVG}path") if node.attrib["d"].count("L") == 8]
    assert len(lines) == number + 1
    heights = [
        float(y) for line in lines[:number] for y in re.findall(r",([-\d.]+)", line.attrib["d"])[1:]
    ]
    assert max(heights) - min(heights) > 200, "one that is far off leaves the others their room"
    axes = [node.text for node in root.iter(f"{SVG}text") if node.text]
    assert {"step", "loss"} <= set(axes)
    style = next(root.iter(f"{SVG}style")).text or ""
    drawn = {re.search(rf"\.c{n} {{ (.*?) }}", style)[1] for n in range(min(number, 18))}  # type: ignore[index]
    assert len(drawn) == min(number, 18), "each has a colour and dashes of its own"


# How colours look to eyes without one kind of cone (Machado, Oliveira and Fernandes, 2009), in linear RGB.
