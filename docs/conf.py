"""Sphinx configuration. Build with: sphinx-build -W docs docs/_build"""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "textgen"
author = "The textgen authors"
copyright = "The textgen authors, MIT licence"
release = metadata.version("textgen-engine")

extensions = ["myst_parser", "sphinx.ext.autodoc", "textgen_reference"]
exclude_patterns = ["_build", "generated", "pipelines"]
default_role = "code"  # docstrings write names in single backticks

html_theme = "furo"
html_title = f"textgen {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"Source": "Source"}
