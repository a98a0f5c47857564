"""Corrected meshes show the velocities that were asked for: on the lattice in directions that no fit has seen, and in a meshed slab."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.stuffing import LATTICE_PER_EDGE, stuff
from solvers.ionic import IonicModel, ionic_model
from solvers.ionic.restitution import BORDER_ZONE
from solvers.monodomain import excitability
from solvers.monodomain import lattice as lattices
from solvers.monodomain.correction import diffusion_of_speed_mm2_ms, for_velocities, interpolate, reduced_directions
from solvers.monodomain.excitability import excitable
from solvers.monodomain.lattice import chain_along, wave_speeds
from solvers.monodomain.solver import Monodomain, Settings
from solvers.monodomain.wave_fit import RING, THETA, cells_of, components, directions, exponential, measure, speed_per_sqrt_d
from solvers.verify.planar import SICK_G_NA
from twin.check_record import checked
from twin.experiment import Stimulus
from twin.mesh import REGIONS, HeartMesh
from twin.params import Param
from twin.tissue import Velocity

_GOAL = "goal of issue 4: within 5 % along and 10 % across the fibres in every orientation at 0.5 mm, no artificial block up to 0.8 mm"
ALONG = Param(0.05, "1", 0.03, 0.1, _GOAL)
ACROSS = Param(0.10, "1", 0.05, 0.2, _GOAL)
SPEED_L = Param(0.6, "m/s", 0.4, 0.8, "chosen here: healthy ventricle, along the fibres")
SPEED_T = Param(0.22, "m/s", 0.15, 0.4, "chosen here: healthy ventricle, across the fibres")
SICK = (0.285, 0.163)
"""Along and across the fibres, m/s: border zone as the demo's calibration finds it."""
PREMATURE = Param(
    0.15,
    "1",
    0.05,
    0.2,
    "chosen here: slowing of a premature wave on the lattice over that of the continuum, less 1: the worse of one 75 ms after rest "
    "begins and of the earliest that the continuum carries, of which one in eight may be blocked",
)
HELD_OUT = 40
"""Random fibre directions; the ring about each is turned against that of the fit."""


def epi(g_na: float = 1.0) -> IonicModel:
    """The cell of these checks."""
    return ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={"G_Na": g_na})


def held_out_errors(edge_mm: float, model: IonicModel, d_l: float, d_t: float) -> NDArray[np.float64]:
    """Relative errors of plane waves through the mesher's lattice at mean edge `edge_mm`: (HELD_OUT, 1 + ring + cone), none fitted."""
    lattice = lattices.body_centred(LATTICE_PER_EDGE * edge_mm)
    table = measure(lattice, reduced_directions(), d_l, d_t, model)
    fibre = np.random.default_rng(5).standard_normal((HELD_OUT, 3))
    fibre /= np.linalg.norm(fibre, axis=1)[:, None]
    found = interpolate(table, fibre)
    root = math.sqrt(d_t) * np.eye(3) + (math.sqrt(d_l) - math.sqrt(d_t)) * fibre[:, :, None] * fibre[:, None, :]
    weights = lattice.weights(components(root @ exponential(found.strain) @ root), d_t * found.bend)
    chains = [[chain_along(lattice, d) for d in directions(f, turn=0.2)] for f in fibre]
    speeds = wave_speeds(lattice, [(c, w) for row, w in zip(chains, weights) for c in row], cells_of(model), THETA)
    toward = np.array([[c.direction for c in row] for row in chains])
    goal = speed_per_sqrt_d(model) * np.linalg.norm(np.einsum("kxy,kwy->kwx", root, toward), axis=2)
    errors: NDArray[np.float64] = speeds.reshape(goal.shape) / goal - 1.0
    return errors


@dataclass(frozen=True)
class Slab:
    """A slab cut obliquely out of the mesher's lattice: points (n, 3) mm in its axes, centred; own (3, 3): from these to the mesh's."""

    points_mm: NDArray[np.float64]
    tets: NDArray[np.int32]
    own: NDArray[np.float64]
    size_mm: NDArray[np.float64]


def meshed_slab(edge_mm: float, size_mm: tuple[float, float, float]) -> Slab:
    """Stuff a box that lies at a fixed odd angle to the lattice."""
    own = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    size = np.array(size_mm)
    reach = np.full(3, 0.5 * size.sum())
    stuffed = stuff(lambda p: np.asarray((np.abs(p @ own.T) - size / 2).max(axis=1)), -reach, reach, LATTICE_PER_EDGE * edge_mm)
    return Slab(stuffed.points @ own.T, stuffed.tets, own, size)


