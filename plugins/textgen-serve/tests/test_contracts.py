"""The contracts of every plugin, by textgen's own suites."""

import subprocess
import sys

import textgen_serve
from textgen.testing import check_plugin


def test_it_keeps_the_contracts():
    check_plugin(textgen_serve)


def test_listing_plugins_loads_no_web_server_and_no_numpy():
    code = (
        "import sys, textgen; names = [o.name for o in "
        "textgen.PluginSet.discover().offers('command')]; "
        "assert 'serve' in names, names; "
        "assert not {'starlette', 'uvicorn', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
