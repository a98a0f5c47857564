"""What `--dry-run` says of a case: its evidence, which stages would run and about how long."""

from __future__ import annotations

from planners.app.console import Console
from twin.case import Case
from twin.patient import Patient
from twin.volume import WALL, LabelVolume

STAGES = {
    "mesh and fibres": 0.12e-3,
    "registration and tissue": 1.2e-3,
    "induction": 0.55e-3,
    "lesions, re-tested": 1.15e-3,
    "outcome": 1.9e-3,
    "report and overlays": 0.1e-3,
}
"""Seconds per node of each stage on two cores (measured on the demo at 2 mm, 43,000 nodes, 2026-11-25)."""


def nodes_of(volume: LabelVolume, edge_mm: float, near: tuple[float, float] | None = None) -> tuple[float, float]:
    """(wall in mL, expected nodes) of a mesh of these labels: a body-centred lattice has about 1.9 nodes per cubed mean edge.

    near: mean edge near scar, and how far from scar it holds, mm.
    """
    wall = volume.mask(*WALL)
    wall_ml, fine = volume.volume_ml(*WALL), 0.0
    scar = volume.mask("scar", "border_zone", "isthmus")
    if near is not None and scar.any():
        from scipy.ndimage import distance_transform_edt

        fine = float((distance_transform_edt(~scar, sampling=volume.spacing_mm)[wall] < near[1]).mean())
    per_ml = (1.0 - fine) / edge_mm**3 + (fine / near[0] ** 3 if near else 0.0)
    return wall_ml, 1000 * wall_ml * 1.9 * per_ml


def about(seconds: float) -> str:
    """A time as people say it."""
    return f"about {max(1, round(seconds))} s on two cores" if seconds < 50 else f"about {max(1, round(seconds / 60))} min on two cores"


def dry_run(case: Case, patient: Patient, console: Console, last: str = "report and overlays") -> int:
    """Say what the line would do with this case up to the stage `last`, and about how long."""
    near = None if case.edge_near_scar_mm is None else (case.edge_near_scar_mm, case.near_scar_mm)
    wall_ml, nodes = nodes_of(patient.labels.value, case.edge_mm, near)
    names = list(STAGES)[: list(STAGES).index(last) + 1]
    seconds = nodes * sum(STAGES[name] for name in names)
    said = [f"{name} ({case.request.protocol})" if name == "induction" else name for name in names]
    if case.request.confirm and "outcome" in names:
        said.insert(3, "circuits by monodomain (minutes each)")
    given = [name for name, item in (("map", patient.eam), ("ecg", patient.ecg), ("record", patient.record)) if item is not None]
    lines = [
        f"inputs are right; wall {wall_ml:.0f} mL, about {nodes:,.0f} nodes at {case.edge_mm:g} mm",
        "evidence: " + ", ".join(["segmentation", *given]),
        "would run: " + ", ".join(said),
        about(seconds),
    ]
    console.result({"nodes": round(nodes), "seconds": round(seconds), "stages": said, "evidence": given}, lines)
    return 0
