"""The corpus: the sine of the book, and CSV columns."""

from pathlib import Path

import numpy as np
import pytest

from textgen import CorpusError, Engine, PipelineError


def values(**options):
    text = "".join(Engine().read_corpus({"type": "series", **options}))
    return [float(line) for line in text.splitlines()]


def test_the_sine_is_the_books():
    t = np.arange(1, 1001)
    made = np.array(values())
    assert len(made) == 1000
    noise = (made - np.sin(0.01 * t)) / 0.2
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1) < 0.1
    assert values(noise=0, length=150, frequency=0.1) == np.sin(0.1 * t[:150]).tolist()
    assert values() == made.tolist()
    assert values(seed=1) != made.tolist()


@pytest.fixture
def csv_file(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "data.csv"
        path.write_bytes(text.encode(encoding))
        return str(path)

    return write


def test_a_column_comes_by_number_or_name_and_digit_for_digit(csv_file):
    path = csv_file(
        'date;"level; m"\n2026-01-01;0.1\n\n2026-01-02; 1e-300 \r\n2026-01-03;0.30000000000000004\n'
    )
    for column in (2, "level; m"):
        assert values(path=path, column=column, delimiter=";") == [0.1, 1e-300, 0.30000000000000004]


def test_a_first_row_of_numbers_counts(csv_file):
    assert values(path=csv_file("1\n2\n")) == [1, 2]
    assert values(path=csv_file("\ufeff1\n2\n")) == [1, 2]
    assert len(values(path=csv_file("x\n" + "5\n" * 200))) == 200


@pytest.mark.parametrize(
    ("text", "options", "fault"),
    [
        ("x\n1\nnan\n", {}, "line 3: 'nan' in column 1"),
        ("x,y\n1,2\n\n3,\n", {"column": "y"}, "line 4: '' in column 'y'"),
        ("1,2\n3\n", {"column": 2}, "line 2: "),
        ("x,y\n1,2\n", {"column": "z"}, "'z'"),
        ('1\n"2\n', {}, "line 2: "),
    ],
)
def test_a_bad_file_is_an_error_with_its_line(csv_file, text, options, fault):
    path = csv_file(text)
    with pytest.raises(CorpusError, match=fault) as caught:
        values(path=path, **options)
    assert caught.value.path == Path(path)


def test_a_file_that_cannot_be_read_is_an_error(csv_file, tmp_path):
    with pytest.raises(CorpusError) as caught:
        values(path=str(tmp_path / "none.csv"))
    assert caught.value.path == tmp_path / "none.csv"
    path = csv_file("é\n1\n", encoding="latin-1")
    with pytest.raises(CorpusError) as caught:
        values(path=path)
    assert caught.value.path == Path(path)


@pytest.mark.parametrize(
    "options", [{"column": 0}, {"length": 0}, {"noise": -1}, {"seed": -1}, {"delimiter": ";;"}]
)
def test_options_out_of_range_are_faults_of_the_pipeline(options):
    with pytest.raises(PipelineError) as caught:
        values(**options)
    assert caught.value.argument.startswith("corpus")
