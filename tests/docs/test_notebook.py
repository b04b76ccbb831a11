"""The notebook of the docs runs in a kernel, and was saved as it is."""

import shutil
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def shown(notebook):
    """The kinds of content of what each cell displays, but for what it prints."""
    cells = (cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    return [[set(output.data) for output in outputs if "data" in output] for outputs in cells]


@pytest.mark.slow
@pytest.mark.usefixtures("book_cached")
def test_the_notebook_runs_and_keeps_its_progress(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    saved = nbformat.read(DOCS / "chapter.ipynb", as_version=4)
    notebook = nbformat.read(DOCS / "chapter.ipynb", as_version=4)
    shutil.copytree(DOCS / "pipelines", tmp_path / "pipelines")
    for cell in notebook.cells:
        cell.source = cell.source.replace('"30 epochs"', '"3 epochs"')
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert shown(notebook) == shown(saved)
    (bar,) = (
        output.data["text/plain"]
        for output in notebook.cells[3].outputs
        if output.output_type == "display_data"
    )
    assert bar.startswith("100%|")
    assert "30/30 [" in bar
    assert "loss" in bar
