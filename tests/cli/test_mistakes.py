"""Mistakes on the command line: one line on stderr that says what was meant, exit code 2, and no
file lost.
"""

import pytest

MISTAKES = """
generate runs/my --max-new-tokens -1 | max_new_tokens
generate runs/my --max-new-tokens x | max_new_tokens: expected an integer, given "x"
generate runs/my --n 0 | n: expected an integer from 1
generate runs/my -n 2 --batch-size 0 | batch_size: expected an integer from 1
generate runs/my --stop e --stop= | stop: must hold texts of 1 to
generate runs/my -p the\udcff | U+DCFF
generate runs/my --temp 0.5 | --temperature
generate runs/my --no-ech | --no-echo
generate runs/my --logit-bias {e=-inf} | logit_bias.e: expected a finite number
generate runs/my --logit-bias {zz=1} | error: logit_bias: expected the text of one token
generate runs/my --seed -1 | seed
generate runs/my --time-limit nan | time_limit
generate runs/my --top-p 50 --temperature -1 | given 50.0; temperature: must be
generate runs/my --output xml | jsonl
generate runs/my --device gpu | device
generate my.toml | did you mean runs/my?
generate nowhere | nowhere is not a run directory: it does not exist; textgen run makes one
generate runs/myy | runs/myy is not a run directory: it does not exist; did you mean '
generate runs/myy | runs/my'?
generate runs/my --length 200 | did you mean --max-new-tokens?
generate runs/my --temperature 0,7 | write 0.7
run my.txt | `textgen init my.txt` writes a pipeline for a text
show my.txt | `textgen init my.txt` writes a pipeline for a text
run runs/my | Is a directory; its pipeline is pipeline.toml in it
run my | my: cannot be read: No such file or directory; did you mean 'my.toml'?
run my.tolm | did you mean 'my.toml'?
init my.tx | did you mean 'my.txt'?
init my.toml | textgen run my.toml
my.toml | no command is called 'my.toml'
genrate runs/my | did you mean 'generate'?
run | missing argument 'PIPELINE'; see textgen run --help
run my.toml --set | option '--set' requires an argument
run my.toml --over | --overwrite
show my.toml --set epochs | expected KEY=VALUE, as in trainer.batch_size=8, given "epo
generate runs/my -p the door | a text of several words is quoted
generate runs/my --top-k many | top_k: expected an integer, given "many"
generate runs/my --logit-bias a | logit_bias: expected a table
generate runs/my -p the --max-new-tokens none -n 2 | never ends; use stream, or give stop
generate runs/my -p the --max-new-tokens none --output jsonl | never ends; use stream, or give stop
plugins check observer | is called 'observer'; did you mean 'observers'?
plugins check observers --set samplse.every=3 | given for 'samplse', and no component is called so
plugins check observers --set observers=3 | --set takes NAME.KEY=VALUE
--nothing | see textgen --help
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [line.split(" | ") for line in MISTAKES.strip().splitlines()],
)
def test_a_mistake_is_one_line_that_says_what_was_meant(textgen, workplace, command, said):
    failed = textgen(*command.split(), cwd=workplace)
    assert (failed.code, failed.stdout) == (2, ""), failed.stderr
    (line,) = failed.stderr.splitlines()
    assert line.startswith("textgen: error: ")
    assert said in line


def test_help_tells_what_every_command_does(textgen, tmp_path):
    shown = textgen("--help", cwd=tmp_path, env={"COLUMNS": "80"}).stdout
    assert "..." not in shown.partition("Commands:")[2]
    assert 20 < max(map(len, shown.splitlines())) <= 80


IN_THE_WAY = """
evaluate runs/my my.txt --html my.txt | my.txt exists and is not a page
evaluate runs/my my.txt --html ./my.toml | is not a page of textgen
evaluate runs/my my.txt --html runs/my/tokenizer.json | is not a page
evaluate runs/my my.txt --html runs | runs exists and is not a page
evaluate runs/my my.txt --html missing/page.html | the folder missing does not exist
init my.txt | my.toml exists; choose another name with --pipeline
init my.txt --pipeline ./my.txt --force | my.txt is the text itself; choose another name with --pip
init --minutes nan | minutes
init --minutes 0 | minutes
init --minutes 5min | minutes
init --minutes five | 'five' is not a valid number
evaluate runs/my nowhere | nowhere does not exist
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [line.split(" | ") for line in IN_THE_WAY.strip().splitlines()],
)
def test_no_file_is_lost_and_none_is_missed(textgen, workplace, command, said):
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()}
    failed = textgen(*command.split(), cwd=workplace)
    assert (failed.code, failed.stdout) == (2, ""), failed.stderr
    (line,) = failed.stderr.splitlines()
    assert said in line
    assert {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "command",
    ["compare runs/my --html old.html", "evaluate runs/my my.txt --html old.html"],
)
def test_what_a_command_wrote_may_be_replaced(textgen, workplace, command):
    for _ in range(2):
        done = textgen(*command.split(), cwd=workplace)
        assert done.code == 0, done.stderr
    (workplace / command.split()[-1]).unlink()
