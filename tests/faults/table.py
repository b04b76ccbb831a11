"""The table of faults in docs/reliability.md: what must happen, and which tests inject it.

    python -m tests.faults.table [--write]

A test says which faults it injects: `@pytest.mark.fault(8)`. The numbers are those of FAULTS. Prints the table, or with
--write puts it into the page; a test compares the two.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reliability.md"
BEGIN = "<!-- table of faults: written by `python -m tests.faults.table --write` -->"
END = "<!-- end of the table -->"

FAULTS = {
    1: "killed at any moment of a checkpoint, or a power loss: the last checkpoint loads, and leftovers are swept",
    2: "no space, a quota, a read-only disk: the last good checkpoint is intact; error, exit 1",
    3: "weights truncated, a byte flipped, a Git LFS pointer or a web page instead: error with file and checksum",
    4: "every checkpoint damaged: error, never a silent restart",
    5: "interrupted at any step and resumed: weights, batches, metrics and text as if never interrupted",
    6: "resumed with another pipeline, vocabulary or text: error that shows the differences",
    7: "a loss that is not a number: stops with step and learning rate, and the last checkpoint stays",
    8: "SIGINT, SIGTERM, SIGHUP: a checkpoint, then exit 130, 143, 129; a second signal stops at once",
    9: "two runs in one directory: the second is told the process of the first",
    10: "an output place that cannot be written: error before any training",
    11: "weights truncated or replaced under the process that loaded them: no crash",
    12: "a run directory behind a link works; a link inside that leads out of it is refused",
    13: "the clock jumps: nothing changes",
    14: "output piped into `head`: no traceback",
    15: "not UTF-8: error with file and byte offset, and the option `encoding`",
    16: "byte-order mark, line endings, NUL bytes, emoji and combining marks survive as documented",
    17: "an empty corpus, or one shorter than a window: error before the model is built",
    18: "a prompt outside the vocabulary: by policy",
    19: "an empty prompt generates from the start state",
    20: "TOML syntax: error with file, line and column",
    21: "an unknown key or component: its path and the nearest known name",
    22: "a wrong type: path, expected and given; nothing is coerced",
    23: "out of range, nan, 1e400, negative or huge seeds: error",
    24: "several faults: all reported at once",
    25: "a run name with `..`, NUL or a reserved name: error",
    26: "a plugin that raises at import, or lacks a dependency: left out, named, and others work",
    27: "a misspelt hook, or one of the wrong type: left out, naming hook and expected type",
    28: "duplicate names: both shown, neither of two plugins wins; a file that a built-in hides is warned of",
    29: "a plugin for a newer API: says which",
    30: "a component of the wrong shape, dtype or round trip: blamed by name",
    31: "temperature 0 is greedy; negative, NaN or infinite is an error",
    32: "limits exceeded: error before anything is allocated",
    33: "a stream left half-way: its work and memory end",
    34: "a hundred threads generating from one run: each gets what it would have got alone",
    35: "a missing device: error, exit 2; out of its memory: error that suggests sizes",
}


def marked() -> Iterator[tuple[int, str, str]]:
    """Number, file and name of every test that has a number."""
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for mark in (
                node.decorator_list
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                else ()
            ):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    yield ast.literal_eval(mark.args[0]), str(path.relative_to(ROOT)), node.name


def table() -> str:
    """The table, in Markdown."""
    found = sorted(marked())
    lines = ["| | fault, and what must happen | injected by |", "| --- | --- | --- |"]
    for number, fault in FAULTS.items():
        files: dict[str, list[str]] = {}
        for _, file, name in (each for each in found if each[0] == number):
            files.setdefault(file, []).append(name.removeprefix("test_").replace("_", " "))
        tests = "; ".join(f"`{file}`: {', '.join(names)}" for file, names in files.items())
        lines.append(f"| {number} | {fault} | {tests} |")
    return "\n".join(lines)


def written() -> str:
    """The table that the page has."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(
            f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8"
        )
    else:
        print(table())


if __name__ == "__main__":
    main()
