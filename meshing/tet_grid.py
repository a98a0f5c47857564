"""A tetrahedral mesh painted onto voxels: which tetrahedron holds the centre of each voxel."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from twin.mesh import REGIONS, HeartMesh
from twin.volume import LABELS, LabelVolume

MARGIN_VOXELS = 2
_ON_FACE = -1e-9
"""Barycentric weight from which a centre counts as inside, so that a centre on a shared face is never lost."""


@njit(cache=True, nogil=True)
def _paint(points: NDArray[np.float64], tets: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Write the lowest tetrahedron number that holds each voxel centre; points are in voxel units, out is -1 before."""
    for t in range(len(tets)):
        a = points[tets[t, 0]]
        m = np.empty((3, 3))
        low, high = a.copy(), a.copy()
        for c in range(3):
            p = points[tets[t, c + 1]]
            for i in range(3):
                m[i, c] = p[i] - a[i]
                low[i] = min(low[i], p[i])
                high[i] = max(high[i], p[i])
        # the inverse by cofactors: bounds are tight and meshes have millions of these
        c00, c01, c02 = m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1], m[1, 2] * m[2, 0] - m[1, 0] * m[2, 2], m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0]
        c10, c11, c12 = m[0, 2] * m[2, 1] - m[0, 1] * m[2, 2], m[0, 0] * m[2, 2] - m[0, 2] * m[2, 0], m[0, 1] * m[2, 0] - m[0, 0] * m[2, 1]
        c20, c21, c22 = m[0, 1] * m[1, 2] - m[0, 2] * m[1, 1], m[0, 2] * m[1, 0] - m[0, 0] * m[1, 2], m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
        det = m[0, 0] * c00 + m[0, 1] * c01 + m[0, 2] * c02
        if det == 0.0:
            continue
        for i in range(int(np.ceil(low[0])), int(np.floor(high[0])) + 1):
            for j in range(int(np.ceil(low[1])), int(np.floor(high[1])) + 1):
                for k in range(int(np.ceil(low[2])), int(np.floor(high[2])) + 1):
                    if out[i, j, k] >= 0:
                        continue
                    x, y, z = i - a[0], j - a[1], k - a[2]
                    u = (c00 * x + c10 * y + c20 * z) / det
                    v = (c01 * x + c11 * y + c21 * z) / det
                    w = (c02 * x + c12 * y + c22 * z) / det
                    if u >= _ON_FACE and v >= _ON_FACE and w >= _ON_FACE and u + v + w <= 1.0 - _ON_FACE:
                        out[i, j, k] = t


def tet_grid(mesh: HeartMesh, spacing_mm: float = 1.0) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Tetrahedron of each voxel (-1 outside), (ni, nj, nk) int32, on an LPS-aligned grid around the mesh, and its affine (4, 4)."""
    low = mesh.points_mm.min(axis=0) - MARGIN_VOXELS * spacing_mm
    shape = np.ceil((mesh.points_mm.max(axis=0) - low) / spacing_mm).astype(int) + 1 + MARGIN_VOXELS
    out = np.full(tuple(shape), -1, np.int32)
    _paint(np.ascontiguousarray((mesh.points_mm - low) / spacing_mm), np.ascontiguousarray(mesh.tets), out)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = low
    return out, affine


def mesh_labels(mesh: HeartMesh, spacing_mm: float = 1.0) -> LabelVolume:
    """The wall as labels: muscle of either ventricle by the transventricular coordinate, scar, border zone and isthmus by region."""
    grid, affine = tet_grid(mesh, spacing_mm)
    right = mesh.coordinates["transventricular"][mesh.tets].mean(axis=1) > 0.5 if mesh.coordinates else np.zeros(len(mesh.tets), bool)
    label = np.where(right, LABELS["rv_myocardium"], LABELS["lv_myocardium"]).astype(np.uint8)
    for name in ("scar", "border_zone", "isthmus"):
        label[mesh.region == REGIONS[name]] = LABELS[name]
    data = np.where(grid >= 0, label[np.maximum(grid, 0)], np.uint8(LABELS["background"]))
    return LabelVolume(data.astype(np.uint8), affine, "mesh")
