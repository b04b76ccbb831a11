"""Sphinx configuration. Build with: sphinx-build -W docs docs/_build"""

import re
from importlib import metadata
from typing import Any

project = "textgen"
author = "The textgen authors"
copyright = "The textgen authors, MIT licence"
release = metadata.version("textgen-engine")

extensions = ["myst_nb"]
nb_execution_mode = "off"  # chapter.ipynb has its outputs; a test runs it
exclude_patterns = ["_build", "jupyter_execute", "pipelines", "**/runs", "**/.ipynb_checkpoints"]

html_theme = "furo"
html_title = f"textgen {release}"

myst_heading_anchors = 4

# The sidebar. It is added here, since a reader of index.md in a clone would see the directive as it
# stands.
SIDEBAR = """
```{toctree}
:hidden:
:caption: Your own text

quickstart
better-texts
corpora
pipelines
pretrained
training
comparing-runs
```

```{toctree}
:hidden:
:caption: The chapter

chapter
seed
mixtures
```

```{toctree}
:hidden:
:caption: Plugins

writing-plugins
plugin-recipes
hooks
testing-plugins
publishing-plugins
```

```{toctree}
:hidden:
:caption: In programs

python-api
embedding
serving
untrusted-runs
```

```{toctree}
:hidden:
:caption: More

benchmarks
reliability
scaling
caching
architecture
log
```

```{toctree}
:hidden:
:caption: Reference

reference/pipeline
reference/components
reference/plugins
reference/commands
reference/api
reference/hooks
reference/contracts
reference/gradient
reference/modules
reference/checks
reference/files
```
"""


OUTSIDE = re.compile(r"\[([^]]+)\]\((?:\.\./)+plugins/[^)]+\)")


def setup(app: Any) -> None:
    """Register with Sphinx."""
    app.connect("source-read", for_the_site)


def for_the_site(app: Any, page: str, source: list[str]) -> None:
    """Give the first page the list of all pages; links to files outside docs/ work only in a
    clone.
    """
    if str(app.env.doc2path(page)).endswith(".md"):
        source[0] = OUTSIDE.sub(r"\1", source[0]) + (SIDEBAR if page == "index" else "")
