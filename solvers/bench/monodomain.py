"""Cost of a monodomain step, whole and in parts, against the same work done plainly in the same run; 3 million nodes take 5 GB."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from meshing.box import box_mesh
from solvers.ionic import Cells, ionic_model
from solvers.kernels import sparse
from solvers.kernels.ionic import plain_kernel
from solvers.monodomain import solver as solver_module
from solvers.monodomain.log import BeatLog
from solvers.monodomain.operators import Diffusion, build, products_needed
from solvers.monodomain.schemes import Explicit
from solvers.monodomain.solver import DT_MS, Monodomain, Settings
from twin.check_record import timed

D_L_MM2_MS, D_T_MM2_MS = 0.0953, 0.0126
SLAB_MM, SPACING_MM = (20.0, 7.0, 3.0), 0.2
MODEL = "ten_tusscher_panfilov_2006"
SIZES, SIZE_SPACING_MM = (10_000, 100_000, 1_000_000, 3_000_000), 0.3
STEPS, NODE_STEPS = 20, 6_000_000


def records() -> list[dict[str, Any]]:
    """Nanoseconds per node and step on all threads: the whole, its parts, threads, sizes; bytes per node."""
    fast = _slab(SLAB_MM, SPACING_MM)
    return [_diffusion(fast), _whole(fast), *_parts(fast), _threads(fast), _memory(fast), *_sizes()]


def _diffusion(fast: Monodomain) -> dict[str, Any]:
    """The diffusion operator against SciPy's three products in float64."""
    n, v = len(fast.nodes), fast.v_mv()[fast.nodes].astype(np.float32)
    diffusion = Diffusion(fast.ops, fast.settings.theta, fast.settings.products or 0, np.float32)
    k, a = _scipy(fast)
    wide = v.astype(float)
    scipy_ns = _best_ns(lambda: a @ (a @ (k @ wide)), n)
    return _record(f"diffusion/theta0.3/float32/{n}_nodes", _best_ns(lambda: diffusion.apply(v), n), scipy_ns)


def _whole(fast: Monodomain) -> dict[str, Any]:
    """The step against that of the reference scheme."""
    n, plain = len(fast.nodes), _slab(SLAB_MM, SPACING_MM, "reference", "float64")
    reference = _best_ns(lambda: plain.run([], plain.time_ms + 3 * plain.dt_ms), 3 * n, times=3)
    return _record(f"step/{MODEL}/theta0.3/float32/{n}_nodes", _step_ns(fast), reference)


def _parts(fast: Monodomain) -> list[dict[str, Any]]:
    """Reaction against a plain loop; each product and the update with its search for crossings against SciPy and NumPy."""
    n, ops = len(fast.nodes), fast.ops
    diffusion = Diffusion(ops, fast.settings.theta, fast.settings.products or 0, np.float32)
    v = np.ascontiguousarray(fast.v_mv()[fast.nodes], np.float32)
    y, out, current, one = np.zeros_like(v), np.zeros_like(v), np.zeros_like(v), np.float32(1.0)
    log, dt = fast.log, np.float32(fast.dt_ms)
    noted = (log.levels_mv, log.step_node, log.step_ms, log.found, log.above, log.bad)
    k, a = _scipy(fast)
    wide, wide_current = v.astype(float), np.zeros(n)

    def plain_update() -> NDArray[np.float64]:
        new = wide - fast.dt_ms * (wide_current + a @ wide)
        up, down = (wide < -40.0) & (new >= -40.0), (wide > -70.0) & (new <= -70.0)
        return new[up | down]

    held = v.copy()
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "reaction": (lambda: fast.cells.advance(v, fast.dt_ms, current), _plain_reaction(v)),
        "stiffness_product": (
            lambda: sparse.stiffness_product(diffusion.start, diffusion.column, diffusion.stiffness, v, y),
            lambda: k @ wide,
        ),
        "mass_product": (
            lambda: sparse.mass_horner(diffusion.start, diffusion.column, diffusion.mass, v, one, y, one, out),
            lambda: a @ wide,
        ),
        "update_and_detection": (
            lambda: sparse.update(diffusion.start, diffusion.column, diffusion.mass, y, one, y, one, current, held, dt, 0.0, *noted),
            plain_update,
        ),
    }
    return [_record(f"part/{name}/float32/{n}_nodes", _best_ns(mine, n), _best_ns(theirs, n)) for name, (mine, theirs) in pairs.items()]


def _plain_reaction(v: NDArray[np.float32]) -> Callable[[], object]:
    """The loop over cells that one would write by hand, on cells of its own."""
    model = ionic_model(MODEL, cell="epi")
    kernel = plain_kernel(model.name, model.step(), model.state_names, tuple(model.parameters))
    state = np.repeat(model.initial_state[:, None], len(v), axis=1).astype(np.float32)
    row, current, dt = model.row().astype(np.float32), np.empty_like(v), np.float32(0.05)
    return lambda: kernel(state, row, v, current, dt)


