"""Labels in, heart out: the default mesher of vtwin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.grading import Grading, stuff_graded
from meshing.implicit import ImplicitHeart, build_implicit
from meshing.interfaces import conform
from meshing.label_grid import canonical, check_affine, check_labels, crop
from meshing.optimisers import Body, Optimiser
from meshing.quality import Places, mean_edge_mm, measure, tet_volumes
from meshing.region_fields import region_fields
from meshing.regions import TAGGED, region_of
from meshing.resample import has_thick_slices, isotropic
from meshing.rims import on_plane, sharpen
from meshing.smoothing import smooth
from meshing.stuffing import LATTICE_PER_EDGE, Stuffed, stuff
from meshing.surfaces import Topology, boundary_faces, remove_pinches, split_surfaces, topology
from twin.errors import InputError, RunFailed
from twin.imaging.align import put_back, slice_shifts
from twin.imaging.repair import repair
from twin.mesh import REGIONS, HeartMesh
from twin.volume import WALL, LabelVolume

EDGE_LIMITS_MM = (0.2, 6.0)

THICKENING = (1.2, 1.5, 1.5, 1.5)
"""Wall thickness in lattice constants, tried in turn where a mesh still has holes: at 1.5 a lattice vertex stays inside."""


def mesh_heart(
    volume: LabelVolume,
    edge_mm: float = 2.0,
    optimiser: Optimiser | None = None,
    grading: Grading | None = None,
    conforming: bool = False,
) -> HeartMesh:
    """Conforming tetrahedra of the heart wall, with regions, named surfaces and quality; fibres (zeros) and coordinates come later.

    volume: labels on a voxel grid, any orientation and storage order. edge_mm: mean edge length asked for. A missing rv_blood gives an LV
    alone, with an empty rv_endo; cavities without an opening give an empty base. The result does not depend on storage or thread count.
    grading: where the mesh is finer; edge_mm then holds elsewhere (a power of two times the fine edge, at most what was asked).
    conforming: boundaries between scar, border zone, isthmus and healthy muscle are faces of the mesh; else each tetrahedron takes the
    label at its centre.
    optimiser: a program of others that works on the finished mesh; what it gives is measured anew and taken unless it misses a gate that
    the mesh had held. quality: the numbers of `meshing.quality.measure`, `warnings` (gates missed) and `repairs` (labels changed), lists of
    text, and `optimiser`, if one was asked. Raises InputError for labels that are not one heart or an optimiser that is not installed,
    RunFailed if the mesh would be inverted or open.
    """
    where = volume.source or "segmentation"
    if not EDGE_LIMITS_MM[0] <= edge_mm <= EDGE_LIMITS_MM[1]:
        low, high = EDGE_LIMITS_MM
        raise InputError("mesh", "edge_mm", f"{edge_mm} mm is outside {low} - {high} mm", "choose a mean edge in that range")
    check_affine(volume, where)
    levels = 0 if grading is None else grading.levels(edge_mm)
    if optimiser is not None:
        optimiser.check()
        if grading is not None or conforming:
            problem = "programs of others know neither graded meshes nor boundaries inside"
            raise InputError("mesh", "optimiser", problem, "leave out the optimiser, or grading and conforming regions")
    labels, label_ml, repairs = _cleaned(volume, where)
    heart = build_implicit(labels)
    stuffing = _stuffing(labels, edge_mm, grading, levels)
    body = _fill(heart, stuffing, where)
    trial_heart, trial = heart, body
    for lattices in THICKENING:
        if trial.defects == 0 or not len(trial.missed_mm):
            break
        trial_heart = trial_heart.thickened(trial.missed_mm, trial.missed_cell_mm, lattices)
        trial = _fill(trial_heart, stuffing, where)
        if trial.defects < body.defects:
            heart, body = trial_heart, trial
    tets, triangles = body.tets, body.triangles
    points, rim_moves = sharpen(body.points, tets, triangles, heart, body.cell_mm)
    points, moves = smooth(points, tets, triangles, heart, body.cell_mm)
    if heart.min_wall is not None:
        thickness = f"{heart.min_wall.max():.1f} mm"
        repairs.append(
            f"wall thickened to about {thickness} where a mesh of {edge_mm:g} mm would have holes; a smaller edge keeps it as it is"
        )
    if body.removed:
        repairs.append(f"tetrahedra that hung on by an edge, a node or nothing removed: {body.removed}")
    surfaces = split_surfaces(points, triangles, heart, on_plane(points, heart, body.cell_mm))
    cell_mm, region = body.cell_mm, None
    if conforming and (fields := region_fields(labels)) is not None:
        made = conform(points, tets, surfaces, cell_mm, heart, fields)
        points, tets, surfaces, region, cell_mm = made.points, made.tets, made.surfaces, made.region, made.cell_mm
        moves += made.moves
        triangles = np.concatenate(list(surfaces.values()))
    quality = _quality(points, tets, triangles, heart, label_ml, body.shape, body.missed_mm)
    if optimiser is not None:
        before = Body.of(points, tets, surfaces)
        after = optimiser(before, edge_mm)
        points, tets, surfaces = after.points, after.tets, after.surfaces()
        better = _quality(points, tets, after.triangles, heart, label_ml, topology(after.triangles), body.missed_mm)
        if lost := {miss["gate"] for miss in better["misses"]} - {miss["gate"] for miss in quality["misses"]}:
            points, tets, surfaces = before.points, before.tets, before.surfaces()
            quality["warnings"] += [f"{optimiser.name} was not used: its mesh misses {gate}, {better[gate]:.2f}" for gate in sorted(lost)]
            quality["optimiser"] = {**optimiser.described(), "used": False, "its_mesh": _numbers(better)}
        else:
            quality = {**better, "optimiser": {**optimiser.described(), "used": True, "mesh_before": _numbers(quality)}}
    quality["smoothing_moves"] = moves
    quality["rim_moves"] = rim_moves
    quality["repairs"] = repairs
    if grading is not None and grading.reach(labels) is None:
        quality["warnings"].append("a finer mesh near scar was asked for, but the labels have no scar: it is even")
    elif grading is not None:
        quality |= _graded(points, tets, cell_mm, grading, levels)
    if heart.opening is None:
        quality["warnings"].append("the cavities are closed: there is no base")
    elif not heart.opening.flat:
        quality["warnings"].append(f"the base is not flat (spread {heart.opening.spread_mm:.1f} mm): it was left as the labels have it")
    if region is None:
        region = region_of(labels, points[tets].mean(axis=1))
    quality["regions"] = _regions(labels, tet_volumes(points, tets), region, conforming)
    return HeartMesh(
        points_mm=points,
        tets=tets,
        region=region,
        surfaces=surfaces,
        fibre=np.zeros((len(tets), 3)),
        sheet=np.zeros((len(tets), 3)),
        quality=quality,
    )


def _cleaned(volume: LabelVolume, where: str) -> tuple[LabelVolume, float, list[str]]:
    """Labels of one heart on cubic voxels, the wall's volume (mL) before slices were interpolated, and what was changed."""
    labels = canonical(volume)
    if labels.data.any():
        labels = crop(labels)
    check_labels(labels, where)
    labels, mended = repair(labels)
    repairs = [str(one) for one in mended]
    label_ml = labels.volume_ml(*WALL)
    if has_thick_slices(labels):
        shifts = slice_shifts(labels)
        labels = put_back(labels, shifts)
        repairs += shifts.describe()
    cubic = isotropic(labels)
    if cubic is not labels:
        labels, _ = repair(cubic)
    return labels, label_ml, repairs


