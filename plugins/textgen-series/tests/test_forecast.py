"""`textgen run` and `textgen forecast`, from outside."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from textgen_series import linear

import textgen as library

FAST = ("--samples", 25)


@pytest.fixture(scope="module")
def report(textgen, run):
    return json.loads(textgen("forecast", run, "--json", *FAST).stdout)


def test_the_model_holds_its_own_beside_the_regression(report):
    assert [row["k"] for row in report["results"]] == [1, 4, 16, 64]
    assert [row["targets"] for row in report["results"]] == [400, 397, 385, 337]
    assert (report["values"], report["training_values"], report["context"]) == (1000, 600, 16)
    one = report["results"][0]
    assert (
        one["fed_back"] == one["sampled"]
    )  # one step ahead nothing is fed back, and nothing has been drawn
    assert 0.19 < one["fed_back"]["rmse"] < 0.24  # no forecast is better than the noise, 0.2
    for row in report["results"]:
        assert row["fed_back"]["rmse"] < 1.15 * row["linear"]["rmse"]
        assert row["sampled"]["rmse"] < 1.15 * row["linear"]["rmse"]
        assert row["fed_back"]["mae"] < row["fed_back"]["rmse"]
        assert 0.65 < row["inside_band"] < 0.95


def test_the_regression_is_fitted_on_the_training_values_and_fed_back(report):
    text = "".join(library.Engine().read_corpus({"type": "series"}))
    values = np.array([float(line) for line in text.splitlines()])
    design = np.array([[*values[t - 4 : t], 1] for t in range(4, 600)])
    solution = np.linalg.lstsq(design, values[4:600], rcond=None)[0]
    np.testing.assert_allclose(linear.fit(values[:600], 4), solution)
    for row in report["results"]:
        errors = []
        for target in range(599 + row["k"], 1000):
            known = list(values[target - row["k"] - 3 : target - row["k"] + 1])
            for _ in range(row["k"]):
                known.append(float(np.dot([*known[-4:], 1], solution)))
            errors.append(known[-1] - values[target])
        assert row["linear"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
        assert row["linear"]["mae"] == pytest.approx(np.mean(np.abs(errors)))


def test_the_models_forecast_is_its_mean_fed_back(report, run):
    generator = library.load(run)
    text = "".join(library.Engine().read_corpus({"type": "series"}))
    values = np.array([float(line) for line in text.splitlines()])
    ids = generator.tokenizer.encode(text)

    def by_hand(origin, steps):
        decoder = generator.model.decoder(1)
        feed = ids[origin - 15 : origin + 1]
        for _ in range(steps):
            logits = np.asarray(decoder.extend(feed[None]))[0].astype(float)
            weights = np.exp(logits - logits.max())
            mean = weights @ generator.tokenizer.centres / weights.sum()
            feed = generator.tokenizer.encode(f"{float(mean)!r}\n")
        return mean

    for row in report["results"][:2]:
        errors = [
            by_hand(target - row["k"], row["k"]) - values[target]
            for target in range(599 + row["k"], 1000)
        ]
        assert row["fed_back"]["rmse"] == pytest.approx(
            np.sqrt(np.mean(np.square(errors))), rel=1e-3
        )


def test_the_table_shows_the_same_numbers_and_the_plot_has_a_panel_for_each_k(
    textgen, run, report, tmp_path
):
    done = textgen("forecast", run, *FAST, "--output", tmp_path / "plot.svg")
    rows = [line.split() for line in done.stdout.splitlines()[4:]]
    for row, expected in zip(rows, report["results"], strict=True):
        assert int(row[0]) == expected["k"]
        assert float(row[2]) == pytest.approx(expected["fed_back"]["rmse"], abs=1e-4)
        assert float(row[6]) == pytest.approx(expected["linear"]["rmse"], abs=1e-4)
    svg = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in svg
    titles = [
        e.text
        for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}tspan")
        if e.get("class") == "title"
    ]
    assert titles == ["1 step ahead", "4 steps ahead", "16 steps ahead", "64 steps ahead"]
    assert svg == (run / "forecast.svg").read_text(
        encoding="utf-8"
    )  # drawn there without --output, from equal draws


def test_options_reach_the_forecast(textgen, run, report, tmp_path):
    options = (
        "--steps",
        "8, 2",
        "--lags",
        9,
        "--context",
        5,
        "--band",
        0.5,
        "--seed",
        3,
        "--output",
        tmp_path / "p.svg",
    )
    made = json.loads(textgen("forecast", run, "--json", *FAST, *options).stdout)
    assert [row["k"] for row in made["results"]] == [2, 8]
    assert {key: made[key] for key in ("lags", "context", "band", "seed", "samples")} == {
        "lags": 9, "context": 5, "band": 0.5, "seed": 3, "samples": 25
    }  # fmt: skip
    assert made["results"][0]["inside_band"] < report["results"][1]["inside_band"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "1,zero"), "--steps must be whole numbers"),
        (("--steps", "401"), "400 values after the 600 that the run trained on"),
        (("--context", 601), "--context 601 is more than the 600 values"),
        (("--lags", 300), "--lags 300 needs 601 training values; there are 600"),
        (("--output", "/nonexistent/plot.svg", *FAST), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_an_error_in_one_line(textgen, run, options, message):
    done = textgen("forecast", run, *options, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_run_of_another_tokenizer_is_refused(textgen, tmp_path):
    (tmp_path / "text.txt").write_text("to and fro " * 30, encoding="utf-8")
    (tmp_path / "p.toml").write_text(
        """
        corpus = {type = "file", path = "text.txt"}
        tokenizer = {type = "char"}
        model = {type = "rnn", hidden_size = 2}
        trainer = {type = "sgd", length = "1 epoch"}
        data = {window_length = 4}
        """,
        encoding="utf-8",
    )
    library.run(tmp_path / "p.toml", output=tmp_path / "run")
    assert "must be 'bins'" in textgen("forecast", tmp_path / "run", code=2).stderr
    assert "is not a run directory" in textgen("forecast", tmp_path / "none", code=2).stderr


def test_a_csv_column_trains_generates_and_forecasts(textgen, tmp_path):
    values = np.cos(0.3 * np.arange(300))
    rows = "".join(f"{i},{value}\n" for i, value in enumerate(values))
    (tmp_path / "tide.csv").write_text("hour,level\n" + rows, encoding="utf-8")
    (tmp_path / "tide.toml").write_text(
        """
        corpus = {type = "series", path = "tide.csv", column = "level"}
        tokenizer = {type = "bins", bins = 16, spacing = "quantile"}
        model = {type = "rnn", cell = "gru", hidden_size = 16, embedding_size = 4}
        trainer = {type = "adamw", length = "1 epoch", batch_size = 16, learning_rate = 0.01}
        data = {window_length = 8, window_stride = 1, validation = 0.3}
        generate = {prompt = "1.0\\n0.9\\n", max_new_tokens = 3}
        """,
        encoding="utf-8",
    )
    done = textgen("run", tmp_path / "tide.toml", "--output", tmp_path / "run")
    written = [float(line) for line in done.stdout.split()]
    assert written[:2] == [1.0, 0.9]
    assert len(written) == 5
    (tmp_path / "tide.toml").unlink()  # the run directory is all that is needed, and the data
    results = json.loads(
        textgen("forecast", tmp_path / "run", "--json", "--steps", "1,3", *FAST).stdout
    )["results"]
    assert [row["targets"] for row in results] == [90, 88]
    assert results[0]["linear"]["rmse"] < 1e-6  # a cosine is a linear recurrence of two lags
