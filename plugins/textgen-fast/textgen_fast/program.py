"""A layer's steps through time, forward and backward, as functions of machine code for one
shape.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache, lru_cache
from typing import Any, Final

import attrs
import llvmlite.binding as llvm
from llvmlite import ir

from textgen_fast.cells import CELLS, Cell
from textgen_fast.products import Product, Tile
from textgen_fast.vectors import LANES, Array, Number, loop

_COMPILING: Final = threading.Lock()
_KEPT_PROGRAMS: Final = 32  # programs, of some 3 MB each; those in use live on
_HALF_FEATURE: Final = "avx512bf16"
_MATRIX_FEATURE: Final = "amx-bf16"
_FORWARD: Final = (
    "given",
    "rows",
    "weight",
    "packed",
    "bias",
    "hidden",
    "state",
    "saved",
    "recurrent",
)
_BACKWARD: Final = (
    "dy",
    "rows",
    "weight",
    "packed",
    "zeros",
    "state",
    "saved",
    "gradients",
    "sums",
    "carried",
    "dh",
)
_OPERANDS: Final = {
    "given",
    "packed",
    "hidden",
    "dy",
    "gradients",
}  # in bfloat16, if a layer computes in it


@attrs.frozen(eq=False)
class Program:
    """Functions for one kind of cell, B rows and H units, of T and pointers to contiguous arrays in
    the orders above.

    The cell has G gates, S saved vectors and D gradients; N is any number. `given`, `packed`,
    `hidden`, `dy` and `gradients` are of bfloat16 for a program in `half`; `rows` are of int64, and
    all others of float32.

    given      (N, G H), the input's parts of the gates, and `rows` (T, B) which of them each step
               has
    weight     (G H, H), and `packed` as many numbers to put it in another order
    bias       (G H,), and `zeros` (H,)
    hidden     (T + 1, B, H), as `state`; the first step is what was before
    saved      (T, B, S H), from forward to backward
    recurrent  (B, G H), to write in
    dy         (T, B, H), the gradient of `hidden` from the second on
    gradients  (T, B, D H), and `sums` (N, D H) of them, each added to one of its rows, which `rows`
               (T, B) says
    carried    (B, H), as `dh`: to begin with what reaches the last step from behind, in the end the
               gradients of the state and of h before the first
    """

    tile: Tile
    forward: Any
    backward: Any
    engine: Any

    @classmethod
    def of(cls, cell: str, half: bool, rows: int, units: int) -> Program:
        """Compiled once for each shape, in a fifth of a second."""
        with _COMPILING:
            return _compiled(cell, half, rows, units)


@cache
def processor() -> tuple[str, Any]:
    """The name and the features of the processor that this runs on; LLVM cannot tell those of
    each.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        return llvm.get_host_cpu_name(), llvm.get_host_cpu_features()
    except RuntimeError:
        return llvm.get_host_cpu_name(), llvm.FeatureMap()


def has_bfloat16() -> bool:
    """Whether this processor has products of bfloat16."""
    return bool(processor()[1].get(_HALF_FEATURE, False))


def is_fast_in_bfloat16(cell: str) -> bool:
    """Whether a layer in bfloat16 is faster here than torch's, which has an LSTM for the matrix
    unit AMX.
    """
    return has_bfloat16() and not (cell == "lstm" and processor()[1].get(_MATRIX_FEATURE, False))


def tile() -> Tile:
    """The tile with as many sums as there are registers for, of 16 numbers each, or of eight or
    four in two or four registers.
    """
    return Tile(8, 2) if processor()[1].get("avx512f", False) else Tile(4, 1)


@lru_cache(_KEPT_PROGRAMS)
def _compiled(cell: str, half: bool, rows: int, units: int) -> Program:
    name, features = processor()
    writer = _Writer(CELLS[cell], half, rows, units, tile())
    writer.write_forward()
    writer.write_backward()
    module = llvm.parse_assembly(str(writer.module))
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=name, features=features.flatten(), opt=3, jit=True)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    forward, backward = (
        ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * len(names))(
            engine.get_function_address(name)
        )
        for name, names in (("forward", _FORWARD), ("backward", _BACKWARD))
    )
    return Program(tile(), forward, backward, engine)