def _regions(labels: LabelVolume, volumes_mm3: NDArray[np.float64], region: NDArray[np.int16], conforming: bool) -> dict[str, Any]:
    """For quality.json: how regions are carried, and the volume of each in the mesh and in the labels on cubic voxels."""
    out: dict[str, Any] = {"carried_by": "faces of the mesh" if conforming else "the label at each tetrahedron's centre"}
    for name in TAGGED:
        label_ml, mesh_ml = labels.volume_ml(name), float(volumes_mm3[region == REGIONS[name]].sum()) / 1000.0
        if label_ml > 0.0:
            error = round(100.0 * (mesh_ml / label_ml - 1.0), 2)
            out[name] = {"mesh_ml": round(mesh_ml, 3), "label_ml": round(label_ml, 3), "error_percent": error}
    return out


Stuffing = Callable[[ImplicitHeart], Stuffed]


def _stuffing(labels: LabelVolume, edge_mm: float, grading: Grading | None, levels: int) -> Stuffing:
    """How a heart is filled: with one lattice, or with one that is finer where `grading` says (one, if there is nothing to be near to)."""
    reach = None if grading is None else grading.reach(labels)
    if grading is None or reach is None:
        return lambda heart: stuff(heart, heart.low_mm, heart.high_mm, LATTICE_PER_EDGE * edge_mm)
    fine_mm = LATTICE_PER_EDGE * grading.edge_mm
    return lambda heart: stuff_graded(heart, reach, heart.low_mm, heart.high_mm, fine_mm, levels)


