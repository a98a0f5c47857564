"""Which stimuli capture beside refractory tissue, and how late: monodomain at several edges, and the reduced model, on one block.

`python -m planners.confirm.capture [EDGE ...]` computes the monodomain side (a quarter of a block of healthy tissue with an electrode in
its middle, fibres along an axis of the lattice, which is the worst case for it) and keeps it; `--table` prints it beside the reduced
model's. The tissue comes from 105 beats at 600 ms, as in every confirmation.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.box import box_mesh
from planners.confirm.bench import Bench, BenchSettings, stimulus
from planners.confirm.border import DRIVE_MS
from planners.confirm.compare import ELECTRODE_MM, SPEEDS
from solvers.eikonal.reentrant import ReentrantEikonal, Settings
from solvers.eikonal.restitution import load_tables
from twin.atomic import write_json
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.tissue import Tissue

FILE = Path(__file__).with_name("data") / "capture.json"
SIZE_MM = (12.0, 8.0, 6.0)
COARSE_MM = 2.0
SHELL_MM = (2.5, 4.5)
"""Beyond the electrode, where the latency is read: the delay over that of the first beat, mean."""
EDGES_MM = (0.8, 0.4, 0.27)
S2_MS = (314.0, 318.0, 322.0, 326.0, 330.0, 335.0, 340.0, 350.0, 360.0, 380.0)
S3_AFTER_MS = 360.0
S3_MS = (240.0, 245.0, 250.0, 255.0, 260.0, 270.0, 280.0, 290.0)
WINDOW_MS, ALIVE_MS = 90.0, 190.0
CAPTURED_SHARE = 0.9

Row = dict[str, float | None]


def block() -> tuple[HeartMesh, NDArray[np.int32]]:
    """The quarter block at the spacing of a heart, and the nodes under the electrode."""
    mesh = box_mesh(SIZE_MM, COARSE_MM, (1.0, 0.0, 0.0), "alternating")
    return mesh, np.flatnonzero(np.linalg.norm(mesh.points_mm, axis=1) <= ELECTRODE_MM).astype(np.int32)


def shell(points_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nodes at which the latency is read."""
    r = np.linalg.norm(points_mm, axis=1) - ELECTRODE_MM
    return np.flatnonzero((r > SHELL_MM[0]) & (r < SHELL_MM[1]))


def delay_ms(log: Activations, nodes: NDArray[np.int64], since_ms: float) -> float | None:
    """Mean first activation of the nodes after a time, counted from it, ms; None where too few of them were reached."""
    rows = np.isin(log.node, nodes) & (log.activation_ms > since_ms)
    first = np.full(int(nodes.max()) + 1, np.inf)
    np.minimum.at(first, log.node[rows], log.activation_ms[rows])
    reached = first[nodes][np.isfinite(first[nodes])]
    return float(reached.mean() - since_ms) if len(reached) >= CAPTURED_SHARE * len(nodes) else None


def monodomain(edge_mm: float) -> dict[str, Any]:
    """Latencies (ms, None: no capture) of S2 by coupling and of S3 after S3_AFTER_MS, on a lattice of this mean edge."""
    began = time.process_time()
    mesh, site = block()
    bench = Bench(Twin(mesh, Tissue.known(SPEEDS), np.eye(4)), np.ones(len(mesh.tets), bool), BenchSettings(edge_mm=edge_mm))
    solver, own, nodes = bench.solver, bench.part.electrode(site), shell(bench.part.mesh.points_mm)

    def run(times: Sequence[float], until_ms: float) -> Activations:
        return solver.run([stimulus(own, t) for t in times], until_ms).activations

    beat = delay_ms(run([0.0], S3_MS[0]), nodes, 0.0)
    assert beat is not None, "tissue at rest is captured"
    first = beat
    state = solver.snapshot()

    def latencies(head: Sequence[float], couplings: Sequence[float]) -> Row:
        out: Row = {}
        start = solver.snapshot()
        for coupling in couplings:
            solver.restore(start)
            times = [*head, head[-1] + coupling]
            late = delay_ms(run(times, times[-1] + WINDOW_MS), nodes, times[-1])
            out[f"{coupling:g}"] = None if late is None else round(late - first, 1)
        return out

    s2 = latencies([0.0], S2_MS)
    solver.restore(state)
    run([0.0, S3_AFTER_MS], S3_AFTER_MS + ALIVE_MS)
    s3 = latencies([0.0, S3_AFTER_MS], S3_MS)
    tissue = bench.report["tissues"][0]
    return {
        "edge_mm": round(solver.mean_edge_mm, 3),
        "nodes": len(solver.nodes),
        "sodium_gain": bench.report["sodium_gain"]["healthy"],
        "factor_along": round(tissue["kappa_l"][1], 2),
        "factor_across": round(tissue["kappa_t"][1], 2),
        "s2_ms": s2,
        "s3_ms": s3,
        "cpu_s": round(time.process_time() - began, 1),
    }


def reduced(settings: Settings | None = None) -> dict[str, Row]:
    """The same by the reduced model."""
    mesh, site = block()
    model, nodes = ReentrantEikonal(mesh, SPEEDS, load_tables(), settings), shell(mesh.points_mm)

    _, log = model.run(model.rest(), [(-DRIVE_MS, site), (0.0, site)], WINDOW_MS)
    beat = delay_ms(log.activations, nodes, 0.0)
    assert beat is not None, "tissue at rest is captured"
    first = beat

    def latencies(head: Sequence[float], couplings: Sequence[float]) -> Row:
        state = model.run(model.rest(), [(t, site) for t in (-DRIVE_MS, *head)], head[-1] + couplings[0] - 1e-3)[0]
        out: Row = {}
        for coupling in couplings:
            at = head[-1] + coupling
            late = delay_ms(model.run(state, [(at, site)], at + WINDOW_MS)[1].activations, nodes, at)
            out[f"{coupling:g}"] = None if late is None else round(late - first, 1)
        return out

    return {"s2_ms": latencies([0.0], S2_MS), "s3_ms": latencies([0.0, S3_AFTER_MS], S3_MS)}


def load() -> dict[str, Any]:
    """What is kept: by edge."""
    document: dict[str, Any] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    return document


def table(kept: Mapping[str, Any]) -> str:
    """Couplings down, edges and the reduced model across, as Markdown."""
    columns = {f"{k} mm": v for k, v in kept.items()} | {"eikonal": reduced()}
    lines = ["| stimulus | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, rows, head in (("s2_ms", S2_MS, "S2"), ("s3_ms", S3_MS, f"S2 {S3_AFTER_MS:g}, S3")):
        for coupling in rows:
            said = [c[name][f"{coupling:g}"] for c in columns.values()]
            lines.append(f"| {head} {coupling:g} | " + " | ".join("-" if s is None else f"{s:.0f}" for s in said) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Compute the edges that are named, all if none is; `--table` prints what is there."""
    if "--table" in arguments:
        print(table(load()))
        return
    for edge in [float(a) for a in arguments] or EDGES_MM:
        write_json(FILE, {**load(), f"{edge:g}": monodomain(edge)})


if __name__ == "__main__":
    main(sys.argv[1:])
