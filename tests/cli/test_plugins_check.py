"""The command `plugins check`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import run_textgen

from textgen.testing import STATEMENTS


@pytest.mark.slow
def test_plugins_check_prints_a_line_for_each_check(tmp_path: Path) -> None:
    done = run_textgen("plugins", "check", "observers", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "ok       observer 'metrics' of textgen-engine: observer-resumed" in lines
    assert [line for line in lines if not line.startswith("ok       observer ")] == []
    assert done.stderr == f"{len(lines)} ok, 0 failed, 0 skipped\n"
    assert list(tmp_path.iterdir()) == []
    one = run_textgen("plugins", "check", "Textgen_Engine:logit-bias", folder=tmp_path)
    assert one.stdout == (
        "skipped  sampler 'logit-bias' of textgen-engine: it has no default for logit-bias.bias; check it with "
        "--set logit-bias.bias=VALUE\n"
    )


def installed_sampler(
    site: Path, name: str, call: str, top: str = "", component: str = "bad"
) -> Path:
    """A package textgen-NAME in `site` with one sampler; return its module."""
    (site / f"textgen_{name}-1.0.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: textgen-{name}\nVersion: 1.0\n"
    (site / f"textgen_{name}-1.0.dist-info/METADATA").write_text(metadata)
    (site / f"textgen_{name}-1.0.dist-info/entry_points.txt").write_text(
        f"[textgen]\n{name} = textgen_{name}\n"
    )
    (site / f"textgen_{name}.py").write_text(
        f"{top}\nfrom textgen import Component, NoOptions, hookimpl\n"
        "@hookimpl\ndef textgen_samplers():\n"
        f"    return [Component('{component}', NoOptions, lambda config, context: lambda logits, history: {call})]\n"
    )
    return site / f"textgen_{name}.py"


@pytest.mark.slow
def test_plugins_check_tells_a_slow_plugin_what_makes_it_slow(tmp_path: Path) -> None:
    top = "import torch\nimport threading\nthreading.Event().wait(0.6)"  # longer than a list of plugins waits
    installed_sampler(tmp_path / "site", "slow", "logits", top)
    done = run_textgen("plugins", "check", "slow", folder=tmp_path, site=[tmp_path / "site"])
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert "importing textgen_slow loads torch and numpy; import it inside build" in line
    assert done.returncode == 1


def test_plugins_check_notes_a_clash(tmp_path: Path) -> None:
    for name in ("one", "two"):
        installed_sampler(tmp_path / "site", name, "logits / 2", component="shared")
    done = run_textgen("plugins", "check", "one", folder=tmp_path, site=[tmp_path / "site"])
    assert done.returncode == 0, done.stdout
    notes = [line for line in done.stdout.splitlines() if not line.startswith(("ok", "skipped"))]
    assert notes == [
        "note: sampler 'shared' is also offered by textgen-two; users write textgen-one:shared"
    ]


def test_plugins_check_fails_with_sentence_and_link(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed_sampler(site, "bad", "logits[:, 1:]")
    done = run_textgen("plugins", "check", "bad", folder=tmp_path, site=[site])
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    statement = next(s for s in STATEMENTS if s.anchor == "sampler-shape")
    assert line.startswith(
        f"FAILED   sampler 'bad' of textgen-bad: sampler-shape: {statement.sentence} Seen: logits"
    )
    assert " ".join(done.stdout.split(line)[1].split()) == statement.advice
    (site / "textgen_bad.py").write_text("raise RuntimeError('not today')\n")
    broken = run_textgen("plugins", "check", "textgen-bad", folder=tmp_path, site=[site])
    assert broken.returncode == 1
    assert broken.stdout.startswith("FAILED   plugin 'bad' (textgen-bad 1.0) is left out: ")
    assert broken.stderr == "0 ok, 1 failed, 0 skipped\n"  # which is said once


def test_plugins_check_names_who_warned_and_keeps_what_is_printed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed_sampler(
        site, "loud", "print('here') or __import__('warnings').warn('too loud') or logits"
    )
    done = run_textgen("plugins", "check", "loud", folder=tmp_path, site=[site])
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (note,) = [line for line in lines if line.startswith("note: ")]
    assert note.startswith("note: sampler 'bad' of textgen-loud warned: UserWarning: too loud (")
    assert re.search(r"textgen_loud\.py:\d+\)$", note)
    assert "component-quiet: A component prints nothing" in next(
        line for line in lines if line.startswith("FAILED")
    )
    assert "here" not in lines
    assert " 1 failed, " in done.stderr


def test_plugins_check_notes_what_goes_away_and_a_name_of_textgens_own(tmp_path: Path) -> None:
    module = installed_sampler(tmp_path / "site", "old", "logits")
    module.write_text(
        "import warnings\nimport click\nfrom textgen import Component, NoOptions, hookimpl\n"
        "def build(config, context):\n"
        "    warnings.warn('the command run goes away', DeprecationWarning)\n"
        "    return click.Command('run', help='Runs.')\n"
        "@hookimpl\ndef textgen_commands():\n    return [Component('run', NoOptions, build)]\n"
    )
    done = run_textgen("plugins", "check", "old", folder=tmp_path, site=[tmp_path / "site"])
    own, old = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert (
        own
        == "note: command 'run' has the name of one of textgen's own; users write textgen textgen-old:run"
    )
    assert "warned: DeprecationWarning: the command run goes away" in old


def test_plugins_check_says_what_is_missing_for_a_plugin(tmp_path: Path) -> None:
    site = tmp_path / "site"
    module = installed_sampler(site, "mute", "logits")
    module.write_text("from textgen import Component\n")
    empty = run_textgen("plugins", "check", "mute", folder=tmp_path, site=[site])
    assert (empty.returncode, empty.stdout) == (
        1,
        "FAILED   plugin 'mute' (textgen-mute 1.0) is left out: it offers nothing: there is no hook in it, marked with "
        "@textgen.hookimpl\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["observer"], "is called 'observer'; did you mean 'observers'?"),
        (
            ["textgen-engine:samples2"],
            "is called 'textgen-engine:samples2'; did you mean 'textgen-engine:samples'?",
        ),
        (
            ["observers", "--set", "sample.every=3"],
            "given for 'sample', and no component is called so; did you mean",
        ),
        (["corpora", "--set", "file.pth=x"], "pth: unknown key; did you mean 'path'?"),
        (["observers", "--set", "every=3"], "--set takes NAME.KEY=VALUE"),
        (["observers", "--set", "samples.every=no"], "every: expected an integer"),
    ],
)
def test_what_cannot_be_checked_is_a_usage_error(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = run_textgen("plugins", "check", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
