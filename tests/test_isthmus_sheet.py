"""The published infarct sheet, whose circuit is known: its minimum cut is the isthmus's width, and cutting it ends the reentry."""

from __future__ import annotations

import numpy as np
import pytest
from test_reentrant import infarct_sheet

from meshing import p1
from planners.circuits import Reentry, describe
from planners.circuits.loop import typical_cycle_ms
from planners.circuits.sections import Sections
from planners.lesions.isthmus_transection import channel_of, separated
from planners.lesions.mincut import minimum_vertex_cut
from planners.pacing.trace import reentered, tail
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import load_tables
from twin.model import Twin
from twin.tissue import Tissue, Velocity

SPEEDS = {"healthy": Velocity(0.60, 0.40), "border_zone": Velocity(0.30, 0.20)}
WIDTH_MM, EDGE_MM = 5.0, 1.12
FOLLOW_MS = 2500.0


def sheet_twin() -> Twin:
    mesh = infarct_sheet()
    names = tuple(f"{region}/cv_{way}_m_s" for region in SPEEDS for way in ("longitudinal", "transverse"))
    values = np.array([v for s in SPEEDS.values() for v in (s.longitudinal_m_s, s.transverse_m_s)])
    none = np.zeros(0)
    return Twin(mesh, Tissue(names, values[None], values, values, {}, none.astype(np.int32), none), np.eye(4))


def paced(model: ReentrantEikonal, nodes: np.ndarray, coupling_ms: float):
    """S1 twice at 600 ms and S2; the log from S2 on."""
    state, _ = model.run(model.rest(), [(0.0, nodes), (600.0, nodes)], 600.0 + coupling_ms - 1e-3)
    _, log = model.run(state, [(600.0 + coupling_ms, nodes)], 600.0 + coupling_ms + FOLLOW_MS)
    return log.activations


@pytest.fixture(scope="module")
def anchored():
    """The twin, its model, an electrode below the isthmus, the S2 that anchors a reentry, its circuit, its last cycles and cycle length."""
    twin = sheet_twin()
    model = ReentrantEikonal(twin.mesh, SPEEDS, load_tables())
    nodes = np.flatnonzero(np.linalg.norm(twin.mesh.points_mm[:, :2] - (50.0, 0.0), axis=1) < 6.0).astype(np.int32)
    for coupling in np.arange(380.0, 240.0, -5.0):
        log = paced(model, nodes, float(coupling))
        if reentered(log, 600.0 + coupling) >= 4 and log.activation_ms.max() > 600.0 + coupling + FOLLOW_MS - 300.0:
            cycle = typical_cycle_ms(log)
            last = tail(log, float(log.activation_ms.max()) - 3.2 * cycle)
            return twin, model, nodes, float(coupling), describe(Reentry.of(twin.mesh), last), last, cycle
    pytest.fail("no S2 anchors a reentry")


def minimum_cut(twin: Twin, circuit) -> np.ndarray:
    """Nodes of the least tissue that separates the isthmus's ends."""
    channel = channel_of(twin.mesh, Sections(twin.mesh), circuit)
    volume = p1.lumped_mass(twin.mesh.points_mm, twin.mesh.tets)[channel.nodes]
    cost = np.maximum(1, np.rint(1000.0 * volume)).astype(np.int64)
    return channel.nodes[minimum_vertex_cut(channel.edges, cost, channel.source, channel.sink)]


@pytest.mark.real
def test_the_minimum_cut_is_the_isthmus_width(anchored):
    twin, model, nodes, coupling, circuit, _, _ = anchored
    assert abs(circuit.isthmus_width_mm - WIDTH_MM) < 0.5
    cut = minimum_cut(twin, circuit)
    x, y, _ = twin.mesh.points_mm[cut].T
    # from one bank to the other, in one line, one row of nodes deep: no detour along the channel
    assert np.ptp(x) == pytest.approx(WIDTH_MM, abs=EDGE_MM)
    assert np.ptp(y) < 2.0 * EDGE_MM + 0.5
    depth = p1.lumped_mass(twin.mesh.points_mm, twin.mesh.tets)[cut].sum() / (WIDTH_MM * 1.0)
    assert 0.3 * EDGE_MM < depth < 1.5 * EDGE_MM
    blocked = np.isin(twin.mesh.tets, cut).any(axis=1)
    assert separated(twin.mesh, channel_of(twin.mesh, Sections(twin.mesh), circuit), blocked)
    after = paced(model.with_blocked(blocked), nodes, coupling)
    assert reentered(after, 600.0 + coupling) == 0


@pytest.mark.real
@pytest.mark.slow
def test_cutting_it_ends_the_reentry_in_monodomain(anchored):
    from planners.confirm.bench import Bench, BenchSettings

    twin, _, _, _, circuit, log, cycle = anchored
    blocked = np.isin(twin.mesh.tets, minimum_cut(twin, circuit)).any(axis=1)
    everything = twin.mesh.conducting()
    before = Bench(twin, everything, BenchSettings(cycles=2)).start(log, cycle)
    assert before.sustained
    after = Bench(twin, everything, BenchSettings(cycles=2), blocked=blocked).start(log, cycle)
    assert after.ended == "quiet"
    assert after.laps < 2
    print(f"monodomain: {before.cycle_length_ms} ms against {cycle:.1f}; with the cut quiet after {after.lasted_ms:.0f} ms")
