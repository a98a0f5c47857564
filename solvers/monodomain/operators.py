"""Matrices of the monodomain equation on the conducting part of a mesh, in an order that keeps neighbours close in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from solvers.kernels import sparse, sparse_assembly
from twin.errors import InputError

LOWEST_MASS_EIGENVALUE = 0.2
"""Smallest eigenvalue of M_lumped^-1 M_full on P1 tetrahedra (Wathen, IMA J Numer Anal 7:449, 1987: spectrum in [1/5, 1] here)."""


@dataclass(frozen=True)
class Operators:
    """Rows without diagonal (see kernels.sparse) in the solver's node order.

    nodes (k,) int32: mesh node of each row; start, column: the pattern; stiffness (nnz,) = K_ij / M_L,i in 1/ms;
    mass (nnz,) = M_full,ij / M_L,i; lumped (k,) = M_L in mm^3.
    """

    nodes: NDArray[np.int32]
    start: NDArray[np.int32]
    column: NDArray[np.int32]
    stiffness: NDArray[np.float64]
    mass: NDArray[np.float64]
    lumped: NDArray[np.float64]

    def matrices(self) -> tuple[sp.csr_array, sp.csr_array]:
        """Full stiffness K (mm^3/ms) and consistent mass M (mm^3) with their diagonals, for reference schemes and tests."""
        n = len(self.lumped)
        scale = np.repeat(self.lumped, np.diff(self.start))
        off = [sp.csr_array((scale * value, self.column, self.start), shape=(n, n)) for value in (self.stiffness, self.mass)]
        diagonal = [-off[0].sum(axis=1), self.lumped - off[1].sum(axis=1)]
        k, m = ((a + sp.diags_array(d)).tocsr() for a, d in zip(off, diagonal))
        return k, m


def build(
    points_mm: NDArray[np.float64],
    tets: NDArray[np.int32],
    fibre: NDArray[np.float64],
    d_l: NDArray[np.float64],
    d_t: NDArray[np.float64],
    conducting: NDArray[np.bool_] | None = None,
    tensor: NDArray[np.float64] | None = None,
) -> Operators:
    """Assemble the operators; `conducting` (m,) leaves out scar and lesions, and nodes that touch nothing else.

    tensor (m, 6) mm^2/ms: xx, yy, zz, yz, xz, xy, in place of d_t I + (d_l - d_t) f f^T.
    Raises InputError for coordinates, fibres or coefficients that are not finite, and for negative coefficients.
    """
    for name, values in (("points_mm", points_mm), ("fibre", fibre), ("d_l", d_l), ("d_t", d_t)):
        if not np.isfinite(values).all() or (name in ("d_l", "d_t") and (values < 0).any()):
            raise InputError("monodomain", name, "is not finite or negative", "check the mesh and the conductivities")
    keep = np.ones(len(tets), bool) if conducting is None else conducting
    used = np.unique(tets[keep])
    local = np.full(len(points_mm), -1, np.int32)
    local[used] = np.arange(len(used), dtype=np.int32)
    start, column = sparse_assembly.pattern(np.ascontiguousarray(local[tets[keep]], np.int32), len(used))
    graph = sp.csr_matrix((np.ones(len(column), np.int8), column, start.astype(np.int32)), shape=(len(used), len(used)))
    nodes = used[reverse_cuthill_mckee(graph, symmetric_mode=True)].astype(np.int32)
    local[nodes] = np.arange(len(nodes), dtype=np.int32)
    inner = np.ascontiguousarray(local[tets[keep]], np.int32)
    start, column = sparse_assembly.pattern(inner, len(nodes))
    of_tet = fibre_tensor(fibre[keep], d_l[keep], d_t[keep]) if tensor is None else np.ascontiguousarray(tensor[keep], float)
    stiffness, mass, lumped = sparse_assembly.assemble(np.ascontiguousarray(points_mm[nodes]), inner, of_tet, start, column)
    per_row = np.repeat(lumped, np.diff(start))
    return Operators(nodes, start.astype(np.int32), column, stiffness / per_row, mass / per_row, lumped)


SYMMETRIC = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Which entries of a symmetric matrix its six components are."""


def fibre_tensor(fibre: NDArray[np.float64], d_l: NDArray[np.float64], d_t: NDArray[np.float64]) -> NDArray[np.float64]:
    """d_t I + (d_l - d_t) f f^T as (m, 6) components, mm^2/ms."""
    return np.stack([d_t * (x == y) + (d_l - d_t) * fibre[:, x] * fibre[:, y] for x, y in SYMMETRIC], axis=1)


