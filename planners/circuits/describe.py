"""From an activation log to circuits: one description per induced tachycardia, and which of them are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from planners.circuits.isthmus import depth_name, find_isthmus, segment_at, smooth_closed, wall_direction
from planners.circuits.loop import Loop, ancestors, find_loops
from planners.circuits.sections import Sections
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.params import Param
from twin.plan import Circuit

SAME_PLACE = Param(
    10.0,
    "mm",
    5.0,
    15.0,
    "centres of isthmuses nearer than this are one; accuracy of exit localisation is 9.6 mm (Monaci 2023; the paper itself not read)",
)
SAME_CYCLE = Param(
    0.10,
    "",
    0.05,
    0.15,
    "steady cycle lengths within this share are one tachycardia, and steady is one whose cycles vary less; our choice, twice the cycle "
    "tolerance of the protocols. Others wander: in a heart with two isthmuses by 20 to 60 % within seconds (docs/planner.md)",
)
OTHER_ECG = Param(
    0.70, "1", 0.5, 0.85, "chosen here: below this likeness of the 12-lead ECGs one isthmus has two exits, so two tachycardias"
)
SAME_WAY = Param(
    0.90,
    "1",
    0.80,
    0.95,
    "chosen here: coherence of phases along both loops (planners/circuits/sequence.py) from which two are one circuit",
)
SAME_ECG = Param(0.95, "1", 0.90, 0.98, "chosen here: from this likeness on, isthmuses up to the upper end of SAME_PLACE apart are one")
LEAST_ISTHMUS_MM = 3.0
"""What is shorter, two steps of its search, is the narrowest place of a wide loop and no channel."""

STEP_MM = 1.5
SMOOTH_MM = 3.0


@dataclass(frozen=True)
class Reentry:
    """What `describe` needs to know about the mesh, computed once per mesh and lesion set."""

    mesh: HeartMesh
    sections: Sections
    edge_mm: float
    wall: NDArray[np.float64] | None

    @staticmethod
    def of(mesh: HeartMesh, blocked: NDArray[np.bool_] | None = None) -> Reentry:
        """Prepare a mesh; blocked (m,): tetrahedra of lesions already made."""
        sample = mesh.tets[:: max(1, len(mesh.tets) // 5000)]
        edge = float(np.median(np.linalg.norm(mesh.points_mm[sample[:, 0]] - mesh.points_mm[sample[:, 1]], axis=1)))
        return Reentry(mesh, Sections(mesh, blocked), edge, wall_direction(mesh))


def describe(reentry: Reentry, log: Activations, site: str = "") -> Circuit | None:
    """Describe the circuit that keeps a log's activity going; None if nothing reenters or the log is too short to tell.

    log: activations of the last two or three cycles with parents (index into the log, negative where unknown).
    """
    points = reentry.mesh.points_mm
    loops = find_loops(points, log, 1.5 * reentry.edge_mm)
    if not loops:
        return None
    loop = loops[0]
    # the first and the last row are the same place, one cycle apart
    nodes, times = log.node[loop.rows[:-1]], log.activation_ms[loop.rows[:-1]]
    path, index = smooth_closed(points[nodes], STEP_MM, SMOOTH_MM)
    time = np.interp(index, np.arange(len(nodes) + 1, dtype=float), np.append(times, times[0] + loop.cycle_length_ms))
    isthmus = find_isthmus(reentry.mesh, reentry.sections, reentry.wall, path, time, loop.cycle_length_ms)
    if isthmus is None:
        return None
    return Circuit(
        id="",
        cycle_length_ms=round(loop.cycle_length_ms, 3),
        path_mm=_rounded(np.concatenate([path, path[:1]])),
        isthmus_mm=_rounded(isthmus.path_mm),
        isthmus_width_mm=round(isthmus.narrowest.width_mm, 3),
        entrance_mm=_rounded(isthmus.path_mm[0]),
        exit_mm=_rounded(isthmus.exit_mm),
        segment=segment_at(reentry.mesh, isthmus.exit_mm),
        sites=(site,) if site else (),
        centre_mm=_rounded(isthmus.centre_mm),
        isthmus_length_mm=round(isthmus.length_mm, 3),
        isthmus_velocity_m_s=round(isthmus.velocity_m_s, 4),
        depth=depth_name(reentry.mesh, isthmus.narrowest),
        figure_of_eight=second_loop(points, log, loop, isthmus.path_mm, path),
        cycle_variation_ms=round(loop.variation_ms, 3),
    )


def second_loop(
    points_mm: NDArray[np.float64], log: Activations, loop: Loop, isthmus_mm: NDArray[np.float64], path_mm: NDArray[np.float64]
) -> bool:
    """True if the wave also returns to the isthmus's mouth by another way, more than 15 mm from the first for a third of it.

    The common pathway is fed by whichever way is first; the other is found from late activations around the entrance.
    """
    last = log.activation_ms[loop.rows[-1]]
    place = points_mm[log.node]
    near = np.linalg.norm(place - isthmus_mm[0], axis=1) < 20.0
    recent = np.flatnonzero(near & (log.activation_ms > last - loop.cycle_length_ms))
    middle = isthmus_mm[len(isthmus_mm) // 2]
    for row in recent[np.unique(np.linspace(0, len(recent) - 1, 40).astype(int))] if len(recent) else ():
        chain = ancestors(log, int(row))
        back = log.activation_ms[row] - log.activation_ms[chain]
        inside = np.flatnonzero((np.linalg.norm(place[chain] - middle, axis=1) < 6.0) & (back > 0.3 * loop.cycle_length_ms))
        if not len(inside) or back[inside[0]] > 1.1 * loop.cycle_length_ms:
            continue
        way = place[chain[: inside[0]]]
        away = np.linalg.norm(way[:, None] - path_mm[None], axis=2).min(axis=1)
        if (away > 15.0).mean() > 0.3:
            return True
    return False


@dataclass(frozen=True)
class Likeness:
    """How alike two tachycardias are, where it is known: ecg, mean correlation of their 12-lead ECGs; way, coherence of their phases."""

    ecg: float | None = None
    way: float | None = None


def same(a: Circuit, b: Circuit, alike: Likeness | None = None) -> bool:
    """True if two circuits are one tachycardia: isthmus in one place, run in one direction, cycle lengths within 10 % if both are steady.

    alike: unlike ECGs are two tachycardias, of very like ones the isthmuses may lie a little further apart; two whose waves follow each
    other's loop in step are one, whichever place of it is the narrowest. Reentries that are not steady and have no isthmus wander: there is
    nothing to tell them apart by but their place, and they are one where their loops meet.
    """
    alike = alike or Likeness()
    apart, share = abs(a.cycle_length_ms - b.cycle_length_ms), float(SAME_CYCLE)
    steady = all(c.cycle_variation_ms <= share * c.cycle_length_ms for c in (a, b))
    if steady and apart > share * max(a.cycle_length_ms, b.cycle_length_ms):
        return False
    if alike.ecg is not None and alike.ecg < float(OTHER_ECG):
        return False
    if alike.way is not None and alike.way >= float(SAME_WAY):
        return True
    if not steady and all(c.isthmus_length_mm < LEAST_ISTHMUS_MM and c.cycle_variation_ms > share * c.cycle_length_ms for c in (a, b)):
        return float(np.min(cKDTree(np.asarray(a.path_mm, float)).query(np.asarray(b.path_mm, float))[0])) <= float(SAME_PLACE)
    centres = np.linalg.norm(np.subtract(a.centre_mm, b.centre_mm))
    along_a, along_b = (np.subtract(c.isthmus_mm[-1], c.isthmus_mm[0]) for c in (a, b))
    near = SAME_PLACE.high if alike.ecg is not None and alike.ecg >= float(SAME_ECG) else float(SAME_PLACE)
    return bool(centres <= near and along_a @ along_b >= 0)


def merge(
    known: Sequence[Circuit], found: Sequence[Circuit], likeness: Callable[[Circuit], Likeness | None] = lambda other: None
) -> tuple[list[Circuit], list[str]]:
    """Add found circuits to the known ones: equal ones become one with the sites of both, new ones get the next id VT1, VT2, ...

    likeness: of what was found with a known circuit, None where nothing is known of it.
    Returns the merged list and, for each found circuit, the id it went under.
    """
    out = list(known)
    ids: list[str] = []
    for circuit in found:
        for k, other in enumerate(out):
            if same(other, circuit, likeness(other)):
                out[k] = replace(other, sites=tuple(dict.fromkeys((*other.sites, *circuit.sites))))
                ids.append(other.id)
                break
        else:
            out.append(replace(circuit, id=f"VT{len(out) + 1}"))
            ids.append(out[-1].id)
    return out, ids


def _rounded(points: NDArray[np.float64]) -> list:
    """Coordinates to 1 um, as plain lists for plan.json."""
    return np.round(points, 3).tolist()
