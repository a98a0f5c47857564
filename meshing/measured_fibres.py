"""Measured fibres (openCARP's .lon, diffusion tensor imaging) on a mesh: matched by place, never by order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.params import Param

REACH_MM = Param(3.0, "mm", 1.0, 6.0, "chosen here: about a voxel of diffusion imaging; farther muscle keeps the fibres of the rule")
NEIGHBOURS = 8
MIN_COVERED = 0.5
"""Less of the muscle near measurements than this: another patient's file, or another frame of coordinates."""


@dataclass(frozen=True)
class FibreCloud:
    """Measured directions: places_mm (k, 3) in LPS, fibre (k, 3) and sheet (k, 3) or None, signs without meaning."""

    places_mm: NDArray[np.float64]
    fibre: NDArray[np.float64]
    sheet: NDArray[np.float64] | None = None
    source: str = ""


def read_fibres(path: Path) -> FibreCloud:
    """Directions of an openCARP mesh (any of its files; micrometres), of an .npz, or of a .csv (diffusion imaging, say).

    .npz: places_mm and fibre (k, 3), perhaps sheet, LPS mm. .csv: first line `# vtwin-fibres 1`, columns x_mm, y_mm, z_mm, fibre_x,
    fibre_y, fibre_z, perhaps sheet_x, sheet_y, sheet_z.
    Raises InputError for damage, and for directions that are not finite or all zero.
    """
    if path.suffix.lower() == ".npz":
        from twin.io.bundle import read_bundle

        arrays = read_bundle(path)
        for name in ("places_mm", "fibre"):
            if name not in arrays or arrays[name].ndim != 2 or arrays[name].shape[1] != 3 or arrays[name].dtype.kind not in "fiu":
                raise InputError(path, name, "is missing or not of shape (k, 3)", "give places_mm and fibre, in LPS mm")
        sheet = arrays["sheet"].astype(float) if "sheet" in arrays else None
        return _checked(FibreCloud(arrays["places_mm"].astype(float), arrays["fibre"].astype(float), sheet, path.name), path)
    if path.suffix.lower() == ".csv":
        return _checked(_of_table(path), path)
    from twin.io.opencarp import mesh as opencarp

    prefix = opencarp.prefix_of(path)
    found = opencarp.read(prefix)
    centres = found.points_mm[found.tets].mean(axis=1)
    measured = np.linalg.norm(found.fibre, axis=1) > 0.5
    sheet = None if found.sheet is None else found.sheet[measured]
    return _checked(FibreCloud(centres[measured], found.fibre[measured], sheet, prefix.name), path)


def _of_table(path: Path) -> FibreCloud:
    from twin.io.table import read_table

    columns = [f"{axis}_mm" for axis in "xyz"] + [f"fibre_{axis}" for axis in "xyz"]
    across = [f"sheet_{axis}" for axis in "xyz"]
    _, table = read_table(path, "fibres", columns, across)
    places, fibre, sheet = (np.stack([table[name] for name in part], axis=1) for part in (columns[:3], columns[3:], across))
    return FibreCloud(places, fibre, None if np.isnan(sheet).all() else sheet, path.name)


def _checked(cloud: FibreCloud, path: Path) -> FibreCloud:
    parts = [cloud.fibre] if cloud.sheet is None else [cloud.fibre, cloud.sheet]
    if any(part.shape != cloud.places_mm.shape for part in parts):
        raise InputError(path, "fibre", "there is not one direction per place", "export places and directions together")
    if not len(cloud.places_mm) or not all(np.isfinite(part).all() for part in (cloud.places_mm, *parts)):
        raise InputError(path, "fibre", "there are no directions, or some are not finite", "export it again")
    length = np.linalg.norm(cloud.fibre, axis=1)
    keep = length > 1e-6
    if not keep.any():
        raise InputError(path, "fibre", "all directions are zero", "export it again")
    sheet = None if cloud.sheet is None else cloud.sheet[keep]
    return replace(cloud, places_mm=cloud.places_mm[keep], fibre=cloud.fibre[keep] / length[keep, None], sheet=sheet)


def with_measured(mesh: HeartMesh, cloud: FibreCloud, reach_mm: float = float(REACH_MM)) -> tuple[HeartMesh, dict[str, float]]:
    """The mesh with measured fibres where a measurement lies within reach; elsewhere it keeps its own (those of a rule, say).

    Each tetrahedron takes the main axis of the mean of f f^T over its nearest measurements, weighted by distance, so signs and the order
    of rows do not matter. Without measured sheets its own sheet is made orthogonal again. Returns also what was found: `covered` (share
    of tetrahedra), `distance_mm` (median), `coherence` (median of the largest eigenvalue, 1 for parallel fibres), `turned_deg` (median
    angle between the measured and the former fibre). Raises InputError if less than half of the muscle is covered.
    """
    query = cKDTree(cloud.places_mm).query(mesh.centroids_mm, k=min(NEIGHBOURS, len(cloud.places_mm)))
    distance, near = (np.asarray(part).reshape(len(mesh.tets), -1) for part in query)
    covered = distance[:, 0] <= reach_mm
    if covered.mean() < MIN_COVERED:
        share, median = 100.0 * covered.mean(), float(np.median(distance[:, 0]))
        raise InputError(
            cloud.source or "fibres",
            "places",
            f"only {share:.0f} % of the muscle lies within {reach_mm:g} mm of a measurement (median distance {median:.0f} mm)",
            "give fibres of this heart in its own coordinates, LPS mm",
        )
    # the nearest sets the width: dense clouds stay sharp, sparse ones are smooth
    width = np.maximum(distance[:, :1], 0.3)
    weight = np.where(distance <= np.maximum(reach_mm, distance[:, :1]), np.exp(-0.5 * (distance / width) ** 2), 0.0)
    fibre, coherence = _main_axis(cloud.fibre, near, weight)
    fibre = np.where(covered[:, None], fibre, mesh.fibre)
    sheet = mesh.sheet
    if cloud.sheet is not None:
        sheet = np.where(covered[:, None], _main_axis(cloud.sheet, near, weight)[0], sheet)
    sheet = _across(sheet, fibre)
    turned = np.degrees(np.arccos(np.clip(np.abs(np.einsum("mi,mi->m", fibre, mesh.fibre)), 0.0, 1.0)))
    found = {
        "covered": float(covered.mean()),
        "distance_mm": float(np.median(distance[:, 0])),
        "coherence": float(np.median(coherence[covered])),
        "turned_deg": float(np.median(turned[covered])),
    }
    return replace(mesh, fibre=fibre, sheet=sheet), found


def _main_axis(
    directions: NDArray[np.float64], near: NDArray[np.integer], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Main axis (m, 3) of the weighted directions near each tetrahedron, and its eigenvalue (m,), 1 if all are parallel."""
    chosen = directions[near] * np.sqrt(weight / weight.sum(axis=1, keepdims=True))[:, :, None]
    values, vectors = np.linalg.eigh(np.matmul(chosen.transpose(0, 2, 1), chosen))
    return vectors[:, :, 2], values[:, 2]


def _across(sheet: NDArray[np.float64], fibre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sheets (m, 3) made orthogonal to the fibres; any direction across where they were parallel or zero."""
    out = sheet - np.einsum("mi,mi->m", sheet, fibre)[:, None] * fibre
    length = np.linalg.norm(out, axis=1)
    spare = np.cross(fibre, np.eye(3)[np.argmin(np.abs(fibre), axis=1)])
    out = np.where((length > 1e-6)[:, None], out, spare)
    return out / np.linalg.norm(out, axis=1, keepdims=True)
