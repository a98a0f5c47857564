"""Arithmetic of cell models on a CUDA device: the meaning of `solvers.kernels.simd`, through the hardware's own functions.

A polynomial exp as on the CPU would be right here too, but a GPU has an exponential unit: libdevice's exp (2 ulp) is a range reduction
around it and costs a third. What is written here, and not left to `fastmath`, is what may be approximate: only divisions (2 ulp instead
of a correctly rounded quotient, which takes a branch and eight instructions). `fastmath` as a whole would also allow reassociation and
assume that there is no NaN: the models are written so that nothing cancels, and a run that diverges must be seen to diverge.

Under the simulator (NUMBA_ENABLE_CUDASIM=1) the same names are plain NumPy functions.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import config, cuda

from solvers.kernels import math_plain

EXP_RANGE = {"float32": (-87.0, 88.0), "float64": (-708.0, 709.0)}
"""Beyond these exp saturates, as in the vector kernels, instead of becoming 0 or infinite: one over the other would be NaN."""


OPTIONS: dict[str, int] = {} if config.ENABLE_CUDASIM else {"max_registers": 168}
"""For the kernels of cell models: three blocks of 128 threads fit a multiprocessor's 65536 registers, so that some can wait for memory.

By ptxas for compute capability 9.0: ten Tusscher-Panfilov takes 96 registers, Stewart 119, ToR-ORd 190 and with this limit spills 12 bytes.
"""


def functions(precision: str) -> SimpleNamespace:
    """exp, log, relax, sqrt, select and divide for scalars of one precision, callable from kernels."""
    low, high = (np.dtype(precision).type(limit) for limit in EXP_RANGE[precision])
    return _simulated(low, high) if config.ENABLE_CUDASIM else _on_device(low, high, precision)


def _simulated(low: Any, high: Any) -> SimpleNamespace:
    def exp(x: Any) -> Any:
        return np.exp(high if x > high else low if x < low else x)

    def select(condition: Any, yes: Any, no: Any) -> Any:
        return yes if condition else no

    def divide(x: Any, y: Any) -> Any:
        return x / y

    return SimpleNamespace(exp=exp, log=math_plain.log, relax=math_plain.relax, sqrt=math_plain.sqrt, select=select, divide=divide)


def _on_device(low: Any, high: Any, precision: str) -> SimpleNamespace:
    from numba.cuda import libdevice

    @cuda.jit(device=True)
    def exp(x):  # type: ignore[no-untyped-def]
        # comparisons are false for NaN, which must pass through
        return math.exp(high if x > high else low if x < low else x)

    @cuda.jit(device=True)
    def log(x):  # type: ignore[no-untyped-def]
        return math.log(x)

    @cuda.jit(device=True)
    def relax(x):  # type: ignore[no-untyped-def]
        return -math.expm1(-x)

    @cuda.jit(device=True)
    def sqrt(x):  # type: ignore[no-untyped-def]
        return math.sqrt(x)

    @cuda.jit(device=True)
    def select(condition, yes, no):  # type: ignore[no-untyped-def]
        return yes if condition else no

    if precision == "float32":

        @cuda.jit(device=True)
        def divide(x, y):  # type: ignore[no-untyped-def]
            return libdevice.fast_fdividef(x, y)
    else:

        @cuda.jit(device=True)
        def divide(x, y):  # type: ignore[no-untyped-def]
            return x / y

    return SimpleNamespace(exp=exp, log=log, relax=relax, sqrt=sqrt, select=select, divide=divide)
