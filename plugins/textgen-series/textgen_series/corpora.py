"""Series as text: a noisy sine, and a column of a CSV file."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import numpy as np

from textgen import CorpusError
from textgen_series import SeriesConfig
from textgen_series.numbers import parse, to_text

# The engine tries a tokenizer on the first 2,000 characters of the first piece. Pieces shorter than
# that are never cut inside a number.
_PIECE: Final = 64


@attrs.frozen
class NoisySine:
    """textgen.protocols.Corpus of x(t) = sin(frequency t) + noise e(t), t = 1 to length."""

    config: SeriesConfig

    def read(self) -> Iterator[str]:
        """Yield 64 values at a time."""
        config = self.config
        generator = np.random.default_rng(config.seed)
        for start in range(1, config.length + 1, _PIECE):
            t = np.arange(start, min(start + _PIECE, config.length + 1))
            values = np.sin(config.frequency * t) + config.noise * generator.standard_normal(len(t))
            yield to_text(values.tolist())


@attrs.frozen
class CSVColumn:
    """textgen.protocols.Corpus of the numbers in one column of the CSV file `path`."""

    config: SeriesConfig
    path: Path

    def sources(self) -> list[Path]:
        """The file."""
        return [self.path]

    def read(self) -> Iterator[str]:
        """Yield 64 values at a time. Raises CorpusError naming file and line."""
        values = self._values()
        while block := list(itertools.islice(values, _PIECE)):
            yield to_text(block)

    def _values(self) -> Iterator[float]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.reader(file, delimiter=self.config.delimiter, strict=True)
                numbered = ((rows.line_num, row) for row in rows if row)
                yield from self._numbers(numbered)
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"it is not UTF-8 ({error.reason}); save it as UTF-8", self.path
            ) from error
        except csv.Error as error:
            raise self._error(f"is not CSV: {error}", rows.line_num) from error
        except OSError as error:
            raise CorpusError(f"cannot be read: {error.strerror or error}", self.path) from error

    def _numbers(self, rows: Iterator[tuple[int, list[str]]]) -> Iterator[float]:
        """The numbers in the column; a first row that has none in this column is a row of names."""
        column = self.config.column
        index = column - 1 if isinstance(column, int) else -1
        for number, (line, row) in enumerate(rows):
            if number == 0 and isinstance(column, str):
                index = self._find(column, row)
                continue
            if len(row) <= index:
                raise self._error(f"has {len(row)} columns, and column {column!r} is wanted", line)
            try:
                yield parse(row[index])
            except ValueError:
                if number:
                    text = f"{row[index][:40]!r} in column {column!r} is not a finite number"
                    raise self._error(text, line) from None

    def _find(self, column: str, names: list[str]) -> int:
        stripped = [name.strip() for name in names]
        if column not in stripped:
            shown = ", ".join(map(repr, stripped[:10]))
            raise CorpusError(f"it has no column {column!r}; its first row has {shown}", self.path)
        return stripped.index(column)

    def _error(self, text: str, line: int) -> CorpusError:
        return CorpusError(f"line {line}: {text}", self.path)
