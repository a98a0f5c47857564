"""Linear (P1) tetrahedra: gradients of the shape functions and the matrices made from them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def gradients(points_mm: NDArray[np.float64], tets: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the gradients (m, 4, 3) in 1/mm of the four shape functions and the signed volumes (m,) in mm^3."""
    p = points_mm[tets]
    e1, e2, e3 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0], p[:, 3] - p[:, 0]
    c1, c2, c3 = np.cross(e2, e3), np.cross(e3, e1), np.cross(e1, e2)
    six_volume = np.einsum("ij,ij->i", e1, c1)
    grad = np.empty((len(tets), 4, 3))
    grad[:, 1], grad[:, 2], grad[:, 3] = (c / six_volume[:, None] for c in (c1, c2, c3))
    grad[:, 0] = -grad[:, 1] - grad[:, 2] - grad[:, 3]
    return grad, six_volume / 6.0


def stiffness(points_mm: NDArray[np.float64], tets: NDArray[np.integer], tensor: NDArray[np.float64] | None = None) -> sp.csr_array:
    """Assemble K_ij = sum over elements of V grad_i . D grad_j; `tensor` is (m, 3, 3), the identity if None."""
    grad, volume = gradients(points_mm, tets)
    flux = grad if tensor is None else np.einsum("mij,mkj->mki", tensor, grad)
    local = np.einsum("mai,mbi->mab", grad, flux) * volume[:, None, None]
    rows = np.repeat(tets, 4, axis=1).ravel()
    cols = np.tile(tets, (1, 4)).ravel()
    n = len(points_mm)
    return sp.coo_array((local.ravel(), (rows, cols)), shape=(n, n)).tocsr()


def lumped_mass(points_mm: NDArray[np.float64], tets: NDArray[np.integer]) -> NDArray[np.float64]:
    """Volume that belongs to each node, (n,) mm^3: a quarter of every tetrahedron it is part of."""
    _, volume = gradients(points_mm, tets)
    return np.bincount(tets.ravel(), np.repeat(volume / 4.0, 4), minlength=len(points_mm)).astype(np.float64)


def nodal_mean(values: NDArray[np.float64], tets: NDArray[np.integer], volumes: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Volume-weighted mean of element values (m,) or (m, c) at the nodes, (n,) or (n, c)."""
    columns = values.reshape(len(tets), -1)
    weight = np.bincount(tets.ravel(), np.repeat(volumes, 4), minlength=n)
    out = (
        np.stack([np.bincount(tets.ravel(), np.repeat(volumes * c, 4), minlength=n) for c in columns.T], axis=1)
        / np.maximum(weight, 1e-300)[:, None]
    )
    return out.reshape((n, *values.shape[1:]))
