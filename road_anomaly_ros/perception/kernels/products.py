# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Matrix products whose sums stay in registers (importing this needs numba).

LLVM vectorises a loop over columns but loads and stores every sum for each few terms. Here the
loop over the terms is written down in LLVM's own language, around sums of a few rows and columns.
They begin at zero: what is summed part by part loses less to rounding than one long sum.

With plain loops of numba instead, the whole dense pass takes 1.4 (`s2`) to 1.6 (`plain`) times as
long. Vectors are 16 wide whatever the processor: LLVM cuts them to size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from road_anomaly_ros.perception.kernels.arithmetic import Array, jit

WIDTH = 16
ROWS = 4


def _vectors() -> int:
    """Return how many vectors of sums fit beside ROWS; AVX2 and NEON hold a quarter of AVX-512."""
    try:
        return 4 if binding.get_host_cpu_features().get('avx512f', False) else 1
    except RuntimeError:  # LLVM cannot tell on this system
        return 1


_VECTORS = _vectors()

_I64, _FLOAT = ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_SPREAD = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)


def _times(builder: Any, line: Any, term: Any, right: Sequence[Any], sums: Sequence[Any]) -> Any:
    """Return sums [vectors] plus one element of a row of a, times the vectors of a row of b."""
    # Unlike llvm.fma this is no call of the C library where there is no such instruction.
    fused = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f'llvm.fmuladd.v{WIDTH}f32'
    )
    single = builder.load(builder.gep(line, [term]))
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    left = builder.insert_element(undefined, single, ir.IntType(32)(0))
    left = builder.shuffle_vector(left, undefined, _SPREAD)
    return [builder.call(fused, [left, *pair]) for pair in zip(right, sums, strict=True)]


def _write(
    builder: Any, rows: int, vectors: int, starts: Sequence[Any], steps: Sequence[Any], count: Any
) -> None:
    """Write the loop over `count` terms; `starts` and `steps` of rows are of a, b and out."""
    wide = _VECTOR.as_pointer()

    def rows_of(start: Any, step: Any) -> list[Any]:
        return [builder.gep(start, [builder.mul(step, _I64(row))]) for row in range(rows)]

    def vectors_of(start: Any) -> list[Any]:
        return [
            builder.bitcast(builder.gep(start, [_I64(WIDTH * vector)]), wide)
            for vector in range(vectors)
        ]

    places = [place for row in rows_of(starts[2], steps[2]) for place in vectors_of(row)]
    before, loop = builder.block, builder.append_basic_block('terms')
    after = builder.append_basic_block('stored')
    builder.branch(loop)
    builder.position_at_end(loop)
    term, row = builder.phi(_I64), builder.phi(starts[1].type)
    term.add_incoming(_I64(0), before)
    row.add_incoming(starts[1], before)
    sums = [builder.phi(_VECTOR) for _ in places]
    right = [builder.load(place, align=4) for place in vectors_of(row)]
    added: list[Any] = []
    for line in rows_of(starts[0], steps[0]):
        before_it = sums[len(added) : len(added) + vectors]
        added += _times(builder, line, term, right, before_it)
    following = builder.add(term, _I64(1))
    term.add_incoming(following, loop)
    row.add_incoming(builder.gep(row, [steps[1]]), loop)
    for total, later in zip(sums, added, strict=True):
        total.add_incoming(ir.Constant(_VECTOR, [0.0] * WIDTH), before)
        total.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed('<', following, count), loop, after)
    builder.position_at_end(after)
    for place, value in zip(places, added, strict=True):
        builder.store(builder.fadd(builder.load(place, align=4), value), place, align=4)


def _tile(rows: int, vectors: int) -> Callable[..., Any]:
    """Return the product of `rows` rows and `vectors` times WIDTH columns."""

    @intrinsic
    def add(
        typing: Any,
        a: Any,
        at_a: Any,
        step_a: Any,
        b: Any,
        at_b: Any,
        step_b: Any,
        terms: Any,
        out: Any,
        at_out: Any,
        step_out: Any,
    ) -> Any:
        """Add to the tile of `out` that begins at element `at_out`; its rows are `step_out` apart.

        Likewise for the other two, of `terms` columns and rows; at least one. Unchecked.
        """
        number = types.intp
        signature = types.void(a, number, number, b, number, number, number, out, number, number)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            starts = []
            for place in (0, 3, 7):
                kind = signature.args[place]
                data = context.make_array(kind)(context, builder, arguments[place]).data
                starts.append(builder.gep(data, [arguments[place + 1]]))
            steps = arguments[2], arguments[5], arguments[9]
            _write(builder, rows, vectors, starts, steps, arguments[6])
            return context.get_dummy_value()

        return signature, generate

    return add


_block, _column = _tile(ROWS, _VECTORS), _tile(ROWS, 1)
_single = _tile(1, 1)
_LANES = min(2, _VECTORS)
_narrow, _line = _tile(ROWS, _LANES), _tile(1, _LANES)
_TERMS = 128  # rows of a thin matrix that stay in the first cache level


@jit()
def add_product(a: Array, b: Array, begin: int, terms: int, width: int, out: Array) -> None:
    """Add a[:,begin:begin+terms] @ b[:terms] to out, first `width` columns; rows of C order.

    There are whole ROWS rows of `a` and `out`, `width` is a multiple of 64.
    """
    if terms > 0:
        left, right, to = a.shape[1], b.shape[1], out.shape[1]
        for row in range(0, a.shape[0], ROWS):
            for x in range(0, width, _VECTORS * WIDTH):
                _block(a, row * left + begin, left, b, x, right, terms, out, row * to + x, to)


@jit()
def add_resized(
    planes: Array, chosen: Array, at: int, weights: Array, out: Array, column: int
) -> None:
    """Add to WIDTH columns of `out` [n,...] the elements from `at` on of chosen planes, weighed.

    `planes` [Q,h,w] and `weights` [m,WIDTH] are of C order.
    """
    size, to, terms = planes.shape[1] * planes.shape[2], out.shape[1], weights.shape[0]
    i = 0
    while i < chosen.size:
        start = chosen[i] * size + at
        if i + ROWS <= chosen.size and chosen[i + ROWS - 1] == chosen[i] + ROWS - 1:
            _column(planes, start, size, weights, 0, WIDTH, terms, out, i * to + column, to)
            i += ROWS
        else:
            _single(planes, start, size, weights, 0, WIDTH, terms, out, i * to + column, to)
            i += 1


@jit()
def add_thin(a: Array, b: Array, begin: int, end: int, out: Array) -> None:
    """Add a[begin:end] @ b to out[begin:end]; `b` [m,x] is thin, x a multiple of WIDTH."""
    left, right, to = a.shape[1], b.shape[1], out.shape[1]
    wide = right - right % (_LANES * WIDTH)
    for term in range(0, left, _TERMS):
        terms = min(_TERMS, left - term)
        for x in range(0, wide, _LANES * WIDTH):
            start, row = term * right + x, begin
            while row + ROWS <= end:
                _narrow(a, row * left + term, left, b, start, right, terms, out, row * to + x, to)
                row += ROWS
            while row < end:
                _line(a, row * left + term, left, b, start, right, terms, out, row * to + x, to)
                row += 1
        for x in range(wide, right, WIDTH):
            start, row = term * right + x, begin
            while row + ROWS <= end:
                _column(a, row * left + term, left, b, start, right, terms, out, row * to + x, to)
                row += ROWS
            while row < end:
                _single(a, row * left + term, left, b, start, right, terms, out, row * to + x, to)
                row += 1
