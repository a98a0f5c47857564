"""Cost of a monodomain step, against the same work done plainly in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from meshing.box import box_mesh
from solvers.ionic import Cells, ionic_model
from solvers.monodomain.operators import Diffusion
from solvers.monodomain.solver import Monodomain, Settings

D_L_MM2_MS, D_T_MM2_MS = 0.0953, 0.0126


def records() -> list[dict[str, Any]]:
    """Nanoseconds per node: diffusion alone against SciPy's products, the whole step against the reference scheme (float64)."""
    fast, plain = _slab("explicit", "float32"), _slab("reference", "float64")
    n = len(fast.nodes)
    step = _best_ns(lambda: fast.run([], fast.time_ms + 20 * fast.dt_ms), 20 * n)
    reference = _best_ns(lambda: plain.run([], plain.time_ms + 3 * plain.dt_ms), 3 * n, times=3)
    v = fast.v_mv()[fast.nodes].astype(np.float32)
    products = fast.settings.products or 0
    diffusion = Diffusion(fast.ops, fast.settings.theta, products, np.float32)
    stiffness, mass = fast.ops.matrices()
    inverse = sp.diags_array(1.0 / fast.ops.lumped)
    k, a = (inverse @ stiffness).tocsr(), (inverse @ mass).tocsr()
    wide = v.astype(float)
    scipy_ns = _best_ns(lambda: a @ (a @ (k @ wide)), n)
    apply = _best_ns(lambda: diffusion.apply(v), n)
    return [
        _record(f"monodomain/diffusion/theta0.3/float32/{n}_nodes", apply, scipy_ns),
        _record(f"monodomain/step/ten_tusscher_panfilov_2006/theta0.3/float32/{n}_nodes", step, reference),
    ]


def _slab(scheme: str, precision: str) -> Monodomain:
    """The Niederer slab at 0.2 mm with its left end raised, so that a front runs while the clock does."""
    mesh = box_mesh((20.0, 7.0, 3.0), 0.2, variant="alternating")
    m = len(mesh.tets)
    model = ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={})
    solver = Monodomain(
        mesh.points_mm,
        mesh.tets,
        mesh.fibre,
        np.full(m, D_L_MM2_MS),
        np.full(m, D_T_MM2_MS),
        lambda nodes: Cells(models=[model], region_of_node=np.zeros(len(nodes), np.int32), precision=precision),
        Settings(scheme=scheme),
    )
    solver.set_v_mv(np.where(mesh.points_mm[:, 0] < 2.0, 0.0, -85.0))
    solver.run([], 2.0)
    return solver


def _best_ns(work: Callable[[], object], units: int, times: int = 5) -> float:
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return float(best * 1e9 / units)


def _record(name: str, value: float, reference: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "ns/node", "reference": reference, "ratio": reference / value}
