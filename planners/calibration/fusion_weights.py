"""How much each source of the substrate counts: weights fitted on hearts whose scar is known, every source spoilt in its own way."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from meshing.anatomy import complete
from meshing.mesh_labels import mesh_heart
from planners.calibration.hidden import draw, labels_of
from planners.virtual.late_enhancement import ScanSpec, scan
from twin.calibrate.substrate import WEIGHT, drawn_classes, from_enhancement, from_labels, from_voltage, from_voxels, fuse
from twin.imaging.lge import classify
from twin.mesh import HeartMesh
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]

UNIPOLAR_MV = (11.0, 6.6, 4.9)
EDGE_MM = 2.5
FITTED = ("labels", "bipolar", "unipolar", "enhancement")


def spoilt_labels(volume: LabelVolume, rng: np.random.Generator) -> LabelVolume:
    """Labels as another reader draws them: the infarct shifted by 2 mm and larger or smaller by a voxel."""
    scar, sick = volume.mask("scar"), volume.mask("scar", "border_zone", "isthmus")
    wall = volume.mask("lv_myocardium") | sick
    shift = 2.0 * rng.normal(size=3) / np.sqrt(3.0) / volume.spacing_mm
    grow = int(rng.integers(-1, 2))
    data = volume.data.copy()
    data[sick] = LABELS["lv_myocardium"]
    for mask, name in ((sick, "border_zone"), (scar, "scar")):
        moved = ndimage.shift(mask.astype(np.float32), shift, order=1) > 0.5
        if grow:
            moved = (ndimage.binary_dilation if grow > 0 else ndimage.binary_erosion)(moved)
        data[moved & wall] = LABELS[name]
    return replace(volume, data=data)


def voltages(mesh: HeartMesh, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Points on the LV endocardium (k, 3) and their bipolar and unipolar mV: what lies within 4 and 9 mm, with gain and noise."""
    lv = mesh.surface_nodes("lv_endo")
    chosen = rng.choice(lv, min(400, len(lv)), replace=False)
    points = mesh.points_mm[chosen]
    group = drawn_classes(mesh)
    tree, volume, out = cKDTree(mesh.centroids_mm), mesh.tet_volumes_mm3, []
    for reach, medians, sd in ((4.0, (3.8, 0.9, 0.22), 0.45), (9.0, UNIPOLAR_MV, 0.3)):
        logs, gain = np.log(np.array(medians)), 0.15 * rng.standard_normal()
        near = tree.query_ball_point(points, reach)
        mean = np.array([np.average(logs[group[k]], weights=volume[k]) for k in near])
        out.append(np.exp(mean + gain + sd * rng.standard_normal(len(points))))
    return points + rng.normal(scale=1.5, size=points.shape), out[0], out[1]


def sources_of(seed: int) -> tuple[HeartMesh, NDArray[np.int64], dict[str, Array]]:
    """One heart: its mesh with the regions a reader drew, the true class of every tetrahedron, and what each source says."""
    rng = np.random.default_rng([seed, 617])
    truth = labels_of(draw(seed))
    mesh = complete(mesh_heart(truth, EDGE_MM))
    true = drawn_classes(mesh)
    points, bipolar, unipolar = voltages(mesh, rng)
    drawn = spoilt_labels(truth, rng)
    ijk = np.clip(np.rint(drawn.to_ijk(mesh.centroids_mm)).astype(int), 0, np.array(drawn.data.shape) - 1)
    given = drawn.data[tuple(ijk.T)]
    seen = mesh
    for name in ("healthy", "border_zone", "scar"):
        seen = seen.with_region(given == LABELS.get(name, -1), name)
    seen = seen.with_region(~np.isin(given, [LABELS["border_zone"], LABELS["scar"]]), "healthy")
    image, outline = scan(truth, np.eye(3), ScanSpec(1.5, 4.0, noise=35.0))
    found = classify(image, outline)
    here = found.wall & np.isfinite(found.values)
    voxels = np.full((*here.shape, 3), np.nan)
    levels = (found.levels.remote, found.levels.remote_sd, found.levels.maximum)
    voxels[here] = from_enhancement(found.values[here].astype(np.float64), levels)
    return (
        seen,
        true,
        {
            "labels": from_labels(seen),
            "bipolar": from_voltage(seen, "bipolar", points, bipolar),
            "unipolar": from_voltage(seen, "unipolar", points, unipolar),
            "enhancement": from_voxels(seen, outline.affine, voxels),
        },
    )


def fitted(hearts: list[tuple[HeartMesh, NDArray[np.int64], dict[str, Array]]]) -> tuple[dict[str, float], float, float]:
    """Weights of least log loss per volume, that loss, and the loss of WEIGHT."""

    def loss(logs: Array) -> float:
        weights = dict(zip(FITTED, np.exp(logs).tolist(), strict=True))
        total = 0.0
        for mesh, true, sources in hearts:
            p = fuse(mesh, sources, weights)
            there = p.wall
            own = np.log(np.maximum(p.probability[np.arange(len(true)), true], 1e-6))
            # healthy wall is most of the heart: each class counts alike
            for k in range(3):
                mine = there & (true == k)
                total -= float(np.average(own[mine], weights=mesh.tet_volumes_mm3[mine])) if mine.any() else 0.0
        return total / (3.0 * len(hearts))

    start = np.log([WEIGHT[name] for name in FITTED])
    found = minimize(loss, start, method="Nelder-Mead", options={"maxfev": 120, "xatol": 0.02, "fatol": 1e-4})
    weights = {name: round(float(w), 2) for name, w in zip(FITTED, np.exp(found.x), strict=True)}
    return weights, float(found.fun), loss(start)


if __name__ == "__main__":
    first, count = (int(a) for a in sys.argv[1:])
    print(*fitted([sources_of(seed) for seed in range(first, first + count)]))
