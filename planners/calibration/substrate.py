"""What a patient's evidence says of scar and border zone, gathered on the mesh, fused, summed up and drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.bullseye import draw_bullseye
from planners.calibration.line import register_map
from planners.calibration.noun import Calibration
from twin.atomic import read_npz, write_bytes, write_npz
from twin.calibrate.registration import Registration
from twin.calibrate.substrate import SOURCES, Fused, from_enhancement, from_labels, from_voltage, from_voxels, fuse, likelihood, slowing
from twin.calibrate.velocity import HEALTHY_LONGITUDINAL, HEALTHY_TRANSVERSE
from twin.errors import InputError
from twin.imaging.lge import classify
from twin.imaging.thickness import wall_thickness
from twin.mesh import HeartMesh
from twin.patient import Patient

Array = NDArray[np.float64]

DISAGREE = 0.5
"""Mean disagreement of a segment, 0 to 1, from which it is named to the user (chosen here)."""


def substrate(patient: Patient, mesh: HeartMesh, registration: Registration | None = None) -> Fused | None:
    """Every source that this patient has on the mesh, fused; None where nothing but labels was given.

    registration: of the map, made anew if None. Labels that were made from an image are not counted beside that image. Raises InputError
    where an image does not show the heart or a map cannot be registered.
    """
    labels = patient.labels
    sources: dict[str, Array] = {}
    if not labels.quality.startswith("scar from") and mesh.in_region("scar", "border_zone", "isthmus").any():
        sources["labels"] = from_labels(mesh)
    if patient.eam is not None:
        eam = patient.eam.value
        voltages = {"bipolar": eam.bipolar_mv, "unipolar": eam.unipolar_mv}
        given = {kind: v for kind, v in voltages.items() if len(v) == len(eam.points_mm) and np.isfinite(v).any()}
        if given:
            points = (registration or register_map(mesh, eam, patient.eam.source)).apply(eam.points_mm)
            sources |= {kind: from_voltage(mesh, kind, points, v) for kind, v in given.items()}
    if patient.lge is not None:
        found = classify(patient.lge.value, labels.value)
        seen = found.wall & np.isfinite(found.values)
        voxels = np.full((*seen.shape, 3), np.nan)
        levels = (found.levels.remote, found.levels.remote_sd, found.levels.maximum)
        voxels[seen] = from_enhancement(found.values[seen].astype(np.float64), levels)
        sources["enhancement"] = from_voxels(mesh, labels.value.affine, voxels)
    if patient.ct is not None:
        thick = wall_thickness(labels.value)
        seen = thick.wall & np.isfinite(thick.mm)
        voxels = np.full((*seen.shape, 3), np.nan)
        voxels[seen] = likelihood("thickness", thick.mm[seen].astype(np.float64), float(np.median(thick.mm[seen])))
        sources["thickness"] = from_voxels(mesh, labels.value.affine, voxels)
    if not set(sources) - {"labels"}:
        return None
    return fuse(mesh, sources)


def save(fused: Fused, mesh: HeartMesh, folder: Path) -> None:
    """Write probabilities and the picture to a folder."""
    arrays = {f"source/{name}": p for name, p in fused.sources.items()}
    write_npz(folder / "substrate.npz", arrays | {"probability": fused.probability, "wall": fused.wall})
    write_picture(fused, mesh, folder / "substrate.png")


def load(folder: Path) -> Fused:
    """Read what `save` wrote."""
    arrays, _ = read_npz(folder / "substrate.npz")
    # in the order in which they were gathered: what is said of them names them in it
    sources = {name: arrays[f"source/{name}"] for name in SOURCES if f"source/{name}" in arrays}
    return Fused(arrays["probability"], sources, arrays["wall"])


def with_substrate(found: Calibration, fused: Fused, used: bool) -> Calibration:
    """The calibration with the summary in `tissue.fit`, and what is to be said of it among its doubts."""
    mesh, tissue = found.twin.mesh, found.twin.tissue
    said = summary(fused, mesh, used)
    doubts = (*found.doubts, *statements(said))
    fit = {**tissue.fit, "substrate": said, "doubts": list(doubts)}
    return replace(found, twin=replace(found.twin, tissue=replace(tissue, fit=fit)), doubts=doubts)


def summary(fused: Fused, mesh: HeartMesh, used: bool) -> dict[str, Any]:
    """For plan.json: volumes by source, shares and disagreement by AHA segment, and whether the plan's regions are the fused ones."""
    volume = mesh.tet_volumes_mm3 / 1000.0
    rows = fused.by_segment(mesh)
    return {
        "used_for_regions": used,
        "sources": {name: _volumes(p, volume) for name, p in (*fused.sources.items(), ("fused", fused.probability))},
        "segments": rows,
        "disagreeing_segments": [int(s) for s, row in rows.items() if (row["disagreement"] or 0.0) > DISAGREE],
        "sick_share_that_sources_dispute": _disputed(fused, volume),
    }


