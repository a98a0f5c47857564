"""Labels in, heart out: the default mesher of vtwin."""

from __future__ import annotations

import numpy as np

from meshing.implicit import build_implicit
from meshing.label_grid import canonical, check_affine, check_labels, clean
from meshing.quality import measure, tet_volumes
from meshing.regions import region_of
from meshing.resample import isotropic
from meshing.stuffing import LATTICE_PER_EDGE, stuff
from meshing.surfaces import boundary_faces, remove_pinches, split_surfaces, topology
from twin.errors import InputError, RunFailed
from twin.mesh import HeartMesh
from twin.volume import WALL, LabelVolume

EDGE_LIMITS_MM = (0.2, 6.0)


def mesh_heart(volume: LabelVolume, edge_mm: float = 2.0) -> HeartMesh:
    """Conforming tetrahedra of the heart wall, with regions, named surfaces and quality; fibres (zeros) and coordinates come later.

    volume: labels on a voxel grid, any orientation and storage order. edge_mm: mean edge length asked for. A missing rv_blood gives an LV
    alone, with an empty rv_endo; cavities without an opening give an empty base. The result does not depend on storage or thread count.
    quality: the numbers of `meshing.quality.measure`, `warnings` (gates missed) and `repairs` (labels changed), lists of text.
    Raises InputError for labels that are not one heart, RunFailed if the mesh would be inverted or open.
    """
    where = volume.source or "segmentation"
    if not EDGE_LIMITS_MM[0] <= edge_mm <= EDGE_LIMITS_MM[1]:
        low, high = EDGE_LIMITS_MM
        raise InputError("mesh", "edge_mm", f"{edge_mm} mm is outside {low} - {high} mm", "choose a mean edge in that range")
    check_affine(volume, where)
    labels = canonical(volume)
    check_labels(labels, where)
    labels, repairs = clean(labels)
    label_ml = labels.volume_ml(*WALL)
    labels, _ = clean(isotropic(labels))
    heart = build_implicit(labels)
    points, tets, on_surface = stuff(heart, heart.low_mm, heart.high_mm, LATTICE_PER_EDGE * edge_mm)
    volumes = tet_volumes(points, tets)
    if (volumes <= 0).any():
        raise RunFailed(f"{int((volumes <= 0).sum())} inverted tetrahedra in the mesh of {where}")
    keep, on_surface = remove_pinches(tets, volumes, on_surface)
    if not keep.all():
        repairs.append(f"tetrahedra that hung on by an edge, a node or nothing removed: {int((~keep).sum())}")
    used, tets = _compress(tets[keep], len(points))
    points, volumes = points[used], volumes[keep]
    triangles = boundary_faces(tets, on_surface[used])
    shape = topology(triangles)
    if shape.open_edges:
        raise RunFailed(f"the surface of the mesh of {where} is open at {shape.open_edges} edges")
    quality = measure(points, tets, volumes, label_ml, shape)
    quality["repairs"] = repairs
    if heart.opening is None:
        quality["warnings"].append("the cavities are closed: there is no base")
    elif not heart.opening.flat:
        quality["warnings"].append(f"the base is not flat (spread {heart.opening.spread_mm:.1f} mm): it was left as the labels have it")
    return HeartMesh(
        points_mm=points,
        tets=tets,
        region=region_of(labels, points[tets].mean(axis=1)),
        surfaces=split_surfaces(points, triangles, heart),
        fibre=np.zeros((len(tets), 3)),
        sheet=np.zeros((len(tets), 3)),
        quality=quality,
    )


def _compress(tets: np.ndarray, n_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in use, and the tetrahedra numbered by them."""
    used = np.zeros(n_points, bool)
    used[tets] = True
    number = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(used), number[tets]
