"""What spoils a run: disks, devices, damaged files, losses that are no numbers, too little memory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import environment, run_python, run_textgen
from small_run import PIPELINE, TEXT, copied, flip, tree

import textgen
from textgen import devices


@pytest.mark.fault(10)
def test_an_output_that_cannot_be_written_is_an_error_before_training(folder: Path) -> None:
    done = run_textgen("run", "p.toml", "--output", "text.txt/run", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "text.txt/run cannot be written to" in line
    assert (folder / "text.txt").read_text() == TEXT


def test_a_folder_that_is_no_run_is_left_alone(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/thesis.txt").write_text("all of it")
    for arguments in ([], ["--overwrite"]):
        done = run_textgen("run", "p.toml", "--output", "mine", *arguments, folder=folder)
        assert done.returncode == 1
        assert (
            "is not a run directory (it has no file run.json) and is not empty (thesis.txt)"
            in done.stderr
        )
        assert tree(folder / "mine") == {"thesis.txt": hashlib.sha256(b"all of it").hexdigest()}


@pytest.mark.fault(35)
@pytest.mark.skipif(devices.resolve("auto") == "cuda", reason="there is a CUDA device here")
def test_a_missing_device_is_an_error(folder: Path, trained: tuple[Path, Any]) -> None:
    for command in (["run", "p.toml"], ["generate", str(trained[0] / "runs/p")]):
        done = run_textgen(*command, "--device", "cuda", folder=folder)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "'cuda'" in line
        assert "device to cpu" in line
    assert not (folder / "runs").exists()


@pytest.mark.fault(14)
def test_output_into_head_gives_no_traceback(trained: tuple[Path, Any]) -> None:
    folder = trained[0]
    command = f"{sys.executable} -m textgen generate runs/p --max-new-tokens 70000 | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout[5:] == "0\n"


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped": (flip, ""),
    "truncated": (lambda data: data[: len(data) // 2], ""),
    "empty": (lambda data: b"", ""),
    "lfs": (
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "git lfs pull",
    ),
}


@pytest.mark.fault(3)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_file_is_named_with_its_checksums(
    trained: tuple[Path, Any], tmp_path: Path, how: str, name: str
) -> None:
    run = copied(trained, tmp_path)
    spoil, hint = SPOILT[how]
    original = (run / name).read_bytes()
    (run / name).write_bytes(spoil(original))
    with pytest.raises(textgen.CorruptFileError) as caught:
        textgen.load(run)
    error = caught.value
    assert error.path == run / name
    assert error.expected == hashlib.sha256(original).hexdigest()
    assert error.actual == hashlib.sha256(spoil(original)).hexdigest()
    for phrase in (str(run / name), "SHA-256", error.expected[:12], error.actual[:12], hint):
        assert phrase in str(error)


@pytest.mark.fault(3)
def test_a_flipped_byte_is_one_line_on_the_command_line(
    trained: tuple[Path, Any], folder: Path
) -> None:
    path = copied(trained, folder) / "model.safetensors"
    path.write_bytes(flip(path.read_bytes()))
    for command in (["generate", "runs/p"], ["run", "p.toml"]):
        done = run_textgen(*command, folder=folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        assert "model.safetensors: its SHA-256 is" in done.stderr


@pytest.mark.fault(7)
def test_a_loss_that_is_no_number_stops_the_run(folder: Path) -> None:
    spoilt = PIPELINE.replace('"gru"', '"relu"')
    spoilt = spoilt.replace('"adamw"', '"sgd"\nlearning_rate = 1e30\nmax_grad_norm = 0')
    (folder / "p.toml").write_text(spoilt)
    done = run_textgen("run", "p.toml", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the loss is nan at step 2 with learning rate 1e+30" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((folder / "runs/p/run.json").read_text())["status"] == "unfinished"
    assert os.listdir(folder / "runs/p/checkpoints") == []


def test_a_run_that_failed_before_its_first_checkpoint_stands_in_nobodys_way(
    tmp_path: Path,
) -> None:
    (tmp_path / "text.txt").write_text(
        "the clock struck nine and nobody came. " * 60, encoding="utf-8"
    )
    (tmp_path / "p.toml").write_text(
        '[corpus]\ntype = "file"\npath = "text.txt"\n[tokenizer]\ntype = "char"\n'
        '[model]\ntype = "rnn"\nhidden_size = 8\n'
        '[trainer]\ntype = "sgd"\nlength = "1 epoch"\norder = "streams"\nbatch_size = 500\n'
        "[generate]\nmax_new_tokens = 5\n",
        encoding="utf-8",
    )
    failed = run_textgen("run", "p.toml", folder=tmp_path)
    assert failed.returncode == 1
    assert "too short for 500 streams" in failed.stderr
    mended = run_textgen("run", "p.toml", "--set", "trainer.batch_size=4", folder=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert (tmp_path / "runs/p/samples.txt").read_text(encoding="utf-8").startswith("=== step ")


def test_a_prompt_that_cannot_be_fed_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(
        "the clock struck nine and nobody came. " * 60, encoding="utf-8"
    )
    (tmp_path / "p.toml").write_text(
        '[corpus]\ntype = "file"\npath = "text.txt"\n[tokenizer]\ntype = "char"\n[model]\ntype = "rnn"\n'
        '[trainer]\ntype = "sgd"\n[generate]\nprompt = "Zoë"\n',
        encoding="utf-8",
    )
    done = run_textgen("run", "p.toml", folder=tmp_path)
    assert done.returncode == 2
    assert "U+00EB" in done.stderr
    assert "training on" not in done.stderr


def test_a_full_disk_under_stdout_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/full")
    done = run_python(
        "-c",
        "import os, sys; os.dup2(os.open('out', os.O_WRONLY), 1); from textgen.cli import main; main(['plugins'])",
        folder=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == "textgen: error: cannot write the output: No space left on device\n"


@pytest.mark.fault(35)
def test_a_model_too_large_for_memory_is_one_line(tmp_path: Path) -> None:
    """A trillion weights: four terabytes, which no allocator grants."""
    (tmp_path / "p.toml").write_text(
        'device = "cpu"\n[corpus]\ntype = "story"\n[tokenizer]\ntype = "char"\n'
        '[model]\ntype = "rnn"\nhidden_size = 1000000\n[trainer]\ntype = "sgd"\n',
        encoding="utf-8",
    )
    done = run_textgen("run", "p.toml", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("textgen: error: out of memory; lower ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.fault(35)
@pytest.mark.gpu
def test_a_model_too_large_for_the_gpu_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        'device = "cuda"\n[corpus]\ntype = "story"\n[tokenizer]\ntype = "char"\n'
        '[model]\ntype = "rnn"\nhidden_size = 1000000\n[trainer]\ntype = "sgd"\n',
        encoding="utf-8",
    )
    done = run_textgen("run", "p.toml", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("textgen: error: out of memory; lower ")
