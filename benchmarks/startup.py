"""How long `textgen --help` and `textgen plugins` take, against Python importing the libraries that they need.

Usage: python benchmarks/startup.py [--repeats 15]

Whole processes, in turn. Prints their seconds over the baseline's with the spread: the target is at most 2.5.
`textgen generate` on a CPU is set against `import torch`, which it does without.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pairs import seconds

IMPORTS = [sys.executable, "-c", "import attrs, pluggy, tqdm, click"]
TORCH = [sys.executable, "-c", "import torch"]
TEXTGEN = [sys.executable, "-m", "textgen"]


def run(command: list[str], folder: Path) -> float:
    """Seconds of a whole process."""
    return seconds(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "p.toml").write_text(
            'device = "cpu"\nobserver = []\n[corpus]\ntype = "story"\n[tokenizer]\ntype = "char"\n'
            '[data]\nwindows = [64, 0]\n[model]\ntype = "rnn"\ncell = "lstm"\n'
            '[trainer]\ntype = "adamw"\nlength = "1 epoch"\n[generate]\nmax_new_tokens = 1\n',
            encoding="utf-8",
        )
        run([*TEXTGEN, "run", "p.toml"], folder)
        for command, baseline in (
            ([*TEXTGEN, "--help"], IMPORTS),
            ([*TEXTGEN, "plugins"], IMPORTS),
            (
                [*TEXTGEN, "generate", "runs/p", "--prompt", "Nell", "--max-new-tokens", "200"],
                TORCH,
            ),
        ):
            run(command, folder), run(baseline, folder)
            pairs = [(run(command, folder), run(baseline, folder)) for _ in range(repeats)]
            ratios = [ours / theirs for ours, theirs in pairs]
            print(
                f"textgen {command[3]:9} {statistics.median(ours for ours, _ in pairs):.3f} s, "
                f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}) "
                f"`{' '.join(baseline[2:])}` ({statistics.median(theirs for _, theirs in pairs):.3f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
