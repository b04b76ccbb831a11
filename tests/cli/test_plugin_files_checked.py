"""`textgen --plugin FILE.py plugins check`."""

import pytest
from commands import run_textgen

from textgen import PluginSet
from textgen.testing import command_line

SAMPLER = """
from textgen import Component, NoOptions, hookimpl

@hookimpl
def textgen_samplers():
    half = lambda logits, history: logits / 2
    return [Component("half", NoOptions, lambda config, context: half)]
"""
CORPUS = """
from textgen import Component, CorpusError, NoOptions, hookimpl

class Gone:
    def read(self):
        raise CorpusError("no such file: /gone.txt")

@hookimpl
def textgen_corpora():
    return [Component("gone", NoOptions, lambda config, context: Gone())]
"""
NEEDY = '''
import attrs
from textgen import Component, hookimpl, option

@attrs.frozen
class Needy:
    """Needs two."""

    by: float = option(help="what to divide by")
    add: float = option(help="what to add")

@hookimpl
def textgen_samplers():
    build = lambda config, context: lambda logits, history: logits / config.by
    return [Component("nodefault", Needy, build)]
'''


@pytest.mark.slow
def test_a_file_may_load_torch_which_a_package_may_not(tmp_path):
    (tmp_path / "half.py").write_text("import torch\n" + SAMPLER)
    done = run_textgen("--plugin", "half.py", "plugins", "check", "half", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"sampler 'half' of {tmp_path / 'half.py'}: component-import" in done.stdout


def lines_of(tmp_path, text):
    file = tmp_path / "half.py"
    file.write_text(text)
    plugins = PluginSet.discover()
    plugins.register_file(file)
    return [line for _, line in command_line.check_named("half", plugins, ())]


def test_a_corpus_that_is_not_available_is_not_read(tmp_path):
    said = "corpus-pieces: its text is not available here: no such file: /gone.txt"
    line = f"skipped  corpus 'gone' of {tmp_path / 'half.py'}: {said}"
    assert line in lines_of(tmp_path, CORPUS)


def test_options_without_a_default_are_asked_for(tmp_path):
    (line,) = lines_of(tmp_path, NEEDY)
    assert line.endswith(" --set nodefault.by=VALUE --set nodefault.add=VALUE")
