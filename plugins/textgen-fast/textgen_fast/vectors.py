"""Vectors of float32 in code that LLVM compiles: arithmetic, arrays and loops.

What is written with these classes in Python is not computed but noted down, as LLVM's intermediate
representation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import attrs
from llvmlite import ir

LANES: Final = 16  # numbers of a vector; processors with narrower registers take several for one

Index: TypeAlias = Any
"""An int, or a Number that is known when the code runs."""

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS, _INTS, _SHORTS = (ir.VectorType(part, LANES) for part in (_F32, _I32, _I16))
_DOT: Final = "llvm.x86.avx512bf16.dpbf16ps.512"
# 2 to the power of f for f from -1/2 to 1/2: the Taylor series, with an error below 2e-7.
_POWER: Final = (
    1.5403530e-4,
    1.3333558e-3,
    9.6181291e-3,
    5.5504109e-2,
    2.4022651e-1,
    6.9314718e-1,
    1.0,
)
_ROUND: Final = (
    12582912.0  # 1.5 * 2 ** 23: added to a small number, it leaves its integer in the lowest bits
)
_ROUND_BITS: Final = 0x4B400000


class _BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's type, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash("bfloat")


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


@attrs.frozen(eq=False)
class Number:
    """An integer of 64 bits."""

    builder: Any
    value: Any

    def __add__(self, other: Index) -> Number:
        return Number(self.builder, self.builder.add(self.value, _int64(other)))

    def __mul__(self, other: Index) -> Number:
        return Number(self.builder, self.builder.mul(self.value, _int64(other)))

    __radd__, __rmul__ = __add__, __mul__


@attrs.frozen(eq=False)
class Vector:
    """LANES numbers of float32. Multiplications and additions may be fused; NaN stays NaN."""

    builder: Any
    value: Any

    def __add__(self, other: Vector | float) -> Vector:
        return Vector(
            self.builder, self.builder.fadd(self.value, _floats(other), flags=("contract",))
        )

    def __sub__(self, other: Vector | float) -> Vector:
        return Vector(
            self.builder, self.builder.fsub(self.value, _floats(other), flags=("contract",))
        )

    def __rsub__(self, other: float) -> Vector:
        return Vector(
            self.builder, self.builder.fsub(_floats(other), self.value, flags=("contract",))
        )

    def __mul__(self, other: Vector | float) -> Vector:
        return Vector(
            self.builder, self.builder.fmul(self.value, _floats(other), flags=("contract",))
        )

    def __rtruediv__(self, other: float) -> Vector:
        return Vector(self.builder, self.builder.fdiv(_floats(other), self.value))

    __radd__, __rmul__ = __add__, __mul__

    def where(self, comparison: str, limit: float, then: Vector | float) -> Vector:
        """`then` where the comparison with `limit` holds, which it never does for NaN, and this
        elsewhere.
        """
        holds = self.builder.fcmp_ordered(comparison, self.value, _floats(limit))
        return Vector(self.builder, self.builder.select(holds, _floats(then), self.value))


def exp(x: Vector) -> Vector:
    """e to the power of `x`, cut off at 87 either way, within 3e-7 of it as a share."""
    builder = x.builder
    x = x.where("<", -87.0, -87.0).where(">", 87.0, 87.0)
    shifted = x * 1.4426950408889634 + _ROUND
    fraction = x * 1.4426950408889634 - (shifted - _ROUND)
    power = Vector(builder, _floats(_POWER[0]))
    for factor in _POWER[1:]:
        power = power * fraction + factor
    integer = builder.add(builder.bitcast(shifted.value, _INTS), _ints(127 - _ROUND_BITS))
    return power * Vector(builder, builder.bitcast(builder.shl(integer, _ints(23)), _FLOATS))


def sigmoid(x: Vector) -> Vector:
    """1 / (1 + exp(-x))."""
    return 1.0 / (exp(0.0 - x) + 1.0)


def tanh(x: Vector) -> Vector:
    """2 sigmoid(2x) - 1."""
    return sigmoid(x + x) * 2.0 - 1.0


@attrs.frozen(eq=False)
class Array:
    """Numbers in memory, of so many bytes: 2 for bfloat16, 4 for float32, both read and written as
    vectors of float32; 8 for integers.
    """

    builder: Any
    pointer: Any
    bytes: int

    @property
    def half(self) -> bool:
        """Whether they are bfloat16."""
        return self.bytes == 2

    def at(self, index: Index) -> Array:
        """The array from this index on."""
        offset = self.builder.mul(_int64(index), ir.Constant(_I64, self.bytes))
        return attrs.evolve(
            self, pointer=self.builder.gep(self.pointer, [offset], source_etype=ir.IntType(8))
        )

    def __getitem__(self, index: Index) -> Vector:
        made = self._load(index, _SHORTS if self.half else _FLOATS)
        if self.half:
            made = self.builder.shl(self.builder.zext(made, _INTS), _ints(16))
            made = self.builder.bitcast(made, _FLOATS)
        return Vector(self.builder, made)

    def __setitem__(self, index: Index, vector: Vector) -> None:
        builder, value = self.builder, vector.value
        if self.half:
            value = builder.trunc(builder.lshr(_rounded(vector), _ints(16)), _SHORTS)
        builder.store(value, self.at(index).pointer, align=self.bytes)

    def gathered(self, index: Index, apart: int) -> Vector:
        """Float32 numbers that lie so far apart."""
        vector = ir.Constant(_FLOATS, ir.Undefined)
        for lane in range(LANES):
            number = self._load(index + lane * apart, _F32)
            vector = self.builder.insert_element(vector, number, ir.Constant(_I32, lane))
        return Vector(self.builder, vector)

    def write_weights(self, index: Index, vectors: Sequence[Vector]) -> None:
        """Store a vector, or for bfloat16 the numbers of two in turns."""
        if not self.half:
            (self[index],) = vectors
            return
        lower, upper = map(_rounded, vectors)
        pairs = self.builder.or_(
            self.builder.and_(upper, _ints(0xFFFF0000)), self.builder.lshr(lower, _ints(16))
        )
        self.builder.store(pairs, self.at(index).pointer, align=self.bytes)

    def integer(self, index: Index) -> Number:
        """One of the integers."""
        return Number(self.builder, self._load(index, _I64))

    def weights(self, index: Index) -> Any:
        """A vector of weights: for bfloat16, of pairs."""
        return self._load(index, _INTS if self.half else _FLOATS)

    def repeated(self, index: Index) -> Any:
        """The number at `index` in each lane: for bfloat16, it and the next."""
        kind = _INTS if self.half else _FLOATS
        undefined = ir.Constant(kind, ir.Undefined)
        single = self.builder.insert_element(
            undefined, self._load(index, kind.element), ir.Constant(_I32, 0)
        )
        return self.builder.shuffle_vector(single, undefined, _ints(0))

    def _load(self, index: Index, kind: Any) -> Any:
        return self.builder.load(self.at(index).pointer, typ=kind, align=self.bytes)


@contextlib.contextmanager
def loop(
    builder: Any, count: Index, step: int = 1, carried: dict[Any, Any] | None = None
) -> Iterator[Number]:
    """The numbers 0, `step`, ... below `count`, for each of which the code within runs.

    carried  values that the code within changes; each turn begins with what the one before it made.
             With any, the code runs at least once
    """
    carried = {} if carried is None else carried
    before, body, after = builder.block, *(builder.function.append_basic_block() for _ in range(2))
    start = _int64(0)
    if carried:
        builder.branch(body)
    else:
        builder.cbranch(builder.icmp_signed("<", start, _int64(count)), body, after)
    builder.position_at_end(body)
    index = builder.phi(_I64)
    index.add_incoming(start, before)
    changing = {key: builder.phi(value.type) for key, value in carried.items()}
    for key, value in carried.items():
        changing[key].add_incoming(value, before)
    carried.update(changing)
    yield Number(builder, index)
    following = builder.add(index, _int64(step))
    index.add_incoming(following, builder.block)
    for key, value in carried.items():
        changing[key].add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, _int64(count)), body, after)
    builder.position_at_end(after)


def multiply_add(builder: Any, total: Any, weights: Any, repeated: Any, *, half: bool) -> Any:
    """total + weights * repeated, in float32: for bfloat16, of both of a pair."""
    name, arguments = "llvm.fma.v16f32", [weights, repeated, total]
    if half:
        name, arguments = (
            _DOT,
            [total, builder.bitcast(weights, _PAIRS), builder.bitcast(repeated, _PAIRS)],
        )
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(
            builder.module, ir.FunctionType(_FLOATS, [part.type for part in arguments]), name
        )
    return builder.call(function, arguments)


def _rounded(vector: Vector) -> Any:
    """Bits whose upper half is the nearest bfloat16, the even one if there are two; a NaN is one
    afterwards.
    """
    builder = vector.builder
    bits = builder.bitcast(vector.value, _INTS)
    last = builder.and_(builder.lshr(bits, _ints(16)), _ints(1))
    rounded = builder.add(bits, builder.add(last, _ints(0x7FFF)))
    is_number = builder.fcmp_ordered("ord", vector.value, vector.value)
    return builder.select(is_number, rounded, _ints(0x7FC00000))


def _int64(value: Index) -> Any:
    return value.value if isinstance(value, Number) else ir.Constant(_I64, value)


def _floats(value: Vector | float) -> Any:
    return (
        value.value
        if isinstance(value, Vector)
        else ir.Constant(_FLOATS, [ir.Constant(_F32, value)] * LANES)
    )


def _ints(value: int) -> Any:
    return ir.Constant(_INTS, [ir.Constant(_I32, value)] * LANES)
