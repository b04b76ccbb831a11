"""Sphinx configuration. Build with: sphinx-build -W docs docs/_build"""

import re
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from code_as_markdown import anchor

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
desk
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
```
"""


DOCS = Path(__file__).parent
OUTSIDE = re.compile(r"\[([^]]+)\]\((?:\.\./)+((?:plugins|textgen)/[^)#]+)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

# The page of the reference that is written from a file. Other modules have a section. A link to a
# part of a file, such as protocols.py#corpus, leads to the section of that name instead.
PAGES = {
    "plugins/textgen_builtins": "components",
    "textgen/__init__.pyi": "api",
    "textgen/gradient/__init__.pyi": "gradient",
    "textgen/pipeline/options.py": "pipeline",
    "textgen/protocols.py": "contracts",
    "textgen/testing/statements.py": "checks",
}
pages_with: dict[str, list[str]] = {}  # a section's name to the pages that have it


def setup(app: Any) -> None:
    """Register with Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", for_the_site)


def write_reference(app: Any) -> None:
    """Write docs/reference/, and note the page of each of its sections."""
    subprocess.run([sys.executable, str(DOCS / "reference.py")], check=True)
    for path in sorted((DOCS / "reference").glob("*.md")):
        counts: Counter[str] = Counter()
        for heading in HEADING.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
            name = anchor(heading)
            number = counts[name]
            counts[name] += 1
            section = f"{name}-{number}" if number else name
            pages_with.setdefault(section, []).append(path.stem)


def on_the_site(link: re.Match[str]) -> str:
    """A link to a source file, as a link to the reference; the words alone where none is.

    Raises KeyError for a section that is not in the reference.
    """
    words, file, section = link.groups()
    if file in PAGES and not section:
        return f"[{words}](reference/{PAGES[file]}.md)"
    module = re.sub(r"(/__init__)?\.pyi?$", "", file).replace("/", ".")
    name = section or anchor(module)
    if name not in pages_with and not (section and file.endswith(".py")):
        return words
    pages = pages_with[name]
    page = PAGES[file] if PAGES.get(file) in pages else pages[0]
    return f"[{words}](reference/{page}.md#{name})"


def for_the_site(app: Any, page: str, source: list[str]) -> None:
    """Turn links to files outside docs/, and give the first page the list of all pages."""
    if not str(app.env.doc2path(page)).endswith(".md"):
        return
    source[0] = OUTSIDE.sub(on_the_site, source[0])
    if page == "index":
        source[0] += SIDEBAR
