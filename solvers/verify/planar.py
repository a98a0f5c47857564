"""Velocity of a plane wave in the limit of fine meshes: one bar of cubes, resolved far below the width of the front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from meshing.box import box_mesh
from solvers.ionic import Cells, ionic_model
from solvers.monodomain import lattice as lattices
from solvers.monodomain.conductivity import Membrane
from solvers.monodomain.solver import Monodomain, Settings
from solvers.monodomain.wave_fit import RING, measure, speed_per_sqrt_d
from twin.check_record import checked
from twin.experiment import Stimulus
from twin.params import Param

_SOURCE = "1-D limit h, dt -> 0 of ten Tusscher-Panfilov 2006 epi, first beat from rest, chi 140/mm; +-0.2 %, design/monodomain.md"
SIGMA_L = Param(0.133418, "S/m", 0.05, 0.3, "Niederer 2011: 0.17 and 0.62 S/m in series")
SIGMA_T = Param(0.017606, "S/m", 0.01, 0.1, "Niederer 2011: 0.019 and 0.24 S/m in series")
ALONG = Param(0.6126, "m/s", 0.60, 0.63, _SOURCE)
ACROSS = Param(0.2225, "m/s", 0.21, 0.23, _SOURCE)
SICK_ALONG = Param(0.4200, "m/s", 0.41, 0.43, _SOURCE + "; G_Na x 0.38")
SICK_ACROSS = Param(0.1526, "m/s", 0.15, 0.16, _SOURCE + "; G_Na x 0.38")
SICK_G_NA = Param(0.38, "1", 0.2, 0.6, "border-zone-like sodium current of the test values, design/monodomain.md")
FINE_PER_SQRT_D = Param(0.162, "ms^0.5", 0.05, 0.2, "h / sqrt(D): 0.05 mm along and 0.018 mm across have one error, design/monodomain.md")


@dataclass(frozen=True)
class Bar:
    """A bar along x with the wave along it: length, where the speed is read (mm), conductivity along x (S/m), scale of G_Na."""

    name: str
    length_mm: float
    from_mm: float
    to_mm: float
    sigma_s_m: float
    g_na: float
    reference: Param


BARS = (
    Bar("planar/along/healthy", 10.0, 4.0, 8.0, SIGMA_L.value, 1.0, ALONG),
    Bar("planar/across/healthy", 3.6, 1.4, 2.9, SIGMA_T.value, 1.0, ACROSS),
    Bar("planar/along/g_na0.38", 10.0, 4.0, 8.0, SIGMA_L.value, SICK_G_NA.value, SICK_ALONG),
    Bar("planar/across/g_na0.38", 3.6, 1.4, 2.9, SIGMA_T.value, SICK_G_NA.value, SICK_ACROSS),
)


def speed_m_s(bar: Bar, spacing_mm: float, settings: Settings) -> float:
    """Speed between the two places by linear regression of the -20 mV (or the settings') crossing; NaN if the wave does not arrive."""
    mesh = box_mesh((bar.length_mm, spacing_mm, spacing_mm), spacing_mm)
    d = bar.sigma_s_m / Membrane().capacitance_uF_mm3
    m = len(mesh.tets)
    model = ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={"G_Na": bar.g_na})
    solver = Monodomain(
        mesh.points_mm,
        mesh.tets,
        mesh.fibre,
        np.full(m, d),
        # a plane wave does not feel the other axes; a low value keeps them from limiting the step
        np.full(m, 0.1 * d),
        lambda nodes: Cells(models=[model], region_of_node=np.zeros(len(nodes), np.int32), precision="float32"),
        settings,
    )
    x = mesh.points_mm[:, 0]
    stimulus = Stimulus(np.flatnonzero(x <= 0.1 * bar.length_mm).astype(np.int32), (0.0,))
    end = int(np.argmin(np.abs(x - bar.to_mm)))

    def arrived(this: Monodomain) -> str | None:
        return "arrived" if this.v_mv()[end] > 0.0 else None

    result = solver.run([stimulus], 60.0, stop=arrived)
    first = result.activations.first_ms(mesh.n_points)
    part = (x >= bar.from_mm) & (x <= bar.to_mm - spacing_mm)
    return float(1.0 / np.polyfit(x[part], first[part], 1)[0])


def corrected_cubes() -> list[dict[str, Any]]:
    """Waves through corrected cubes of 0.25 mm along and across their fibres, within 3 % of the limit; worst direction across."""
    lattice = lattices.box((0.25,) * 3, "kuhn")
    d_l, d_t = (sigma.value / Membrane().capacitance_uF_mm3 for sigma in (SIGMA_L, SIGMA_T))
    records = []
    for name, g_na, along, across in (("healthy", 1.0, ALONG, ACROSS), ("g_na0.38", SICK_G_NA.value, SICK_ALONG, SICK_ACROSS)):
        model = ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={"G_Na": g_na})
        table = measure(lattice, np.array([[1.0, 0.0, 0.0]]), d_l, d_t, model)
        ring = table.after[0, 1 : 1 + RING]
        for way, error, d, reference in (("along", table.after[0, 0], d_l, along), ("across", ring[np.argmax(np.abs(ring))], d_t, across)):
            value = float((1.0 + error) * speed_per_sqrt_d(model) * np.sqrt(d))
            records.append(_record(f"planar/{way}/{name}/dx0.25/corrected", value, reference.value, 0.03, reference.source))
    return records


def checks(fast: bool = True) -> list[dict[str, Any]]:
    """Records of `vtwin verify planar`: the limit within 1 %, and the default step within 1 % of a fine one."""
    records = []
    for bar in BARS:
        spacing = FINE_PER_SQRT_D.value * np.sqrt(bar.sigma_s_m / Membrane().capacitance_uF_mm3)
        value = speed_m_s(bar, float(spacing), Settings(theta=0.5, threshold_mv=-20.0))
        records.append(_record(f"{bar.name}/theta0.5", value, bar.reference.value, 0.01, bar.reference.source))
    records += corrected_cubes()
    coarse, fine = (speed_m_s(BARS[0], 0.25, Settings(dt_ms=dt, threshold_mv=-20.0)) for dt in (0.05, 0.005))
    source = "gates first, then the current, unsplit: +0.5 % at dt 0.05 ms (old gates: -9.5 %), design/monodomain.md"
    records.append(_record("planar/dt0.05_against_dt0.005/dx0.25", coarse, fine, 0.01, source))
    return records


def _record(name: str, value: float, reference: float, share: float, source: str) -> dict[str, Any]:
    return checked(name, value, "m/s", reference, share * reference, source)