@attrs.frozen(eq=False)
class _Writer:
    """Writes the two functions into a module of LLVM's intermediate representation."""

    cell: Cell
    half: bool
    rows: int
    units: int
    tile: Tile
    module: Any = attrs.field(factory=ir.Module)

    def write_forward(self) -> None:
        """Write the loop from the first step to the last: a product of all rows, then the cells of
        each row.
        """
        steps, arrays, builder = self._begin("forward", _FORWARD)
        cell, rows, units = self.cell, self.rows, self.units
        width = cell.gates * units
        product = Product(self.tile, rows, units, width)
        hidden, state = arrays["hidden"], arrays["state"]
        product.pack(arrays["weight"], 1, units, arrays["packed"])
        with loop(builder, steps) as t:
            before = hidden.at(t * (rows * units))
            product.write(before, units, arrays["packed"], arrays["bias"], 0, arrays["recurrent"])
            with loop(builder, rows) as row, loop(builder, units, LANES) as unit:
                step_row = t * rows + row
                given = _vectors(
                    arrays["given"].at(arrays["rows"].integer(step_row) * width),
                    unit,
                    units,
                    cell.gates,
                )
                recurrent = _vectors(arrays["recurrent"].at(row * width), unit, units, cell.gates)
                made = cell.forward(given, recurrent, state[step_row * units + unit])
                hidden[(step_row + rows) * units + unit] = made.hidden
                if made.state is not None:
                    state[(step_row + rows) * units + unit] = made.state
                saved = arrays["saved"].at(step_row * (cell.saved * units))
                for i, vector in enumerate(made.saved):
                    saved[unit + i * units] = vector
        builder.ret_void()

    def write_backward(self) -> None:
        """Write the loop from the last step to the first: the cells of each row, then a product of
        all rows.
        """
        steps, arrays, builder = self._begin("backward", _BACKWARD)
        cell, rows, units = self.cell, self.rows, self.units
        width, depth = cell.gradients * units, cell.gates * units
        product = Product(self.tile, rows, depth, units)
        state, carried, dh = arrays["state"], arrays["carried"], arrays["dh"]
        product.pack(arrays["weight"], units, 1, arrays["packed"])
        with loop(builder, steps) as back:
            t = steps + (back + 1) * -1
            with loop(builder, rows) as row, loop(builder, units, LANES) as unit:
                step_row, own = t * rows + row, row * units + unit
                saved = _vectors(
                    arrays["saved"].at(step_row * (cell.saved * units)), unit, units, cell.saved
                )
                before, after = (
                    state[step_row * units + unit],
                    state[(step_row + rows) * units + unit],
                )
                made = cell.backward(
                    saved,
                    arrays["dy"][step_row * units + unit] + dh[own],
                    carried[own],
                    before,
                    after,
                )
                gradients = arrays["gradients"].at(step_row * width)
                sums = arrays["sums"].at(arrays["rows"].integer(step_row) * width)
                for i, vector in enumerate(made.gates):
                    gradients[unit + i * units] = vector
                    sums[unit + i * units] = sums[unit + i * units] + vector
                if made.carried is not None:
                    carried[own] = made.carried
            recurrent = arrays["gradients"].at(t * (rows * width) + (width - depth))
            start, start_width = (carried, units) if cell.adds_carried else (arrays["zeros"], 0)
            product.write(recurrent, width, arrays["packed"], start, start_width, dh)
        builder.ret_void()

    def _begin(self, name: str, names: tuple[str, ...]) -> tuple[Any, dict[str, Array], Any]:
        """The number of steps, the arrays by name, and what writes the function's instructions."""
        pointers = [ir.PointerType()] * len(names)
        function = ir.Function(
            self.module, ir.FunctionType(ir.VoidType(), [ir.IntType(64), *pointers]), name
        )
        for pointer in function.args[1:]:
            pointer.add_attribute("noalias")
        builder = ir.IRBuilder(function.append_basic_block())
        arrays = {
            name: Array(
                builder,
                pointer,
                8 if name == "rows" else 2 if self.half and name in _OPERANDS else 4,
            )
            for name, pointer in zip(names, function.args[1:], strict=True)
        }
        return Number(builder, function.args[0]), arrays, builder


def _vectors(array: Array, first: Any, apart: int, count: int) -> list[Any]:
    """Vectors of an array, `apart` numbers after each other."""
    return [array[first + i * apart] for i in range(count)]