def _graded(
    points: NDArray[np.float64], tets: NDArray[np.int32], cell_mm: NDArray[np.float64], grading: Grading, levels: int
) -> dict[str, Any]:
    """For quality.json: mean edge of the tetrahedra of each size, finest first, and their share of the muscle."""
    size = np.round(np.log2(cell_mm[tets].min(axis=1) / (LATTICE_PER_EDGE * grading.edge_mm))).astype(int)
    volume = tet_volumes(points, tets)
    return {
        "grading": [
            {
                "edge_mm": round(mean_edge_mm(points, tets[size == level]), 3),
                "tets": int((size == level).sum()),
                "share_of_volume": round(float(volume[size == level].sum() / volume.sum()), 4),
            }
            for level in range(levels + 1)
            if (size == level).any()
        ]
    }


def _quality(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    triangles: NDArray[np.int32],
    heart: ImplicitHeart,
    label_ml: float,
    shape: Topology,
    missed_mm: NDArray[np.float64],
) -> dict[str, Any]:
    """`meshing.quality.measure` of a mesh of a heart whose surface is `triangles`."""
    on_surface = np.concatenate([points[np.unique(triangles)], points[triangles].mean(axis=1)])
    distance = np.abs(heart(on_surface))
    places = Places(_middle(points, shape.pinched), _first(missed_mm), on_surface[int(np.argmax(distance))])
    return measure(points, tets, tet_volumes(points, tets), label_ml, shape, distance, places)


def _numbers(quality: dict[str, Any]) -> dict[str, float]:
    """What tells two meshes of one heart apart."""
    return {name: quality[name] for name in ("tets", "mean_edge_mm", "dihedral_min_deg", "dihedral_p1_deg", "surface_distance_mean_mm")}


@dataclass(frozen=True)
class _Body:
    """A filled heart: positive tetrahedra, its closed surface, what shape that has and how many tetrahedra were taken away."""

    points: NDArray[np.float64]
    tets: NDArray[np.int32]
    triangles: NDArray[np.int32]
    shape: Topology
    removed: int
    missed_mm: NDArray[np.float64]
    cell_mm: NDArray[np.float64]
    missed_cell_mm: NDArray[np.float64]
    bubbles: int

    @property
    def defects(self) -> int:
        """Holes, handles, pinches and closed surfaces that are no cavity."""
        return abs(self.shape.genus) + self.shape.pinched_edges + self.shape.pinched_nodes + self.bubbles


def _fill(heart: ImplicitHeart, stuffing: Stuffing, where: str) -> _Body:
    """Stuff, take away what hangs by a thread, and check: RunFailed if anything is inverted or open."""
    stuffed = stuffing(heart)
    points = stuffed.points
    volumes = tet_volumes(points, stuffed.tets)
    if (volumes <= 0).any():
        place = np.round(points[stuffed.tets[int(np.argmin(volumes))]].mean(axis=0), 1).tolist()
        raise RunFailed(f"{int((volumes <= 0).sum())} inverted tetrahedra in the mesh of {where}, one at {place} mm")
    keep, on_surface = remove_pinches(stuffed.tets, volumes, stuffed.on_surface)
    used, tets = _compress(stuffed.tets[keep], len(points))
    triangles = boundary_faces(tets, on_surface[used])
    shape = topology(triangles)
    if shape.open_edges:
        raise RunFailed(f"the surface of the mesh of {where} is open at {shape.open_edges} edges")
    # with an opening every cavity's surface joins the outer one there
    bubbles = max(shape.components - (1 if heart.opening is not None else len(heart.fields)), 0)
    removed, cell_mm = int((~keep).sum()), stuffed.cell_mm[used]
    return _Body(points[used], tets, triangles, shape, removed, stuffed.missed_mm, cell_mm, stuffed.missed_cell_mm, bubbles)


def _middle(points: NDArray[np.float64], nodes: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Place of the first of some nodes, None if there are none."""
    return points[nodes[0]] if nodes else None


def _first(places_mm: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """First of some places (k, 3), None if there are none."""
    return places_mm[0] if len(places_mm) else None


def _compress(tets: NDArray[np.int32], n_points: int) -> tuple[NDArray[np.int_], NDArray[np.int32]]:
    """Nodes in use, and the tetrahedra numbered by them."""
    used = np.zeros(n_points, bool)
    used[tets] = True
    number = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(used), number[tets]
