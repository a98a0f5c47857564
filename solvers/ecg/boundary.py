"""Boundary elements: the potential on a body's surface of current sources inside it, and lead fields by reciprocity.

For a place r on surface k, with inner and outer conductivity s_k-, s_k+ (Geselowitz 1967, Biophys J 7:1):
mean(s_k-, s_k+) phi(r) = g(r) + sum over surfaces l of (s_l- - s_l+)/(4 pi) * integral of phi over the solid angle of S_l seen from r,
g the potential in an infinite medium times its conductivity. phi is linear on triangles and the equation holds at the nodes; the
integrals are exact (solid angle: van Oosterom and Strackee 1983, IEEE Trans Biomed Eng 30:125; linear part: de Munck 1992, ibid. 39:986).
The angle that a node's own triangles would fill on the true surface is what the others leave (auto solid angle), so that a constant is
a solution exactly; it is taken away by asking for zero mean over the body's surface (deflation). A source is seen by a node's whole
neighbourhood, not by its point alone: distances are softened by half the radius of the disc of the node's area, which is exact on the
axis of a uniformly weighted disc at its centre and far away. So muscle may touch blood (`vtwin verify ecg`: source 2.5 mm off the core).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.ecg import kernels
from solvers.ecg.closed import closed, inside, nearest
from twin.errors import InputError
from twin.io.surfaces import Surface

Array = NDArray[np.float64]

MAX_NODES = 4000
"""Surface nodes beyond which the dense matrix takes too long; torso potentials are smooth, a thousand nodes are enough."""


SOFTENING = 0.5
"""Part of a node's radius by which its distances are softened: the potential of a disc at its centre is that at half its radius."""


@dataclass(frozen=True)
class Region:
    """A closed surface (outward normals) and the conductivity (S/m) of what it encloses."""

    surface: Surface
    sigma_s_m: float


class BoundaryElements:
    """A body in air: one outer surface, and any number of disjoint closed surfaces in it with conductivities of their own.

    `body` encloses everything; `inclusions` lie inside it and do not touch. Sources lie in the body outside the inclusions. Raises
    InputError for open surfaces, inclusions that stick out, conductivities that are not positive, or too many nodes.
    """

    def __init__(self, body: Region, inclusions: Sequence[Region] = ()) -> None:
        regions = [Region(closed(r.surface, "torso"), r.sigma_s_m) for r in (body, *inclusions)]
        if not all(np.isfinite(r.sigma_s_m) and r.sigma_s_m > 0 for r in regions):
            raise InputError("torso", "conductivity", "is not positive", "give it in S/m")
        sizes = [len(r.surface.points_mm) for r in regions]
        if sum(sizes) > MAX_NODES:
            raise InputError("torso", "nodes", f"{sum(sizes)} nodes are more than {MAX_NODES}", "coarsen the surfaces first")
        for k, part in enumerate(regions[1:], start=1):
            others = [r for j, r in enumerate(regions) if j not in (0, k)]
            if not inside(regions[0].surface, part.surface.points_mm).all() or any(
                inside(o.surface, part.surface.points_mm).any() for o in others
            ):
                raise InputError(
                    "torso", f"inclusion {k}", "leaves the body or overlaps another", "give disjoint closed surfaces in the body"
                )
        self.body, self.inclusions = regions[0], tuple(regions[1:])
        self.points_mm = np.concatenate([r.surface.points_mm for r in regions])
        areas = np.concatenate([_node_areas(r.surface) for r in regions])
        self._soft2 = SOFTENING**2 * areas / np.pi
        self._matrix = self._assembled(regions, sizes)

    def _assembled(self, regions: list[Region], sizes: list[int]) -> Array:
        sigma = self.body.sigma_s_m
        matrix = np.zeros((sum(sizes), sum(sizes)))
        first = 0
        outer = np.zeros(sum(sizes))
        for k, (region, size) in enumerate(zip(regions, sizes, strict=True)):
            jump = sigma if k == 0 else region.sigma_s_m - sigma
            columns = slice(first, first + size)
            block = np.zeros((sum(sizes), size))
            kernels.double_layer(self.points_mm, region.surface.points_mm, region.surface.triangles, block)
            own = np.arange(first, first + size)
            matrix[:, columns] -= jump / (4.0 * np.pi) * block
            # the free term at a node of this surface: outer conductivity, plus the jump times the share of the inside seen from it
            matrix[own, own] += (0.0 if k == 0 else sigma) + jump / (4.0 * np.pi) * block[columns].sum(axis=1)
            if k == 0:
                outer[columns] = _node_areas(region.surface)
            first += size
        # zero mean over the skin; leads are differences, so the choice does not matter
        return np.asarray(matrix + sigma * outer / outer.sum(), np.float64)

    def dipole_mv(self, moment_uA_mm: Array, place_mm: Array) -> Array:
        """Potential (n,) mV that a dipole (3,) at a place (3,) mm in the body would make at the nodes without boundaries."""
        away = self.points_mm - place_mm
        cubed = (np.einsum("nj,nj->n", away, away) + self._soft2) ** 1.5
        return np.einsum("nj,j->n", away, moment_uA_mm) / (4.0 * np.pi * self.body.sigma_s_m * cubed)

    def potentials(self, infinite_mv: Array) -> Array:
        """Potential (n, t) mV at all surface nodes of sources that would make (n, t) mV there without boundaries, see `dipole_mv`."""
        rhs = self.body.sigma_s_m * np.asarray(infinite_mv, np.float64)
        return _solve(self._matrix, rhs)

    def charges(self, skin_weights: Array) -> Array:
        """Charges (k, n) uA per uA mm of source at the nodes whose field is the lead field of each row of nodal weights (k, n).

        With c one row, a dipole p (uA mm) at r makes p . grad_r sum_v c_v / (4 pi |r_v - r|) mV in that lead: see `lead_potential`.
        """
        return np.ascontiguousarray(_solve(np.ascontiguousarray(self._matrix.T), np.ascontiguousarray(skin_weights.T)).T)

    def lead_potential(self, charges: Array, places_mm: Array) -> Array:
        """Reciprocal potential (k, p), mV per uA, at places (p, 3) mm: minus its gradient is the lead field."""
        out = np.zeros((len(charges), len(places_mm)))
        kernels.coulomb(self.points_mm, self._soft2, np.ascontiguousarray(charges.T), np.ascontiguousarray(places_mm, np.float64), out)
        return out / (4.0 * np.pi)

    def electrode(self, place_mm: Array) -> tuple[Array, Array]:
        """The place (3,) mm on the skin nearest to a given one, and its weights (n,) on the nodes."""
        place, nodes, weight = nearest(self.body.surface, place_mm)
        out = np.zeros(len(self.points_mm))
        np.add.at(out, nodes, weight)
        return place, out


def _node_areas(surface: Surface) -> Array:
    a, b, c = (surface.points_mm[surface.triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6.0
    return np.bincount(surface.triangles.ravel(), np.repeat(area, 3), minlength=len(surface.points_mm)).astype(np.float64)


def _solve(matrix: Array, rhs: Array) -> Array:
    """Dense solve by our own elimination: LAPACK's last digits depend on the number of threads."""
    out = np.array(rhs, np.float64, order="C")
    flat = out.reshape(len(out), -1)
    if not kernels.eliminate(matrix.copy(), flat):
        raise InputError("torso", "surfaces", "touch one another or are degenerate: the matrix is singular", "separate and repair them")
    return flat.reshape(rhs.shape)