def _threads(fast: Monodomain) -> dict[str, Any]:
    """All threads against one."""
    every = numba.get_num_threads()
    numba.set_num_threads(1)
    one_ns = _step_ns(fast)
    numba.set_num_threads(every)
    return _record(f"threads/{every}/float32/{len(fast.nodes)}_nodes", _step_ns(fast), one_ns)


def _memory(fast: Monodomain) -> dict[str, Any]:
    """Bytes per node of what a run holds, against cells and both matrices in float64 and CSR alone."""
    ops, log, n = fast.ops, fast.log, len(fast.nodes)
    cells = sum(g.state.nbytes + g.index.nbytes for g in fast.cells.groups)  # type: ignore[attr-defined]
    pattern = ops.start.nbytes + ops.column.nbytes
    matrices = pattern + ops.stiffness.nbytes + ops.mass.nbytes + len(ops.column) * 8
    logs = sum(a.nbytes for a in vars(log).values() if isinstance(a, np.ndarray))
    vectors = 6 * 4 * n + ops.lumped.nbytes + ops.nodes.nbytes
    states = len(ionic_model(MODEL, cell="epi").state_names) + 1
    plain = (8 * states + 8) * n + 2 * (12 * (len(ops.column) + n) + 4 * n)
    return _record(f"memory/{MODEL}/float32/{n}_nodes", (cells + matrices + logs + vectors) / n, plain / n, "bytes/node")


def _sizes() -> list[dict[str, Any]]:
    """Cost per node of cubes: linear if the ratio to the smallest stays."""
    costs = {}
    for size in SIZES:
        cube = _Bare(round(size ** (1.0 / 3.0)))
        n = len(cube.v)
        steps = max(1, min(STEPS, NODE_STEPS // n))
        costs[n] = _best_ns(partial(cube.run, steps), steps * n, times=8 if steps > 2 else 3)
    first = next(iter(costs.values()))
    return [_record(f"size/{n}_nodes", ns, first) for n, ns in costs.items()]


class _Bare:
    """What a step of `Monodomain` does, for a cube with a front running: finding the step of 3 million nodes alone takes a minute."""

    def __init__(self, side: int) -> None:
        mesh = box_mesh(((side - 1) * SIZE_SPACING_MM,) * 3, SIZE_SPACING_MM, variant="alternating")
        m = len(mesh.tets)
        ops = build(mesh.points_mm, mesh.tets, mesh.fibre, np.full(m, D_L_MM2_MS), np.full(m, D_T_MM2_MS))
        n, x, settings = len(ops.nodes), mesh.points_mm[ops.nodes, 0], Settings()
        self.cells = Cells([ionic_model(MODEL, cell="epi")], np.zeros(n, np.int32))
        self.v = np.where(x < 2.0, 0.0, -85.0).astype(np.float32)
        self.current = np.zeros_like(self.v)
        self.log = BeatLog(ops.nodes, settings.threshold_mv, settings.recovery_mv)
        self.scheme = Explicit(ops, settings.theta, products_needed(settings.theta), DT_MS.value, np.float32)
        self.step = 0
        self.run(max(4, NODE_STEPS // n // 10))

    def run(self, steps: int) -> None:
        """Go on."""
        for _ in range(steps):
            self.cells.advance(self.v, DT_MS.value, self.current)
            self.scheme.advance(self.v, self.current, self.step * DT_MS.value, self.log)
            self.log.collect()
            self.step += 1


def _step_ns(s: Monodomain) -> float:
    """Whole steps, a front running; on all threads that are set, however small the mesh is."""
    few = solver_module.NODES_PER_THREAD
    try:
        solver_module.NODES_PER_THREAD = 1
        return _best_ns(lambda: s.run([], s.time_ms + STEPS * s.dt_ms), STEPS * len(s.nodes))
    finally:
        solver_module.NODES_PER_THREAD = few


def _scipy(s: Monodomain) -> tuple[sp.csr_array, sp.csr_array]:
    stiffness, mass = s.ops.matrices()
    inverse = sp.diags_array(1.0 / s.ops.lumped)
    return (inverse @ stiffness).tocsr(), (inverse @ mass).tocsr()


def _slab(size_mm: tuple[float, float, float], spacing_mm: float, scheme: str = "explicit", precision: str = "float32") -> Monodomain:
    """A slab with its left end raised, so that a front runs while the clock does."""
    mesh = box_mesh(size_mm, spacing_mm, variant="alternating")
    m = len(mesh.tets)
    model = ionic_model(MODEL, cell="epi")
    solver = Monodomain(
        *(mesh.points_mm, mesh.tets, mesh.fibre, np.full(m, D_L_MM2_MS), np.full(m, D_T_MM2_MS)),
        lambda nodes: Cells(models=[model], region_of_node=np.zeros(len(nodes), np.int32), precision=precision),
        Settings(scheme=scheme),
    )
    solver.set_v_mv(np.where(mesh.points_mm[:, 0] < 2.0, 0.0, -85.0))
    solver.run([], 1.0)
    return solver


def _best_ns(work: Callable[[], object], units: int, times: int = 5) -> float:
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return float(best * 1e9 / units)


def _record(name: str, value: float, reference: float, unit: str = "ns/node") -> dict[str, Any]:
    return timed(f"monodomain/{name}", value, unit, reference)
