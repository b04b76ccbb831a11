"""The contracts of every plugin, by textgen's own suites."""

import subprocess
import sys

import textgen_desk
from textgen.testing import check_plugin


def test_it_keeps_the_contracts():
    check_plugin(textgen_desk, options={"likely-names": {"names": ["it", "No one"]}})


def test_listing_plugins_loads_no_web_server_and_no_numpy():
    code = (
        "import sys, textgen; names = [o.name for o in "
        "textgen.PluginSet.discover().offers('command')]; "
        "assert 'desk' in names, names; "
        "assert not {'starlette', 'uvicorn', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
