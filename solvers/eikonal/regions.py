"""Which tissue a node belongs to: the sickest it touches, or a smooth mixture of what is around."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import cg

from meshing.p1 import lumped_mass, nodal_mean, stiffness
from twin.errors import InputError, RunFailed
from twin.mesh import NON_CONDUCTING, REGIONS, HeartMesh

SICKNESS = ("healthy", "border_zone", "isthmus")
"""Conducting regions from the healthiest on."""

FALLBACK = {"isthmus": "border_zone"}
"""The isthmus is surviving border-zone tissue in scar: it takes the values of the border zone where it has none of its own."""


def source_of(region: str, given: set[str]) -> str:
    """The name under which the values of a region are given. Raises InputError if there is none."""
    if region in given:
        return region
    if FALLBACK.get(region) in given:
        return FALLBACK[region]
    raise InputError("tissue", region, "the mesh has this region but no values are given for it", f"give values for {region}")


def present(mesh: HeartMesh) -> tuple[str, ...]:
    """Conducting regions of a mesh, healthiest first."""
    names = {number: name for name, number in REGIONS.items()}
    found = {names[int(number)] for number in np.unique(mesh.region)}
    return tuple(name for name in SICKNESS if name in found and name not in NON_CONDUCTING)


def sickest(mesh: HeartMesh, conducting: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Place in SICKNESS of the sickest conducting tissue that each node touches, (n,), 0 where it touches none."""
    out = np.zeros(mesh.n_points, np.int8)
    for place, name in enumerate(SICKNESS):
        out[mesh.tets[conducting & mesh.in_region(name)]] = place
    return out


def blend(
    mesh: HeartMesh,
    conducting: NDArray[np.bool_],
    indicator: NDArray[np.float64],
    along2: NDArray[np.float64],
    across2: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Smooth indicators (m, r) of tetrahedra into nodes (n, r): (1 - div L^2 grad)^-1, L^2 along and across the fibres (m,) mm^2.

    The steady electrotonic spread in tissue of those space constants; rows sum to one as the given ones do.
    """
    tets, fibre, across = mesh.tets[conducting], mesh.fibre[conducting], across2[conducting, None, None]
    tensor = across * np.eye(3) + (along2[conducting, None, None] - across) * np.einsum("mi,mj->mij", fibre, fibre)
    mass = lumped_mass(mesh.points_mm, tets)
    mass[mass == 0.0] = 1.0
    matrix = sp.csr_array(sp.diags_array(mass) + stiffness(mesh.points_mm, tets, tensor))
    jacobi = sp.diags_array(1.0 / matrix.diagonal())
    volume = mesh.tet_volumes_mm3[conducting]
    sharp = nodal_mean(indicator[conducting], tets, volume, mesh.n_points)
    out = np.zeros_like(sharp)
    for r in range(1, sharp.shape[1]):
        out[:, r], info = cg(matrix, mass * sharp[:, r], x0=sharp[:, r], rtol=1e-6, maxiter=2000, M=jacobi)
        if info != 0:
            raise RunFailed("blending of the restitution tables did not converge")
    # the first is what the others leave: the operator keeps constants
    out = np.clip(out, 0.0, 1.0)
    out[:, 0] = np.maximum(1.0 - out.sum(axis=1), 0.0)
    return out / out.sum(axis=1, keepdims=True)
