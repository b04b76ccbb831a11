"""Installs a package of its own into a folder of its own, without a package index."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def install(project: Path, folder: Path) -> Path:
    """Build the wheel of `project` below `folder`, unpack it there, and return the folder to put on the path."""
    wheels, site = folder / "wheels" / project.name, folder / "site" / project.name
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(wheels),
    ]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=300)
    (wheel,) = wheels.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site