def _volumes(probability: Array, volume_ml: Array) -> dict[str, float]:
    seen = np.isfinite(probability).all(axis=1)
    expected = probability[seen].T @ volume_ml[seen]
    share = float(volume_ml[seen].sum() / volume_ml.sum())
    return {"border_zone_ml": round(float(expected[1]), 2), "scar_ml": round(float(expected[2]), 2), "share_seen": round(share, 3)}


def _disputed(fused: Fused, volume_ml: Array) -> float | None:
    """Of the wall that two sources saw, the share where they differ by more than DISAGREE."""
    apart = fused.disagreement()
    seen = np.isfinite(apart)
    return round(float(volume_ml[seen & (apart > DISAGREE)].sum() / volume_ml[seen].sum()), 3) if seen.any() else None


def statements(found: dict[str, Any]) -> list[str]:
    """What is to be doubted: regions that nobody drew, and places where the sources contradict one another."""
    names = ", ".join(name for name in found["sources"] if name != "fused")
    out = []
    if found["used_for_regions"]:
        out.append(
            f"Regions are fused from {names} (weights partly fitted on simulated hearts, partly chosen); nobody drew them as they are."
        )
    if found["disagreeing_segments"]:
        where = ", ".join(str(s) for s in found["disagreeing_segments"])
        out.append(f"Sources of the substrate contradict one another in AHA segment {where}: look there before relying on its borders.")
    return out


def lge_prior(patient: Patient) -> dict[str, tuple[float, float]]:
    """Ranges for border-zone velocities (m/s) from the mean LGE intensity of the border zone by the published law; empty without LGE."""
    if patient.lge is None:
        return {}
    try:
        found = classify(patient.lge.value, patient.labels.value)
    except InputError:
        return {}
    border = patient.labels.value.mask("border_zone", "isthmus") & np.isfinite(found.values)
    top, remote = found.levels.maximum, found.levels.remote
    if not border.any() or top <= remote + 5.0 * found.levels.remote_sd:
        return {}
    _, low, high = slowing(float((found.values[border].mean() - remote) / (top - remote)))
    healthy = {"cv_longitudinal_m_s": HEALTHY_LONGITUDINAL, "cv_transverse_m_s": HEALTHY_TRANSVERSE}
    return {f"border_zone/{name}": (low * param.low, high * param.high) for name, param in healthy.items()}


def write_picture(fused: Fused, mesh: HeartMesh, path: Path) -> None:
    """Bull's-eyes (PNG): share of scar and border zone by each source and fused, and where the sources disagree."""
    import io

    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rows = fused.by_segment(mesh)
    panels = [*fused.sources, "fused", "disagreement"]
    figure = Figure(figsize=(2.9 * len(panels), 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    for k, name in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), k + 1)
        shown = ScalarMappable(Normalize(0.0, 1.0), colormaps["Purples" if name == "disagreement" else "Reds"])
        # grey where no source saw the segment
        seen = {int(s): value for s, row in rows.items() if (value := row[name]) is not None}
        draw_bullseye(axes, seen, shown, numbers=False)
        axes.set_title(name if name == "disagreement" else f"{name}: scar + border", fontsize=9)
        figure.colorbar(shown, ax=axes, shrink=0.7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