def products_needed(theta: float, share: float = 0.1) -> int:
    """Mass products after which no more than `share` of the mass correction is missing at any wave number; one where theta is above 1.

    There the operator is what it is measured to be (`wave_fit`), however near to the inverse.
    """
    if theta >= 1.0:
        return 0 if theta == 1.0 else 1
    low = theta + (1.0 - theta) * LOWEST_MASS_EIGENVALUE
    return math.ceil(math.acosh(1.0 / share) / math.acosh((1.0 + low) / (1.0 - low)))


def inverse_mass_polynomial(theta: float, products: int) -> NDArray[np.float64]:
    """Coefficients c_0..c_products of P(A) ~ A^-1 for A = M_L^-1 M, M = theta M_lumped + (1 - theta) M_full.

    The error 1 - x P(x) is (1 - x) T(x) / T(0), T the Chebyshev polynomial of degree `products` on the spectrum of A: what Chebyshev's
    iteration leaves when it starts from the lumped solution. It vanishes at x = 1, so total charge is conserved and smooth fields, where
    A is nearly 1, are inverted almost exactly, whatever the degree.
    """
    if theta == 1.0 or products == 0:
        return np.ones(1)
    low = theta + (1.0 - theta) * LOWEST_MASS_EIGENVALUE
    error = Chebyshev.basis(products, domain=[low, 1.0]).convert(kind=Polynomial) * Polynomial([1.0, -1.0])
    return np.asarray(-error.coef[1:] / error.coef[0], dtype=np.float64)


class Diffusion:
    """The explicit diffusion operator P(M_L^-1 M) M_L^-1 K with its buffers, in one precision."""

    def __init__(self, ops: Operators, theta: float, products: int, dtype: Any) -> None:
        self.start, self.column = ops.start, ops.column
        self.stiffness = ops.stiffness.astype(dtype)
        self.mass = ((1.0 - theta) * ops.mass).astype(dtype)
        self.dtype = np.dtype(dtype)
        n = len(ops.lumped)
        self.factors = inverse_mass_polynomial(theta, products).astype(dtype)
        self.mass_start = self.start if len(self.factors) > 1 else np.zeros(n + 1, np.int32)
        self.work = np.zeros((3, n), dtype)

    def apply(self, v: NDArray[Any]) -> NDArray[Any]:
        """P(M_L^-1 M) M_L^-1 K v, in mV/ms: what diffusion takes from each node."""
        y, out = self.work[0], np.empty_like(self.work[0])
        sparse.stiffness_product(self.start, self.column, self.stiffness, np.ascontiguousarray(v, self.dtype), y)
        z, scale = y, self.factors[-1]
        for p, factor in enumerate(self.factors[-2::-1]):
            to = self.work[1 + p % 2]
            sparse.mass_horner(self.mass_start, self.column, self.mass, z, scale, y, factor, to)
            z, scale = to, self.dtype.type(1)
        np.multiply(z, scale, out=out)
        return out


def stability_limit_ms(ops: Operators, theta: float, products: int) -> float:
    """Largest stable explicit step of the linear equation, 2 / lambda_max, by Arnoldi's form of the power iteration (to about 0.1 %)."""
    n = len(ops.lumped)
    diffusion = Diffusion(ops, theta, products, np.float64)
    # the highest mode alternates between neighbours: a fixed rough start holds it and keeps runs reproducible
    rough = np.random.default_rng(0).standard_normal(n)
    if n < 32:
        dense = np.stack([diffusion.apply(unit) for unit in np.eye(n)], axis=1)
        return 2.0 / max(float(np.abs(np.linalg.eigvals(dense)).max()), 1e-300)
    operator = LinearOperator((n, n), matvec=diffusion.apply, dtype=np.float64)
    try:
        value = eigs(operator, k=1, which="LM", v0=rough, tol=1e-3, ncv=24, return_eigenvectors=False, maxiter=200)
        return 2.0 / abs(complex(value[0]))
    except ArpackNoConvergence:
        # a cluster of equal largest eigenvalues: the ratio of the plain power iteration is good enough there, with a margin
        for _ in range(300):
            rough = diffusion.apply(rough / np.linalg.norm(rough))
        return 2.0 / (1.02 * float(np.linalg.norm(rough)))
