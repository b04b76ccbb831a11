"""The version, the event of a skipped run, and what a notebook shows."""

import io
import sys
import types

import pytest

import textgen as api


@pytest.mark.parametrize(
    ("application", "drawn"), [("IPKernelApp", True), ("TerminalIPythonApp", False)]
)
def test_a_notebook_gets_a_bar_though_it_is_not_a_terminal(
    tiny_pipeline, monkeypatch, application, drawn
):
    shell = types.SimpleNamespace(config={application: {}})
    shown = list[str]()

    def display(data, *, raw, **_):
        assert raw  # or the dict would be shown
        shown.append(data["text/plain"])
        return types.SimpleNamespace(update=display)

    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    console = io.StringIO()
    api.Engine().run(tiny_pipeline(observers=True), console=console)
    assert any("100%|" in bar for bar in shown) == drawn
    assert ("tokens/s" in console.getvalue()) != drawn
