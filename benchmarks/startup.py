"""How long commands take to start, against Python importing the libraries that they need.

Usage: python benchmarks/startup.py [--repeats 15]

Whole processes, in turn: `textgen --help` and `textgen plugins` against the imports of a command
line, with 2.5 times as target, and `textgen generate` on a CPU against `import torch`, which it
does without.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from generation import trained
from shared import parser, ratios, show

_IMPORTS = ("-c", "import attrs, pluggy, tqdm, click")
_TORCH = ("-c", "import torch")
_CASES = (
    (("--help",), _IMPORTS, 2.5),
    (("plugins",), _IMPORTS, 2.5),
    (("generate", "lstm-128", "--prompt", "Nell", "--max-new-tokens", "200"), _TORCH, 1),
)


def main() -> None:
    """Print the seconds of textgen over the baseline's."""
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=15)
    repeats = options.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        trained(Path(folder), "lstm", 128, "cpu")
        process = partial(subprocess.run, cwd=folder, check=True, capture_output=True)
        for command, imports, target in _CASES:
            ours = partial(process, [sys.executable, "-m", "textgen", *command])
            found = ratios(ours, partial(process, [sys.executable, *imports]), repeats)
            show(f"textgen {command[0]}, over `{imports[1]}`", found, f"at most {target}")


if __name__ == "__main__":
    main()
