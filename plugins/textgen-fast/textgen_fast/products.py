"""The product of a few rows and a matrix: most of a recurrent layer's time."""

from __future__ import annotations

import itertools
from typing import Any

import attrs

from textgen_fast.vectors import (
    LANES,
    Array,
    Index,
    Vector,
    loop,
    multiply_add,
)


@attrs.frozen
class Tile:
    """A block that is computed at a time, as many sums as there are registers for: rows, and
    vectors of columns.
    """

    rows: int
    vectors: int

    @property
    def columns(self) -> int:
        """The numbers in its vectors."""
        return self.vectors * LANES


@attrs.frozen
class Product:
    """(rows, depth) times (depth, columns), a tile at a time.

    The weights lie in panels (columns / tile.columns, depth, tile.columns), so that they are read
    in their order; in bfloat16 (columns / tile.columns, depth / 2, tile.columns, 2), since two
    numbers are multiplied at a time.
    """

    tile: Tile
    rows: int
    depth: int
    columns: int

    def pack(self, weight: Array, row: int, column: int, packed: Array) -> None:
        """Put a matrix of float32, whose rows and columns begin so far apart, in panels."""
        step = 2 if packed.half else 1
        builder = packed.builder
        with (
            loop(builder, self.columns, self.tile.columns) as left,
            loop(builder, self.depth, step) as top,
        ):
            for vector in range(self.tile.vectors):
                first = top * row + (left + vector * LANES) * column
                indices = [first + i * row for i in range(step)]
                values = [
                    weight[index] if column == 1 else weight.gathered(index, column)
                    for index in indices
                ]
                packed.write_weights(
                    left * self.depth + top * self.tile.columns + vector * LANES * step, values
                )

    def write(
        self, a: Array, a_width: int, weights: Array, start: Array, start_width: int, made: Array
    ) -> None:
        """made (rows, columns) = start + a @ weights.

        Rows of a and start lie `a_width` and `start_width` apart.
        """
        builder, whole = made.builder, self.rows // self.tile.rows * self.tile.rows

        def write_rows(row: Index, count: int) -> None:
            tile_start, tile_made = (
                start.at(row * start_width + column),
                made.at(row * self.columns + column),
            )
            self._write_tile(
                count, a.at(row * a_width), a_width, panel, tile_start, start_width, tile_made
            )

        with loop(builder, self.columns, self.tile.columns) as column:
            panel = weights.at(column * self.depth)
            if whole:
                with loop(builder, whole, self.tile.rows) as row:
                    write_rows(row, self.tile.rows)
            if whole < self.rows:
                write_rows(whole, self.rows - whole)

    def _write_tile(
        self,
        rows: int,
        a: Array,
        a_width: int,
        panel: Array,
        start: Array,
        start_width: int,
        made: Array,
    ) -> None:
        """One tile of so many rows."""
        builder, vectors, step = made.builder, range(self.tile.vectors), 2 if a.half else 1
        totals: dict[tuple[int, int], Any] = {}
        for row, vector in itertools.product(range(rows), vectors):
            totals[row, vector] = start[row * start_width + vector * LANES].value
        with loop(builder, self.depth, step, carried=totals) as depth:
            index = depth * self.tile.columns
            weights = [panel.weights(index + vector * LANES * step) for vector in vectors]
            for row in range(rows):
                repeated = a.repeated(depth + row * a_width)
                for vector in vectors:
                    key = row, vector
                    totals[key] = multiply_add(
                        builder, totals[key], weights[vector], repeated, half=a.half
                    )
        for (row, vector), total in totals.items():
            made[row * self.columns + vector * LANES] = Vector(builder, total)
