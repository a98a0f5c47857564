"""Cost of eikonal solves, against the same local update in plain NumPy sweeps over all tetrahedra in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.box import box_mesh
from solvers.eikonal.mesh import EikonalMesh
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import RestitutionTable
from twin.check_record import timed
from twin.mesh import HeartMesh
from twin.tissue import Velocity

SPEED = Velocity(0.6, 0.25)
BEATS, CYCLE_MS = 4, 600.0


def records(fine_mm: float = 1.0, coarse_mm: float = 2.0, repeats: int = 3, large_mm: float = 0.55) -> list[dict[str, Any]]:
    """CPU microseconds per node of one first arrival and of one re-excitable beat, and CPU seconds per million tetrahedra.

    The large meshes (a million tetrahedra by default) are solved in float64, in float32, and with their numbers scattered.

    The reference is per node too, but on the coarse mesh: sweeps need more rounds on a fine one, so the ratio is a lower bound.
    """
    mesh, coarse = (box_mesh((48.0, 48.0, 15.0), h, (0.8, 0.6, 0.0), "alternating") for h in (fine_mm, coarse_mm))
    geometry, small = (EikonalMesh(m.points_mm, m.tets, m.fibre) for m in (mesh, coarse))
    length2 = small.metric_lengths2(SPEED.longitudinal_m_s, SPEED.transverse_m_s)
    plain = _best_us(lambda: sweeps(small.tets, length2, coarse.n_points), coarse.n_points, 1)
    solve = _best_us(lambda: geometry.solve(SPEED.longitudinal_m_s, SPEED.transverse_m_s, 0), mesh.n_points, repeats)
    beat = _best_us(lambda: _beats(mesh), BEATS * mesh.n_points, repeats)
    size = f"{len(mesh.tets)}_tets"
    return [
        _record(f"eikonal/first_arrival/{size}", solve, plain),
        _record(f"eikonal/reentrant_beat/{size}", beat, plain),
        *_large(box_mesh((48.0, 48.0, 15.0), large_mm, (0.8, 0.6, 0.0), "alternating"), plain, repeats),
    ]


def _large(mesh: HeartMesh, plain_us: float, repeats: int) -> list[dict[str, Any]]:
    """CPU seconds per million tetrahedra; the reference scales the plain sweeps' time per node of the coarse mesh."""
    shuffle = np.random.default_rng(0).permutation(mesh.n_points)
    place = np.empty_like(shuffle)
    place[shuffle] = np.arange(mesh.n_points)
    million = len(mesh.tets)
    reference = plain_us * mesh.n_points / million

    def tables() -> EikonalMesh:
        return EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre)

    geometries = {
        "float64": tables(),
        "float32": EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre, precision="float32"),
        "scattered": EikonalMesh(mesh.points_mm[shuffle], place[mesh.tets], mesh.fibre),
    }
    out = [_record("eikonal/tables/float64", _best_us(tables, million, 1), reference, "s/1e6 tets")]
    for name, geometry in geometries.items():

        def once(geometry: EikonalMesh = geometry) -> object:
            return geometry.solve(SPEED.longitudinal_m_s, SPEED.transverse_m_s, 0)

        out.append(_record(f"eikonal/first_arrival/{million}_tets/{name}", _best_us(once, million, repeats), reference, "s/1e6 tets"))
    return out


_EDGE = {(0, 1): 0, (0, 2): 1, (0, 3): 2, (1, 2): 3, (1, 3): 4, (2, 3): 5}


def sweeps(tets: NDArray[np.int32], length2: NDArray[np.floating], n: int) -> NDArray[np.float64]:
    """First arrival from node 0 by Jacobi sweeps over all tetrahedra, (n,) ms: what one would write without a compiler."""
    time = np.full(n, np.inf)
    time[0] = 0.0
    while True:
        new = time.copy()
        for v in range(4):
            others = [u for u in range(4) if u != v]
            np.minimum.at(new, tets[:, v], _update(time[tets[:, others]], length2, v, others))
        if not (new < time - 1e-3).any():
            return new
        time = new


def _update(t: NDArray[np.float64], length2: NDArray[np.floating], v: int, others: list[int]) -> NDArray[np.float64]:
    """Minimum over vertices, edges and face of one simplex of every tetrahedron at once."""

    def between(i: int, j: int) -> NDArray[np.floating]:
        return length2[:, _EDGE[min(i, j), max(i, j)]]

    to = np.stack([between(v, u) for u in others], axis=1)
    gram = np.empty((len(t), 3, 3))
    for a in range(3):
        for b in range(3):
            gram[:, a, b] = to[:, a] if a == b else 0.5 * (to[:, a] + to[:, b] - between(others[a], others[b]))
    best = (t + np.sqrt(to)).min(axis=1)
    for subset in ([0, 1], [0, 2], [1, 2], [0, 1, 2]):
        rows = np.isfinite(t[:, subset]).all(axis=1)
        inverse = np.linalg.inv(gram[rows][:, subset][:, :, subset])
        late = t[rows][:, subset]
        first = late.min(axis=1)
        d = late - first[:, None]
        a = inverse.sum(axis=(1, 2))
        b = np.einsum("mij,mj->m", inverse, d)
        root = b * b - a * (np.einsum("mi,mij,mj->m", d, inverse, d) - 1.0)
        up = (b + np.sqrt(np.maximum(root, 0.0))) / a
        inside = (np.einsum("mij,mj->mi", inverse, up[:, None] - d) >= 0.0).all(axis=1) & (root >= 0.0)
        best[rows] = np.where(inside, np.minimum(best[rows], first + up), best[rows])
    return best


def _beats(mesh: HeartMesh) -> int:
    table = RestitutionTable(np.array([40.0, 600.0]), np.array([220.0, 300.0]), np.array([0.6, 1.0]), "bench")
    model = ReentrantEikonal(mesh, {"healthy": SPEED}, {"healthy": table})
    stimuli = [(k * CYCLE_MS, np.array([0])) for k in range(BEATS)]
    _, log = model.run(model.rest(), stimuli, BEATS * CYCLE_MS)
    return len(log.activations.node)


def _best_us(work: Callable[[], object], units: int, repeats: int) -> float:
    # once before the clock starts: compiled code is loaded
    work()
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return float(best * 1e6 / units)


def _record(name: str, value: float, reference: float, unit: str = "us/node") -> dict[str, Any]:
    return timed(name, value, unit, reference)
