"""The example pipelines in docs/pipelines run, and show what they promise."""

from pathlib import Path

import pytest

import textgen

PIPELINES = Path(__file__).parents[2] / "docs/pipelines"


@pytest.mark.slow
@pytest.mark.usefixtures("book_cached")
def test_the_seeds_recipe_follows_its_curve(tmp_path):
    """Thirty of its hundred epochs, against the curve that the book printed
    (docs/pictures/seed-loss.csv).

    The book's figures are those of one batch, ours the mean over the 5,000 windows, and the seeds
    differ.
    """
    run = textgen.run(
        PIPELINES / "seed.toml",
        ["device=cpu", "trainer.length=30 epochs"],
        output=tmp_path / "run",
    )
    rows = run.history
    # 10,000 windows in batches of 1,024
    assert [row["step"] for row in rows] == [*range(10, 301, 10)]
    assert textgen.summarize(run.path).parameters == 2_908
    assert rows[0]["validation_loss"] == pytest.approx(2.82, abs=0.15)
    assert rows[-1]["validation_loss"] == pytest.approx(2.06, abs=0.1)
    assert rows[-1]["training_loss"] < rows[-1]["validation_loss"]


@pytest.mark.slow
@pytest.mark.usefixtures("book_cached")
def test_overfit_overfits(tmp_path):
    """Ten epochs at twice the rate are enough to see the two losses part; the whole of it goes on
    to below 0.3.
    """
    overrides = [
        "device=cpu",
        "trainer.length=10 epochs",
        "trainer.learning_rate=8e-3",
        "trainer.decay_share=0",
    ]
    run = textgen.run(PIPELINES / "overfit.toml", overrides, output=tmp_path / "run")
    rows = run.history
    held_out = [row["validation_loss"] for row in rows]
    assert rows[-1]["training_loss"] < 0.8
    assert held_out[-1] > 2
    assert held_out[-1] - min(held_out) > 0.3  # past its lowest, and rising
    best = min(rows, key=lambda row: row["validation_loss"])
    assert run.generator.record["best_step"] == best["step"]
