"""The tensors with which a mesh shows the velocities that were asked for, and how well it will.

`wave_fit` measures a lattice; here the lattice is found in a mesh, and every tetrahedron gets what was measured for its fibre direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import IonicModel
from solvers.monodomain import lattice as lattices
from solvers.monodomain.lattice import Lattice
from solvers.monodomain.operators import SYMMETRIC, fibre_tensor
from solvers.monodomain.wave_fit import RING, THETA, Table, components, exponential, is_cubic, matrix, measure, speed_per_sqrt_d
from twin.errors import InputError
from twin.mesh import REGIONS, HeartMesh, signed_volumes_mm3
from twin.params import Param
from twin.tissue import Velocity

FEW_FIBRES = 6
"""So many fibre directions are measured one by one; more are read off the triangle of reduced directions."""

GRID = 5
"""Steps per side of that triangle: 21 directions, 9 degrees apart."""

LOOKED_AT = 20_000
"""Tetrahedra from which the lattice of a mesh is told."""

LATTICE_SHARE = Param(0.3, "1", 0.1, 0.9, "chosen here: least share of tetrahedra on the lattice for its correction to be worth applying")
Values = NDArray[np.float64]
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Correction:
    """tensor (m, 6) mm^2/ms for `Monodomain`, to be run with the mass blend it was made for; report: numbers for a summary."""

    tensor: NDArray[np.float64]
    report: dict[str, Any]


def diffusion_of_speed_mm2_ms(speed_m_s: float, model: IonicModel) -> float:
    """The diffusion coefficient at which a plane wave of this cell model runs at `speed_m_s` in the continuum, mm^2/ms."""
    return (speed_m_s / speed_per_sqrt_d(model)) ** 2


def correct(
    points_mm: NDArray[np.float64],
    tets: NDArray[np.int32],
    fibre: NDArray[np.float64],
    tissue: NDArray[np.int32],
    diffusion_mm2_ms: Sequence[tuple[float, float]],
    models: Sequence[IonicModel | None],
    conducting: NDArray[np.bool_] | None = None,
    tell: Tell | None = None,
    theta: float = THETA,
) -> Correction:
    """Correct a box or a heart of vtwin's mesher, for runs with this mass blend.

    tissue (m,): index into diffusion_mm2_ms, (d_l, d_t) each, and models (None: passive, no wave runs there that could be measured, and
    the tensor stays as it is; as it does where d_l or d_t is 0); fibre (m, 3) unit. Some 20 s of measuring per tissue, none once it is
    in the cache. Raises InputError for a mesh without a lattice.
    """
    keep = np.ones(len(tets), bool) if conducting is None else conducting
    volume = np.abs(signed_volumes_mm3(points_mm, tets))
    lattice, share = find_lattice(points_mm, tets)
    bends = lattice.bend_tensors(points_mm, tets, volume)
    d_l_of, d_t_of = np.array(diffusion_mm2_ms, float).T
    tensor = fibre_tensor(fibre, d_l_of[tissue], d_t_of[tissue])
    rows = []
    for index, ((d_l, d_t), model) in enumerate(zip(diffusion_mm2_ms, models)):
        mine = np.flatnonzero(keep & (tissue == index))
        if model is None or not len(mine) or min(d_l, d_t) <= 0.0:
            continue
        if tell is not None:
            tell(f"correction of tissue {index}", index / len(models))
        s = _per_tet(lattice, fibre[mine], d_l, d_t, model, theta)
        root = math.sqrt(d_t) * np.eye(3) + (math.sqrt(d_l) - math.sqrt(d_t)) * fibre[mine, :, None] * fibre[mine, None, :]
        strained = root @ exponential(s.strain) @ root
        tensor[mine] = components(strained) + d_t * s.bend[:, None] * bends[mine]
        along = np.einsum("mx,mxy,my->m", fibre[mine], strained, fibre[mine])
        across = 0.5 * (np.trace(strained, axis1=1, axis2=2) - along)
        said = _said(lattice, s, d_l, d_t, (along / d_l, across / d_t), volume[mine], model)
        rows.append({"tissue": index, "d_l_mm2_ms": d_l, "d_t_mm2_ms": d_t, **said})
    worst = max((max(abs(x) for x in r["error_along"] + r["error_across"]) for r in rows), default=0.0)
    report = {"lattice_edge_mm": lattice.edge_mm, "on_lattice": share, "theta": theta, "predicted_error": worst, "tissues": rows}
    return Correction(tensor, report)


def for_velocities(
    mesh: HeartMesh,
    velocities: Mapping[str, Velocity],
    models: Mapping[str, IonicModel],
    tell: Tell | None = None,
    theta: float = THETA,
) -> Correction:
    """The tensors with which the mesh shows these velocities: what calibration found, turned into conductivities.

    velocities, models: by region. Regions not named are not corrected: leave them out of the run.
    Raises InputError for regions without a model, and as `correct`.
    """
    missing = sorted(set(velocities) - set(models))
    if missing:
        raise InputError("monodomain", "models", f"no cell model for {', '.join(missing)}", "give one for every region that has velocities")
    names = list(velocities)
    tissue = np.full(len(mesh.tets), -1, np.int32)
    diffusion = []
    for index, name in enumerate(names):
        tissue[mesh.region == REGIONS[name]] = index
        asked = velocities[name]
        pair = (asked.longitudinal_m_s, asked.transverse_m_s)
        diffusion.append((diffusion_of_speed_mm2_ms(pair[0], models[name]), diffusion_of_speed_mm2_ms(pair[1], models[name])))
    chosen = [models[name] for name in names]
    return correct(mesh.points_mm, mesh.tets, mesh.fibre, tissue, diffusion, chosen, tissue >= 0, tell, theta)


def find_lattice(points_mm: NDArray[np.float64], tets: NDArray[np.int32]) -> tuple[Lattice, float]:
    """The lattice most tetrahedra belong to, and their share. Raises InputError if there is none."""
    # enough to tell lattices apart, spread over the mesh
    tets = tets[:: max(1, len(tets) // LOOKED_AT)]
    edges = np.abs(points_mm[tets[:, 1:]] - points_mm[tets[:, :1]]).reshape(-1, 3)
    constants = [_most_common(edges[(np.delete(edges, axis, axis=1) < 1e-6).all(axis=1), axis]) for axis in range(3)]
    candidates = []
    if all(constants):
        x, y, z = (float(c) for c in constants if c)
        candidates = [lattices.box((x, y, z), variant) for variant in ("kuhn", "alternating")]
        candidates += [lattices.body_centred(x)] if max(x, y, z) - min(x, y, z) < 1e-6 * x else []
    shares = [float((c.match(points_mm, tets)[:, 0] >= 0).mean()) for c in candidates]
    if not candidates or max(shares) < LATTICE_SHARE.value:
        problem = "is not on a lattice, so the correction cannot be measured"
        raise InputError("monodomain", "mesh", problem, "mesh the heart with vtwin, or refine to 0.25 mm and leave the correction out")
    best = int(np.argmax(shares))
    return candidates[best], shares[best]


def _most_common(lengths: NDArray[np.float64]) -> float | None:
    value, count = np.unique(np.round(lengths, 7), return_counts=True)
    return float(value[np.argmax(count)]) if len(value) else None


@dataclass(frozen=True)
class _PerTet:
    strain: NDArray[np.float64]
    bend: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def _per_tet(lattice: Lattice, fibre: NDArray[np.float64], d_l: float, d_t: float, model: IonicModel, theta: float) -> _PerTet:
    """Strain (m, 6), bend (m,) and errors of the waves (m, w) at every fibre direction."""
    lines = fibre * np.where(fibre[np.arange(len(fibre)), np.argmax(np.abs(fibre) > 1e-3, axis=1)] < 0, -1.0, 1.0)[:, None]
    few, of_tet = np.unique(np.round(lines, 3), axis=0, return_inverse=True)
    if len(few) <= FEW_FIBRES:
        few = few / np.linalg.norm(few, axis=1)[:, None]
        table = measure(lattice, few, d_l, d_t, model, theta)
        i = of_tet.ravel()
        return _PerTet(table.strain[i], table.bend[i], table.before[i], table.after[i])
    if not is_cubic(lattice):
        remedy = "use few fibre directions in a box, or mesh it with `vtwin mesh`"
        raise InputError("monodomain", "mesh", "has many fibre directions on a lattice without the symmetry of a cube", remedy)
    return interpolate(measure(lattice, reduced_directions(), d_l, d_t, model, theta), fibre)


_GRID_PLACES = tuple(np.array([(i, j) for i in range(GRID + 1) for j in range(GRID + 1 - i)]).T)
"""Shares of the second and the third corner, in steps, for each direction of the triangle."""


def reduced_directions() -> NDArray[np.float64]:
    """The triangle [100], [110], [111] that every direction of a cubic lattice can be turned into, in GRID steps per side, (k, 3)."""
    corners = np.array([[1.0, 0, 0], [1, 1, 0], [1, 1, 1]])
    corners /= np.linalg.norm(corners, axis=1)[:, None]
    second, third = _GRID_PLACES
    grid = np.stack([GRID - second - third, second, third], axis=1) @ corners
    directions: NDArray[np.float64] = grid / np.linalg.norm(grid, axis=1)[:, None]
    return directions


def interpolate(table: Table, fibre: NDArray[np.float64]) -> _PerTet:
    """Read a table over `reduced_directions` at fibre directions (m, 3): turned into the triangle, interpolated linearly, turned back."""
    order = np.argsort(-np.abs(fibre), axis=1, kind="stable")
    x, y, z = np.take_along_axis(np.abs(fibre), order, axis=1).T
    share = np.stack([x - y, (y - z) * math.sqrt(2.0), z * math.sqrt(3.0)], axis=1)
    share *= GRID / share.sum(axis=1)[:, None]
    i, j = np.floor(share[:, 1] + 1e-12).astype(int), np.floor(share[:, 2] + 1e-12).astype(int)
    u, v = share[:, 1] - i, share[:, 2] - j
    upper = u + v > 1.0
    corner = [(i + upper, j + upper), (i + 1, j), (i, j + 1)]
    weight = [np.where(upper, u + v - 1.0, 1.0 - u - v), np.where(upper, 1.0 - v, u), np.where(upper, 1.0 - u, v)]
    lookup = np.zeros((GRID + 2, GRID + 2), np.int64)
    lookup[_GRID_PLACES] = np.arange(len(_GRID_PLACES[0]))

    def read(values: Values) -> Values:
        out = np.zeros((len(fibre), *values.shape[1:]))
        for at, w in zip(corner, weight):
            out += w.reshape(-1, *(1,) * (values.ndim - 1)) * values[lookup[at]]
        return out

    sign = np.where(fibre < 0, -1.0, 1.0)
    turned, strain = matrix(read(table.strain)), np.zeros((len(fibre), 3, 3))
    m = np.arange(len(fibre))
    for a, b in SYMMETRIC:
        k, n = order[:, a], order[:, b]
        strain[m, k, n] = strain[m, n, k] = sign[m, k] * sign[m, n] * turned[:, a, b]
    return _PerTet(components(strain), read(table.bend), read(table.before), read(table.after))


def _said(
    lattice: Lattice, s: _PerTet, d_l: float, d_t: float, factors: tuple[Values, Values], volume: NDArray[np.float64], model: IonicModel
) -> dict[str, Any]:
    """Of one tissue, as 5, 50 and 95 % of its volume: predicted errors of speeds, factors on the conductivities, bend."""

    def spread(values: Values) -> list[float]:
        repeated = np.repeat(volume, values.size // len(volume))
        order = np.argsort(values.ravel(), kind="stable")
        level = np.cumsum(repeated[order]) / repeated.sum()
        at = np.minimum(np.searchsorted(level, np.array([0.05, 0.5, 0.95])), len(order) - 1)
        return [float(x) for x in values.ravel()[order[at]]]

    along, across = (speed_per_sqrt_d(model) * math.sqrt(d) for d in (d_l, d_t))
    return {
        "speed_along_m_s": along,
        "speed_across_m_s": across,
        "edge_over_front_along": lattice.edge_mm * along / d_l,
        "edge_over_front_across": lattice.edge_mm * across / d_t,
        "error_along_before": spread(s.before[:, 0]),
        "error_across_before": spread(s.before[:, 1 : 1 + RING]),
        "error_along": spread(s.after[:, 0]),
        "error_across": spread(s.after[:, 1 : 1 + RING]),
        "error_oblique": spread(s.after[:, 1 + RING :]),
        "kappa_l": spread(factors[0]),
        "kappa_t": spread(factors[1]),
        "bend": spread(s.bend),
    }
