"""Meshes that are finer where it matters: near scar by default, coarser elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from meshing import stuffing_kernels
from meshing.cutting import Crossed, cut
from meshing.distance import squared_distance
from meshing.implicit import sample
from meshing.octree import Reach, graded_lattice
from meshing.regions import TAGGED
from meshing.stuffing import ALPHA_LONG, ALPHA_SHORT, LATTICE_PER_EDGE, MISSED_DEPTH, Field, Stuffed
from twin.errors import InputError, RunFailed
from twin.params import Param
from twin.volume import LabelVolume

GROWTH = Param(0.5, "1", 0.1, 1.0, "chosen here: how much larger cells may be per mm farther away, so that three sizes do not meet at once")
WITHIN_MM = Param(10.0, "mm", 0.0, 50.0, "chosen here: muscle this near to scar is fine, so that a circuit's turns are")
MOST_LEVELS = 4
LEAST_DEG = Param(8.0, "degrees", 0.0, 15.0, "chosen here: no node is moved onto the surface if an angle round it becomes smaller")
Sizes = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Grading:
    """How fine where: mean edges of edge_mm within within_mm of labels `near`, or what `sizes` (LPS mm (n, 3) -> (n,) mm) says there, but
    never below edge_mm."""

    edge_mm: float
    within_mm: float = WITHIN_MM.value
    near: tuple[str, ...] = TAGGED
    sizes: Sizes | None = None

    def levels(self, edge_mm: float) -> int:
        """How often cells of the coarse edge are halved. Raises InputError unless edge_mm is at least about twice the fine edge."""
        levels = int(np.floor(np.log2(edge_mm / self.edge_mm) + 0.1)) if 0.0 < self.edge_mm <= edge_mm else 0
        if not 1 <= levels <= MOST_LEVELS:
            problem = f"{self.edge_mm:g} mm with edges of {edge_mm:g} mm elsewhere"
            raise InputError(
                "mesh", "edge_near_scar", problem, f"cells are halved 1 to {MOST_LEVELS} times: choose a half to a sixteenth of it"
            )
        return levels

    def reach(self, labels: LabelVolume) -> Reach | None:
        """The smallest cell wanted within a radius of a place; None if the labels have nothing to be near to."""
        fine = LATTICE_PER_EDGE * self.edge_mm
        growth = float(GROWTH)
        if (sizes := self.sizes) is not None:
            return lambda points, radius: np.maximum(LATTICE_PER_EDGE * _smallest(sizes, points, radius), fine)
        tagged = labels.mask(*self.near)
        if not tagged.any():
            return None
        distance = (float(labels.spacing_mm.mean()) * np.sqrt(squared_distance(tagged))).astype(np.float32)[None]
        inverse = np.ascontiguousarray(np.linalg.inv(labels.affine)[:3])

        def wanted(points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
            out = np.empty((len(points), 1))
            sample(distance, inverse, np.ascontiguousarray(points), out)
            return fine + growth * np.maximum(out[:, 0] - radius - self.within_mm, 0.0)

        return wanted


def _smallest(sizes: Sizes, points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """The least of a user's sizes at the centre of a cell and its corners, (n,) mm."""
    corners = np.array(list(product((-1.0, 1.0), repeat=3))) * (radius / np.sqrt(3.0))
    places = (points[:, None] + np.vstack([np.zeros(3), corners])).reshape(-1, 3)
    return np.asarray(np.asarray(sizes(places), float).reshape(len(points), 9).min(axis=1))


def stuff_graded(
    field: Field, wanted: Reach, low_mm: NDArray[np.float64], high_mm: NDArray[np.float64], fine_mm: float, levels: int
) -> Stuffed:
    """Fill {field < 0} with tetrahedra of lattice constants fine_mm * 2 ** k, k in 0..levels; arguments as of `graded_lattice`.

    No bound is proven where cells of two sizes meet at the surface (Labelle and Shewchuk 2007 prove theirs for a surface of one size):
    `meshing.quality` measures. Raises RunFailed as `meshing.stuffing.stuff`.
    """
    lattice = graded_lattice(field, wanted, low_mm, high_mm, fine_mm, levels)
    points, tets, cell = lattice.points, lattice.tets, lattice.cell_mm
    value = -np.asarray(field(points), float)
    if not np.isfinite(value).all():
        raise RunFailed("the implicit surface is not finite on the lattice")
    if not (value > 0).any():
        raise RunFailed(f"nothing lies inside the surface at lattice constants of {fine_mm:g} mm and more")
    near = (value[tets] > -2.0 * cell[tets]).any(axis=1)
    tets = tets[near]
    made = cut(points, tets, value, field, lambda crossed: _limits(crossed, points, cell), float(LEAST_DEG))
    cell = np.concatenate([cell, cell[made.halved].min(axis=1)])
    sign = made.sign[made.tets]
    empty = made.tets[
        (sign.max(axis=1) <= 0) & (np.abs(np.append(value, np.zeros(len(made.halved)))[made.tets]) < cell[made.tets]).any(axis=1)
    ]
    centres = made.points[empty].mean(axis=1)
    size = cell[empty].max(axis=1)
    missed = field(centres) < -MISSED_DEPTH * size
    inside = np.ascontiguousarray(made.tets[sign.max(axis=1) > 0])
    used = stuffing_kernels.compress(inside, len(made.points))
    return Stuffed(made.points[used], inside, made.sign[used] == 0, centres[missed], cell[used], size[missed])


def _limits(crossed: Crossed, points: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """The safe thresholds of the uniform lattice: for edges along an axis the long one's, for the others the short one's; a node moves no
    farther than in a lattice of its smallest cell."""
    ends = points[crossed.edges]
    along = ends[:, 1] - ends[:, 0]
    length = np.linalg.norm(along, axis=1)
    straight = (np.abs(along) < 1e-6).sum(axis=1) == 2
    alpha = np.where(straight, float(ALPHA_LONG), float(ALPHA_SHORT))
    farthest = np.where(straight, float(ALPHA_LONG), float(ALPHA_SHORT) * np.sqrt(0.75))
    return np.asarray(np.minimum(alpha[:, None], farthest[:, None] * cell[crossed.edges] / length[:, None]))
