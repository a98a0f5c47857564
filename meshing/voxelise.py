"""Closed surfaces of a biventricular wall to label volumes: inside by parity, blood pools by what the wall hides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from meshing.closing import close_surface
from twin.errors import InputError
from twin.io.convert import SURFACE_SUFFIXES, convert_labels, convert_surface, kind_of, surface_files, write_labels
from twin.io.grid import check_shape, label_name
from twin.io.labels import read_labels
from twin.io.segments import check_room, combine
from twin.io.surfaces import Surface, read_surface
from twin.volume import LABELS, LabelVolume

OFFSET = np.array([0.00137, 0.00291, 0.00173])
"""Part of a voxel by which the grid is moved, so that no column of voxels runs through rounded coordinates of points."""

COARSE_MM = 2.0
DIRECTIONS = 200
ENCLOSED = 0.55
"""A point on the plane of a wide mouth sees wall in half of all directions: where a cavity ends when nothing closes it."""

DEEP = 0.65
"""Hidden more than a point in a groove of the outer surface: corners and clefts of a cavity, which opening would lose."""

CLEFT_MM = 3.0
SEED = 0.8
MIN_CAVITY_ML = 3.0

PIECES = ("base", "endo_lv", "endo_rv", "epi", "lv_endo", "rv_endo")
"""How the names of files end that are pieces of one wall (Cobiveco's, openCARP's)."""


@dataclass(frozen=True)
class Cavity:
    """One blood pool as it was found: mask (ni, nj, nk) bool, and the lower quartile of the free wall around it, mm."""

    mask: NDArray[np.bool_]
    wall_mm: float


@njit(cache=True, nogil=True)
def _edge(p: NDArray[np.float64], i: int, j: int, u: float, v: float, a: int, b: int) -> bool:
    """On which side of edge i-j the column (u, v) lies; the same sum for both triangles of an edge, so no column slips between."""
    lo, hi = (i, j) if i < j else (j, i)
    side = (p[hi, a] - p[lo, a]) * (v - p[lo, b]) - (p[hi, b] - p[lo, b]) * (u - p[lo, a]) >= 0.0
    return side if i < j else not side


@njit(cache=True, nogil=True)
def _toggle(p: NDArray[np.float64], tris: NDArray[np.int32], axis: int, out: NDArray[np.uint8]) -> None:
    """Flip the first voxel beyond every crossing of the surface with columns along `axis`; p is in voxel units."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    n = out.shape
    index = np.zeros(3, np.int64)
    for t in range(len(tris)):
        i, j, k = tris[t]
        u0 = max(0, int(np.ceil(min(p[i, a], p[j, a], p[k, a]))))
        u1 = min(n[a] - 1, int(np.floor(max(p[i, a], p[j, a], p[k, a]))))
        v0 = max(0, int(np.ceil(min(p[i, b], p[j, b], p[k, b]))))
        v1 = min(n[b] - 1, int(np.floor(max(p[i, b], p[j, b], p[k, b]))))
        for u in range(u0, u1 + 1):
            for v in range(v0, v1 + 1):
                s = _edge(p, i, j, u, v, a, b)
                if _edge(p, j, k, u, v, a, b) != s or _edge(p, k, i, u, v, a, b) != s:
                    continue
                e1a, e1b = p[j, a] - p[i, a], p[j, b] - p[i, b]
                e2a, e2b = p[k, a] - p[i, a], p[k, b] - p[i, b]
                det = e1a * e2b - e1b * e2a
                if det == 0.0:
                    continue
                r = ((u - p[i, a]) * e2b - (v - p[i, b]) * e2a) / det
                q = ((v - p[i, b]) * e1a - (u - p[i, a]) * e1b) / det
                h = p[i, axis] + r * (p[j, axis] - p[i, axis]) + q * (p[k, axis] - p[i, axis])
                index[axis] = min(max(int(np.ceil(h)), 0), n[axis] - 1)
                index[a], index[b] = u, v
                out[index[0], index[1], index[2]] ^= 1


