"""Arithmetic that LLVM can vectorise: exp, log, relax, sqrt and select, emitted in line as plain LLVM operations.

numba's pip wheels carry no vector mathematics library, so a call of `math.exp` in a loop keeps the whole loop scalar. These
intrinsics are range reduction, a polynomial and bit casts, without calls or branches. They take float32 or float64 scalars (every
argument of one call of the same type) and return that type. Relative error, tested: 2e-7 in float32, 1e-15 in float64.

Arguments outside the range of the type are clamped: exp saturates at about 1e+-38 (float32) and 1e+-308 (float64).
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from solvers.kernels.math_fit import exp_tail_coefficients, log_tail_coefficients


class _Format:
    """What differs between the two IEEE formats."""

    def __init__(self, kind: types.Float) -> None:
        single = kind == types.float32
        self.real: ir.Type = ir.FloatType() if single else ir.DoubleType()
        self.integer = ir.IntType(32 if single else 64)
        self.mantissa_bits = 23 if single else 52
        self.one_bits = (127 << 23) if single else (1023 << 52)
        # adding and subtracting 1.5 * 2^mantissa rounds to the nearest integer and leaves that integer in the low bits
        self.magic = 1.5 * 2.0**self.mantissa_bits
        self.exp_low, self.exp_high = (-87.0, 88.0) if single else (-708.0, 709.0)
        # ln 2 in two parts, the first with enough trailing zero bits that its product with the exponent is exact
        self.ln2_high = 0.693359375 if single else 6.93147180369123816490e-01
        self.ln2_low = math.log(2.0) - 0.693359375 if single else 1.90821492927058770002e-10
        self.exp_tail = exp_tail_coefficients(5 if single else 11)
        self.log_tail = log_tail_coefficients(4 if single else 9)

    def const(self, value: float) -> ir.Constant:
        return ir.Constant(self.real, value)


class _Emit:
    """Short names for the few operations that the functions below are made of."""

    def __init__(self, builder: ir.IRBuilder, kind: types.Float) -> None:
        self.b, self.f = builder, _Format(kind)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """X*y + z, fused where the machine can (never a library call)."""
        name = "llvm.fmuladd." + ("f32" if self.f.mantissa_bits == 23 else "f64")
        kind = ir.FunctionType(self.f.real, [self.f.real] * 3)
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return self.b.call(function, [x, y, z])

    def horner(self, x: Any, coefficients: tuple[float, ...]) -> Any:
        """Polynomial with the constant term first."""
        value = self.f.const(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            value = self.fma(value, x, self.f.const(c))
        return value

    def clamp(self, x: Any, low: float, high: float) -> Any:
        # unordered comparisons are false for NaN with "olt"/"ogt", so NaN passes through and stays visible
        x = self.b.select(self.b.fcmp_ordered("<", x, self.f.const(low)), self.f.const(low), x)
        return self.b.select(self.b.fcmp_ordered(">", x, self.f.const(high)), self.f.const(high), x)

    def reduce(self, x: Any) -> tuple[Any, Any]:
        """Split x = k ln 2 + r: returns q = e^r - 1 and the float whose low bits hold the integer k."""
        f, b = self.f, self.b
        shifted = self.fma(x, f.const(1.0 / math.log(2.0)), f.const(f.magic))
        k = b.fsub(shifted, f.const(f.magic))
        r = self.fma(k, f.const(-f.ln2_high), x)
        r = self.fma(k, f.const(-f.ln2_low), r)
        tail = self.horner(r, f.exp_tail)
        return self.fma(b.fmul(r, r), tail, r), shifted

    def scale(self, x: Any, shifted: Any) -> Any:
        """X * 2^k by adding k to the exponent bits; x is near 1."""
        f, b = self.f, self.b
        k = b.shl(b.bitcast(shifted, f.integer), ir.Constant(f.integer, f.mantissa_bits))
        return b.bitcast(b.add(b.bitcast(x, f.integer), k), f.real)

    def exp(self, x: Any) -> Any:
        q, shifted = self.reduce(self.clamp(x, self.f.exp_low, self.f.exp_high))
        return self.scale(self.b.fadd(q, self.f.const(1.0)), shifted)

    def relax(self, x: Any) -> Any:
        """1 - e^-x without cancellation: with e^-x = 2^k (1 + q) it is (1 - 2^k) - 2^k q."""
        f, b = self.f, self.b
        q, shifted = self.reduce(self.clamp(b.fsub(f.const(-0.0), x), f.exp_low, f.exp_high))
        power = self.scale(f.const(1.0), shifted)
        return b.fsub(b.fsub(f.const(1.0), power), b.fmul(power, q))

    def log(self, x: Any) -> Any:
        """Natural logarithm of a normal, positive number: x = 2^k m with m in [sqrt 1/2, sqrt 2)."""
        f, b = self.f, self.b
        bits = b.bitcast(x, f.integer)
        # subtracting the bits of sqrt(1/2) before taking the exponent centres m on 1
        half_root_bits = f.one_bits - (1 << f.mantissa_bits) + int((math.sqrt(2.0) - 1.0) * 2**f.mantissa_bits)
        offset = b.sub(bits, ir.Constant(f.integer, half_root_bits))
        exponent = b.ashr(offset, ir.Constant(f.integer, f.mantissa_bits))
        m = b.bitcast(b.sub(bits, b.shl(exponent, ir.Constant(f.integer, f.mantissa_bits))), f.real)
        # integer to float through the magic constant: sitofp of 64-bit lanes is slow or scalar without AVX-512DQ
        magic_bits = ir.Constant(f.integer, _bits_of_magic(f.mantissa_bits))
        k = b.fsub(b.bitcast(b.add(exponent, magic_bits), f.real), f.const(f.magic))
        d = b.fsub(m, f.const(1.0))
        s = b.fdiv(d, b.fadd(d, f.const(2.0)))
        z = b.fmul(s, s)
        two_s = b.fadd(s, s)
        tail = b.fmul(b.fmul(two_s, z), self.horner(z, f.log_tail))
        small = self.fma(k, f.const(f.ln2_low), b.fadd(two_s, tail))
        return self.fma(k, f.const(f.ln2_high), small)


def _bits_of_magic(mantissa_bits: int) -> int:
    """Bit pattern of 1.5 * 2^mantissa: exponent field bias + mantissa bits, top mantissa bit set."""
    bias = 127 if mantissa_bits == 23 else 1023
    return ((bias + mantissa_bits) << mantissa_bits) | (1 << (mantissa_bits - 1))


def _unary(method: str, doc: str) -> Any:
    """Make the intrinsic of one `_Emit` method."""

    def function(typingctx: Any, x: Any) -> Any:
        if x not in (types.float32, types.float64):
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(_Emit(builder, x), method)(args[0])

        return x(x), codegen

    function.__name__, function.__doc__ = method, doc
    return intrinsic(function)


exp = _unary("exp", "e^x.")
log = _unary("log", "Natural logarithm of x > 0; x must be a normal number.")
relax = _unary("relax", "1 - e^-x: the fraction that an exponential approach covers in x time constants.")


@intrinsic
def sqrt(typingctx: Any, x: Any) -> Any:
    """Square root as the hardware instruction."""
    if x not in (types.float32, types.float64):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.sqrt", [args[0].type]), args)

    return x(x), codegen


@intrinsic
def select(typingctx: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`; both are evaluated."""
    if condition != types.boolean or yes != no:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flag = builder.icmp_unsigned("!=", args[0], ir.Constant(args[0].type, 0))
        return builder.select(flag, args[1], args[2])

    return yes(condition, yes, no), codegen
