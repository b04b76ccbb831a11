"""Installs a package of its own into a folder of its own, without a package index."""

import zipfile

from commands import run_python


def install(project, folder):
    """Build the wheel of `project` below `folder`, unpack it there, and return the folder to put on
    the path.
    """
    wheels, site = folder / "wheels" / project.name, folder / "site" / project.name
    build = ("-m", "hatchling", "build", "--target", "wheel", "--directory", wheels)
    done = run_python(*build, folder=project)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def write_package(site, name, source, *, version="1.0"):
    """Write what pip leaves in `site` of the package textgen-NAME: its module, and metadata with
    one entry point.
    """
    information = site / f"textgen_{name}-{version}.dist-info"
    information.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: textgen-{name}\nVersion: {version}\n"
    (information / "METADATA").write_text(metadata)
    (information / "entry_points.txt").write_text(f"[textgen]\n{name} = textgen_{name}\n")
    (site / f"textgen_{name}.py").write_text(source)