def inside(points: NDArray[np.float64], triangles: NDArray[np.int32], shape: tuple[int, int, int]) -> tuple[NDArray[np.bool_], float]:
    """Voxels whose centres lie inside a closed surface, points (n, 3) in voxel units: two of three axes must agree by parity.

    Returns the mask and the share of voxels, relative to those inside, on which the axes disagree (0 for a closed surface).
    """
    votes = np.zeros(shape, np.uint8)
    for axis in range(3):
        flips = np.zeros(shape, np.uint8)
        _toggle(points, triangles, axis, flips)
        votes += np.bitwise_xor.accumulate(flips, axis=axis)
    mask = votes >= 2
    return mask, float(((votes == 1) | (votes == 2)).sum() / max(1, mask.sum()))


@njit(cache=True, nogil=True)
def _hidden(wall: NDArray[np.bool_], empty: NDArray[np.int64], rays: NDArray[np.float64], free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of rays from each empty voxel (k, 3) that meet wall; `free` (k, 3) receives the sum of the directions that do not."""
    n0, n1, n2 = wall.shape
    out = np.zeros(len(empty))
    for e in range(len(empty)):
        hits = 0
        for d in range(len(rays)):
            x, y, z = empty[e, 0] + 0.5, empty[e, 1] + 0.5, empty[e, 2] + 0.5
            met = False
            while not met:
                x += 0.5 * rays[d, 0]
                y += 0.5 * rays[d, 1]
                z += 0.5 * rays[d, 2]
                if x < 0 or y < 0 or z < 0 or x >= n0 or y >= n1 or z >= n2:
                    break
                met = wall[int(x), int(y), int(z)]
            if met:
                hits += 1
            else:
                free[e] += rays[d]
        out[e] = hits / len(rays)
    return out


def _sphere(n: int) -> NDArray[np.float64]:
    """Directions spread evenly over the sphere (Fibonacci lattice), (n, 3)."""
    z = 1.0 - (2.0 * np.arange(n) + 1.0) / n
    turn = np.pi * (1.0 + 5.0**0.5) * np.arange(n)
    r = np.sqrt(1.0 - z * z)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)


def hiddenness(wall: NDArray[np.bool_], spacing_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each voxel is hidden by the wall, (ni, nj, nk) in 0..1, and the direction (3,) in which the cavities are open.

    The share of directions in which wall is met, computed on a grid of about 2 mm. The direction is zero if nothing is open.
    """
    step = max(1, round(COARSE_MM / spacing_mm))
    pad = [(0, -n % step) for n in wall.shape]
    blocks = np.pad(wall, pad)
    n = np.array(blocks.shape) // step
    coarse = np.asarray(blocks.reshape(n[0], step, n[1], step, n[2], step).any(axis=(1, 3, 5)), np.bool_)
    empty = np.argwhere(~coarse)
    free = np.zeros((len(empty), 3))
    share = _hidden(coarse, empty, _sphere(DIRECTIONS), free)
    deep = (share > SEED) & (share < 1.0)
    way = free[deep].sum(axis=0)
    length = float(np.linalg.norm(way))
    field = np.zeros(coarse.shape)
    field[tuple(empty.T)] = share
    # wall voxels take the value of the nearest empty one, or interpolation would hide the outer skin of the heart
    _, nearest = ndimage.distance_transform_edt(coarse, return_indices=True)
    field = field[tuple(nearest)]
    place = [(np.arange(k) + 0.5) / step - 0.5 for k in wall.shape]
    fine = ndimage.map_coordinates(field, np.meshgrid(*place, indexing="ij"), order=1, mode="nearest")
    return np.asarray(fine, np.float64), way / length if length > 0 else np.zeros(3)


def find_cavities(wall: NDArray[np.bool_], hidden: NDArray[np.float64], spacing_mm: float, where: str) -> list[NDArray[np.bool_]]:
    """The two largest hollows of a wall (ni, nj, nk), each closed where it opens to the outside. Raises InputError if there are none."""
    voxel_ml = spacing_mm**3 / 1000.0
    seeds, n = ndimage.label(~wall & (hidden > SEED))
    sizes = np.bincount(seeds.ravel(), minlength=n + 1)[1:] * voxel_ml
    order = [int(i) + 1 for i in np.argsort(-sizes, kind="stable") if sizes[i] >= MIN_CAVITY_ML][:2]
    if len(order) < 2:
        raise InputError(
            where, "surface", f"{len(order)} blood pools were found, two are needed", "give the closed surface of a biventricular wall"
        )
    marks = [seeds == number for number in order]
    nearer = ndimage.distance_transform_edt(~marks[0]) <= ndimage.distance_transform_edt(~marks[1])
    opened = _opened(~wall & (hidden > ENCLOSED), CLEFT_MM / spacing_mm)
    return [_grown(mark, opened & own, ~wall & (hidden > DEEP) & own) for mark, own in zip(marks, (nearer, ~nearer), strict=True)]


def _opened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Morphological opening with a ball (radius in voxels): without the skin and the grooves outside the heart."""
    core = ndimage.distance_transform_edt(mask) > radius
    return np.asarray(ndimage.distance_transform_edt(~core) <= radius)


def _grown(mark: NDArray[np.bool_], opened: NDArray[np.bool_], deep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of the opened hollow and of its deep corners that hangs together with a seed."""
    numbered, _ = ndimage.label(opened | deep | mark)
    touched = np.unique(numbered[mark])
    return np.isin(numbered, touched[touched > 0])


def _outside(solid: NDArray[np.bool_], way: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Voxels outside the heart but not beyond its base: those from which nothing of the heart lies against `way`."""
    if not way.any():
        return ~solid
    beyond = np.zeros(solid.shape, bool)
    length = int(np.linalg.norm(solid.shape))
    for step in range(1, length):
        move = np.rint(way * step).astype(int)
        if (np.abs(move) >= solid.shape).any():
            break
        to = tuple(slice(max(m, 0), s + min(m, 0)) for m, s in zip(move, solid.shape, strict=True))
        come = tuple(slice(max(-m, 0), s + min(-m, 0)) for m, s in zip(move, solid.shape, strict=True))
        beyond[to] |= solid[come]
    return ~solid & ~beyond


def _free_wall_mm(mask: NDArray[np.bool_], outside: NDArray[np.bool_], spacing_mm: float) -> float:
    """Lower quartile of the distance from a cavity's surface to the outside, mm: the septum lies above it."""
    rim = mask & ~ndimage.binary_erosion(mask)
    return float(np.percentile(ndimage.distance_transform_edt(~outside, sampling=spacing_mm)[rim], 25))


def _class_says(cavity: NDArray[np.bool_], points: NDArray[np.float64], classes: NDArray[Any]) -> int:
    """Commonest endocardial class (3 LV, 4 RV) among points (n, 3), in voxel units, that lie on a cavity."""
    near = ndimage.binary_dilation(cavity, iterations=2)
    index = np.clip(np.rint(points).astype(int), 0, np.array(cavity.shape) - 1)
    found = classes[near[tuple(index.T)]]
    return 3 if (found == 3).sum() >= (found == 4).sum() else 4


def split_wall(wall: NDArray[np.bool_], lv: NDArray[np.bool_], rv: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Wall voxels of the RV free wall: the LV pool is farther than both the RV pool and the outside. The septum is the LV's."""
    to_lv, to_rv, to_outside = (ndimage.distance_transform_edt(~mask) for mask in (lv, rv, outside))
    return np.asarray(wall & (to_lv > to_rv) & (to_lv > to_outside))


def surface_to_labels(
    points_mm: NDArray[np.float64],
    triangles: NDArray[np.int32],
    spacing_mm: float = 1.0,
    point_data: Mapping[str, NDArray[Any]] | None = None,
    where: str = "surface",
) -> tuple[LabelVolume, dict[str, float]]:
    """Turn the surface of a biventricular wall into labels lv_blood, rv_blood, lv_myocardium, rv_myocardium on a grid in its frame.

    points_mm (n, 3) and triangles (m, 3): closed or nearly closed, the cavities open at the base or not; taken to be LPS.
    point_data: `class` (n,) with 3 = LV and 4 = RV endocardium (Cobiveco) decides which cavity is the LV; else the thicker
    free wall does. Returns the labels and what was found: volumes in mL, free wall in mm, share of doubtful voxels.
    Raises InputError for an open surface or one without two cavities.
    """
    margin = 5
    low = np.floor(points_mm.min(axis=0) / spacing_mm) - margin + OFFSET
    shape = np.ceil(points_mm.max(axis=0) / spacing_mm - low).astype(int) + margin
    if int(np.prod(shape.astype(object))) > 100_000_000:
        raise InputError(where, "spacing", f"{'x'.join(map(str, shape))} voxels", "ask for a coarser spacing")
    scaled = np.ascontiguousarray(points_mm / spacing_mm - low)
    wall, doubtful = inside(scaled, triangles, (int(shape[0]), int(shape[1]), int(shape[2])))
    if doubtful > 0.1 or not wall.any():
        raise InputError(
            where, "surface", f"inside is doubtful in {100 * doubtful:.0f} % of voxels: the surface is open", "close the surface"
        )
    hidden, way = hiddenness(wall, spacing_mm)
    pools = find_cavities(wall, hidden, spacing_mm, where)
    outside = _outside(wall | pools[0] | pools[1], way)
    cavities = [Cavity(pool, _free_wall_mm(pool, outside, spacing_mm)) for pool in pools]
    classes = (point_data or {}).get("class")
    if classes is not None and {3, 4} <= set(np.unique(classes).tolist()):
        swap = _class_says(cavities[0].mask, scaled, np.asarray(classes)) == 4
    else:
        swap = cavities[0].wall_mm < cavities[1].wall_mm
    lv, rv = reversed(cavities) if swap else cavities
    data = np.zeros(wall.shape, np.uint8)
    data[lv.mask], data[rv.mask] = LABELS["lv_blood"], LABELS["rv_blood"]
    data[wall] = LABELS["lv_myocardium"]
    data[split_wall(wall, lv.mask, rv.mask, outside)] = LABELS["rv_myocardium"]
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = low * spacing_mm
    volume = LabelVolume(data, affine, where)
    found = {f"{name}_ml": volume.volume_ml(name) for name in ("lv_blood", "rv_blood", "lv_myocardium", "rv_myocardium")}
    return volume, found | {"lv_free_wall_mm": lv.wall_mm, "rv_free_wall_mm": rv.wall_mm, "doubtful": doubtful}


def read_closed_surfaces(folder: Path, spacing_mm: float = 1.0) -> LabelVolume:
    """Labels of a folder with one closed surface per label, each file named as its label (lv_blood.stl, "LV myocardium.ply", ...).

    Raises InputError for an unknown name, an open surface, or overlaps that `twin.io.segments` does not settle.
    """
    surfaces = {label_name(path.stem, path, "file name"): read_surface(path) for path in surface_files(folder)}
    points = np.concatenate([surface.points_mm for surface in surfaces.values()])
    low = np.floor(points.min(axis=0) / spacing_mm) - 2 + OFFSET
    size = np.ceil(points.max(axis=0) / spacing_mm - low).astype(int) + 2
    shape = (int(size[0]), int(size[1]), int(size[2]))
    check_shape(shape, folder)
    check_room(len(surfaces), shape, folder)
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, surface in surfaces.items():
        masks[name], doubtful = inside(np.ascontiguousarray(surface.points_mm / spacing_mm - low), surface.triangles, shape)
        if doubtful > 0.1 or not masks[name].any():
            raise InputError(folder, name, f"inside is doubtful in {100 * doubtful:.0f} % of voxels: the surface is open", "close it")
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = low * spacing_mm
    return combine({name: mask for name, mask in masks.items() if name not in ("ignore", "background")}, affine, folder)


def read_segmentation(path: Path, labels: Mapping[str, int] | None = None) -> LabelVolume:
    """Labels of any segmentation: a label volume, the closed surface of a biventricular wall, or a folder of closed surfaces.

    `labels` names the values of a label volume; surfaces become voxels of 1 mm. Raises InputError.
    """
    return read_with_notes(path, labels)[0]


def read_with_notes(path: Path, labels: Mapping[str, int] | None = None, spacing_mm: float = 1.0) -> tuple[LabelVolume, list[str]]:
    """As `read_segmentation`, and what was done to a surface to close it. A name with `*`, or a folder of pieces (base, endo_lv, endo_rv,
    epi), is one wall in pieces."""
    if _pieces(path) or path.suffix.lower() in SURFACE_SUFFIXES:
        surface, notes = read_closed(path)
        volume, _ = surface_to_labels(surface.points_mm, surface.triangles, spacing_mm, surface.point_data, path.name)
        return volume, [f"{path.name}: {note}" for note in notes]
    if path.is_dir() and surface_files(path):
        return read_closed_surfaces(path, spacing_mm), []
    return read_labels(path, labels), []


def read_closed(path: Path) -> tuple[Surface, list[str]]:
    """The closed surface of a wall from one file or its pieces, and what was done to close it. Raises InputError."""
    return close_surface([read_surface(piece) for piece in _pieces(path) or [path]], path.name)


def _pieces(path: Path) -> list[Path]:
    """Files that together are one wall: those a pattern matches, or a folder's if each is named as a piece; else none."""
    if "*" in path.name:
        found = sorted(p for p in path.parent.glob(path.name) if p.suffix.lower() in SURFACE_SUFFIXES)
        if not found:
            raise InputError(path, "file", "matches no surface", f"use one of {', '.join(SURFACE_SUFFIXES)}")
        return found
    files = surface_files(path) if path.is_dir() else []
    return sorted(files) if files and all(file.stem.lower().endswith(PIECES) for file in files) else []


def convert(source: Path, target: Path, labels: Mapping[str, int] | None = None, spacing_mm: float = 1.0) -> list[str]:
    """What `vtwin convert IN OUT` does: labels to labels, surface to surface, surface to labels. Returns lines for the user.

    `labels` names values of a label volume; `spacing_mm` is the grid of labels made from a surface. Raises InputError.
    """
    kinds = kind_of(source), kind_of(target)
    if kinds == ("labels", "labels"):
        return convert_labels(source, target, labels)
    if kinds == ("surface", "surface"):
        return convert_surface(source, target)
    if kinds == ("labels", "surface"):
        raise InputError(target, "file", "labels are not converted to surfaces", "`vtwin mesh` writes the surfaces of a segmentation")
    if not 0.3 <= spacing_mm <= 3.0:
        raise InputError("convert", "spacing", f"{spacing_mm:g} mm", "choose 0.3 to 3 mm")
    if source.is_dir():
        volume = read_closed_surfaces(source, spacing_mm)
        write_labels(target, volume)
        return [f"{name}: {volume.volume_ml(name):.1f} mL" for name in volume.names]
    surface, notes = read_closed(source)
    volume, found = surface_to_labels(surface.points_mm, surface.triangles, spacing_mm, surface.point_data, source.name)
    write_labels(target, volume)
    lines = (f"{name.rsplit('_', 1)[0]}: {value:.1f} {name.rsplit('_', 1)[1]}" for name, value in found.items() if name != "doubtful")
    return [*notes, *(line.replace(" ml", " mL") for line in lines)]
