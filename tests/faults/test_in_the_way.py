"""What stands in a run's way, left there by a kill or by somebody: nothing is lost, and no run is
stuck.
"""

import shutil
from pathlib import Path

import pytest
from raising import raises
from small_run import assert_same, interrupt, record_of, tree

import textgen


def checkpoints_of(tables):
    """Those of a run that was stopped after some steps."""
    interrupt(3, tables)
    return Path(tables["output"]) / "checkpoints"


def test_a_checkpoint_that_got_no_name_is_a_leftover(tmp_path, tiny_pipeline):
    tables = tiny_pipeline(trainer={"batch_size": 4})
    checkpoints = checkpoints_of(tables)
    (last,) = checkpoints.iterdir()
    shutil.copytree(last, checkpoints / ".partial-whole")
    (checkpoints / ".partial-half").mkdir()
    (checkpoints / ".partial-file").write_bytes(b"")
    run = textgen.run(tables)
    assert run.outcome == "resumed"
    assert [path.name for path in checkpoints.glob(".*")] == []
    assert len(list(checkpoints.iterdir())) <= 2
    assert_same(run.path, textgen.run(tables, output=tmp_path / "whole").path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_the_name_of_a_checkpoint_is_moved_aside(
    tmp_path, tiny_pipeline, caplog, overwrite
):
    """As a program leaves one behind that synchronises folders file by file."""
    tables = tiny_pipeline(trainer={"batch_size": 4})
    whole = textgen.run(tables, output=tmp_path / "whole")
    checkpoints = checkpoints_of(tables)
    taken = checkpoints / f"step-{record_of(whole.path)['step']:06d}"
    taken.mkdir()
    (taken / "mine").write_text("the only copy")
    run = textgen.run(tables, overwrite=overwrite)
    assert run.outcome == ("trained" if overwrite else "resumed")
    assert_same(run.path, whole.path)
    assert (checkpoints / f"{taken.name}.aside-1/mine").read_text() == "the only copy"
    assert str(taken) in caplog.text
    assert textgen.run(tables).outcome == "skipped"


def test_a_lock_file_that_cannot_be_made_is_an_error(tmp_path, tiny_pipeline):
    """It does not mean that the file system has no locks."""
    (tmp_path / "run/.lock").mkdir(parents=True)
    with raises(IsADirectoryError, filename=str(tmp_path / "run/.lock")):
        textgen.run(tiny_pipeline())


# Links.


def foreign(folder):
    """A folder that is none of a run's business, with names in it that a run would remove."""
    for name in ("step-000001", ".partial-mine", "mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(b"the only copy")
    return folder


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("checkpoints", "."),
        (".next-run", "."),
        ("metrics.jsonl", "mine/model.safetensors"),
        (".lock", "mine/model.safetensors"),
        (".lock-owner.json", "mine/model.safetensors"),
    ],
)
def test_a_link_out_of_the_run_directory_is_refused_before_anything_is_touched(
    tmp_path, tiny_pipeline, name, target
):
    tables = tiny_pipeline()
    run = checkpoints_of(tables).parent
    outside = foreign(tmp_path / "outside")
    if (run / name).is_dir():
        shutil.move(run / name, tmp_path / "moved")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside / target)
    before, inside = tree(outside), tree(run)
    for overwrite in (False, True):
        with pytest.raises(textgen.RunError) as caught:
            textgen.run(tables, overwrite=overwrite)
        assert f"run/{name} " in str(caught.value)
        assert (tree(outside), tree(run)) == (before, inside)
    (run / name).unlink()
    assert textgen.run(tables).outcome in ("trained", "resumed")


@pytest.mark.fault(12)
def test_links_that_lead_nowhere_else_are_in_nobodys_way(tmp_path, tiny_pipeline):
    """A run directory that is reached through a link, and links where a killed process may have
    left a folder.
    """
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    tables = tiny_pipeline()
    checkpoints = checkpoints_of(tables)
    outside = foreign(tmp_path / "outside")
    shutil.copy(next(checkpoints.glob("step-*/manifest.json")), outside / "mine")
    before = tree(outside)
    for folder in (tmp_path / "run", checkpoints):
        (folder / ".partial-link").symlink_to(outside / "mine")
        (folder / ".partial-dangling").symlink_to(outside / "nothing")
    (checkpoints / "step-000099").symlink_to(next(checkpoints.glob("step-*")))
    assert textgen.run(tables).outcome == "resumed"
    assert tree(outside) == before
    assert not [path for path in tmp_path.rglob("elsewhere/**/*") if path.is_symlink()]
    assert textgen.run(tables).outcome == "skipped"
    assert textgen.run(tables, overwrite=True).outcome == "trained"


# A folder that was never a run.


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "samples.txt",
        "pipeline.toml",
        "checkpoints/step-000100/weights",
        "checkpoints/mine",
        ".partial-mine/mine",
        ".probe-mine",
        ".letter.tmp",
        ".next-run/run.json",
        ".bashrc",
    ],
)
def test_a_folder_that_was_never_a_run_is_left_alone(tmp_path, tiny_pipeline, name):
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).write_text('the = "only copy"')
    before = tree(tmp_path / "run")
    for overwrite in (False, True):
        with raises(textgen.RunError, path=tmp_path / "run") as caught:
            textgen.run(tiny_pipeline(), overwrite=overwrite)
        assert Path(name).parts[0] in str(caught.value)
        assert tree(tmp_path / "run") == before


def test_a_pipeline_copied_out_of_a_run_runs_where_it_lies(tmp_path, tiny_pipeline):
    first = textgen.run(tiny_pipeline())
    (tmp_path / "again").mkdir()
    (tmp_path / "again/.gitkeep").touch()
    shutil.copy(first.path / "pipeline.toml", tmp_path / "again")
    again = textgen.run(tmp_path / "again/pipeline.toml")
    assert (again.outcome, again.path) == ("trained", tmp_path / "again")
    assert_same(again.path, first.path)
