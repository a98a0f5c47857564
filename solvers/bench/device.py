"""The whole monodomain step on a GPU against the time its memory needs to move the same bytes once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from meshing.box import box_mesh
from solvers.ionic import Cells, ionic_model
from solvers.monodomain.device import device_name, unusable
from solvers.monodomain.solver import Monodomain, Settings

MODEL = "ten_tusscher_panfilov_2006"
SPACING_MM, NODES_PER_SIDE, DT_MS = 0.35, 100, 0.05
D_L_MM2_MS, D_T_MM2_MS = 0.0953, 0.0126
SIMULATED_MS = 20.0
COPY_MIB, COPIES = 512, 10


def records() -> list[dict[str, Any]]:
    """One record: 1 million nodes, seconds per simulated second; one that says why not where there is no GPU."""
    problem = unusable()
    if problem is not None:
        return [{"name": f"device/{MODEL}", "skipped": f"no GPU: {problem}"}]
    return [measure(NODES_PER_SIDE, SIMULATED_MS, COPY_MIB)]


def measure(nodes_per_side: int, simulated_ms: float, copy_mib: int) -> dict[str, Any]:
    """Time a cube through which a front runs.

    value: seconds per simulated second; reference: what its bytes (each array once per launch that needs it) take at the speed of a plain
    copy on the same device; ratio: the share of that roofline that is reached.
    """
    solver = _cube(nodes_per_side)
    device = solver.device
    assert device is not None
    # compiles, and gets the front and the copies of the state out of the way
    solver.run([], 1.0)
    start = time.perf_counter()
    solver.run([], 1.0 + simulated_ms)
    wall = time.perf_counter() - start
    steps = round(simulated_ms / solver.dt_ms)
    floor = steps * device.bytes_per_step / _copy_bytes_s(copy_mib)
    return {
        "name": f"device/{MODEL}/float32/{len(solver.nodes)}_nodes/dt{solver.dt_ms:g}",
        "value": 1000.0 * wall / simulated_ms,
        "unit": "s per simulated s",
        "reference": 1000.0 * floor / simulated_ms,
        "ratio": floor / wall,
        "device": device_name(),
        "bytes_per_node_step": device.bytes_per_step / len(solver.nodes),
        "padding": device.padding,
    }


def _cube(nodes_per_side: int) -> Monodomain:
    """A cube with one side raised."""
    mesh = box_mesh(((nodes_per_side - 1) * SPACING_MM,) * 3, SPACING_MM, variant="alternating")
    m = len(mesh.tets)
    model = ionic_model(MODEL, cell="epi")
    solver = Monodomain(
        mesh.points_mm,
        mesh.tets,
        mesh.fibre,
        np.full(m, D_L_MM2_MS),
        np.full(m, D_T_MM2_MS),
        lambda nodes: Cells([model], np.zeros(len(nodes), np.int32)),
        Settings(dt_ms=DT_MS, device="cuda"),
    )
    solver.set_v_mv(np.where(mesh.points_mm[:, 0] < 2.0, 0.0, -85.0))
    return solver


def _copy_bytes_s(mib: int) -> float:
    """Bytes per second, read and written, of a copy from the device's memory to itself."""
    from numba import cuda

    a, b = (cuda.to_device(np.zeros(mib << 18, np.float32)) for _ in range(2))
    b.copy_to_device(a)
    cuda.synchronize()
    start = time.perf_counter()
    for _ in range(COPIES):
        b.copy_to_device(a)
    cuda.synchronize()
    return 2.0 * COPIES * a.nbytes / (time.perf_counter() - start)