def slab_speed_m_s(slab: Slab, fibre: NDArray[np.float64], axis: int, speeds: tuple[float, float], model: IonicModel) -> float:
    """Speed of a wave from the face of a slab along an axis, over the middle half of it, when `speeds` (m/s) are asked for.

    fibre (m, 3) in the slab's axes. NaN if the wave does not pass.
    """
    m, own_fibre = len(slab.tets), fibre @ slab.own
    region = np.full(m, REGIONS["healthy"], np.int16)
    mesh = HeartMesh(slab.points_mm @ slab.own, slab.tets, region, {}, own_fibre, own_fibre)
    tensor = for_velocities(mesh, {"healthy": Velocity(*speeds)}, {"healthy": model}).tensor
    unused = np.zeros(m)
    settings = Settings(theta=THETA)
    solver = Monodomain(mesh.points_mm, mesh.tets, mesh.fibre, unused, unused, cells_of(model), settings, tensor=tensor)
    x = slab.points_mm[:, axis] / slab.size_mm[axis] + 0.5
    start = Stimulus(np.flatnonzero(x <= 1.0 / slab.size_mm[axis]).astype(np.int32), (0.0,))
    first = solver.run([start], 3.0 * slab.size_mm[axis] / speeds[1], quiet_ms=8.0).activations.first_ms(len(x))
    middle = (x >= 0.35) & (x <= 0.85)
    return float(slab.size_mm[axis] / np.polyfit(x[middle], first[middle], 1)[0])


def turning_fibres(slab: Slab, degrees: float) -> NDArray[np.float64]:
    """Fibres that turn through the slab's third axis from -degrees to +degrees, (m, 3) in the slab's axes."""
    depth = slab.points_mm[slab.tets].mean(axis=1)[:, 2] / slab.size_mm[2]
    angle = 2.0 * math.radians(degrees) * depth
    return np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)


def checks(fast: bool = True) -> list[dict[str, Any]]:
    """Records of `vtwin verify correction`; `fast=False` adds 0.8 mm and fibres that turn (minutes, until the cache is filled)."""
    records = []
    for name, g_na in (("healthy", 1.0), ("g_na0.38", SICK_G_NA.value)):
        model = epi(g_na)
        speeds = tuple(v * speed_per_sqrt_d(model) / speed_per_sqrt_d(epi()) for v in (SPEED_L.value, SPEED_T.value))
        straight = meshed_slab(0.5, (9.0, 4.0, 4.0))
        for way, fibre, goal, share in (("along", [1.0, 0, 0], speeds[0], ALONG), ("across", [0.0, 1, 0], speeds[1], ACROSS)):
            value = slab_speed_m_s(straight, np.tile(fibre, (len(straight.tets), 1)), 0, (speeds[0], speeds[1]), model)
            records.append(_record(f"correction/slab0.5/{name}/{way}", value, "m/s", goal, share.value * goal))
        if fast:
            continue
        turning = meshed_slab(0.5, (6.0, 6.0, 8.0))
        value = slab_speed_m_s(turning, turning_fibres(turning, 60.0), 2, (speeds[0], speeds[1]), model)
        records.append(_record(f"correction/slab0.5/{name}/turning_fibres/transmural", value, "m/s", speeds[1], ACROSS.value * speeds[1]))
        d_l, d_t = (diffusion_of_speed_mm2_ms(v, model) for v in speeds)
        for edge in (0.5, 0.8):
            e = held_out_errors(edge, model, d_l, d_t)
            # at 0.8 mm only block is excluded: a speed of 0 is an error of 1
            limits = (ALONG.value, ACROSS.value) if edge <= 0.5 else (0.5, 0.5)
            for way, part, limit in (("along", e[:, :1], limits[0]), ("across", e[:, 1 : 1 + RING], limits[1])):
                worst = float(part.ravel()[np.argmax(np.abs(part))])
                records.append(_record(f"correction/lattice{edge:g}/{name}/held_out/worst_{way}", worst, "1", 0.0, limit))
    return records if fast else records + premature()


def premature() -> list[dict[str, Any]]:
    """Slowing of a premature wave at 0.8 mm relative to the continuum's, with the sodium conductance that the lattice is given."""
    lattice, records = lattices.body_centred(LATTICE_PER_EDGE * 0.8), []
    sick = ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={name: p.value for name, p in BORDER_ZONE.items()})
    for name, model, speeds in (("healthy", epi(), (SPEED_L.value, SPEED_T.value)), ("border_zone", sick, SICK)):
        found = excitable(lattice, speeds, model, excitability.THETA)
        records.append(_record(f"correction/lattice0.8/{name}/premature", found.after, "1", 1.0, PREMATURE.value))
    return [r | {"source": PREMATURE.source} for r in records]


def _record(name: str, value: float, unit: str, reference: float, tolerance: float) -> dict[str, Any]:
    return checked(name, value, unit, reference, tolerance, _GOAL)
