"""Facts about what a reader returned, by what it is: volumes, images, cine, surfaces, meshes, maps, electrocardiograms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.app.inspect_registry import Findings
from twin.errors import InputError, Suspicious
from twin.image import CineStack, Image
from twin.io.notes import Notes
from twin.io.surfaces import Surface
from twin.io.volume_mesh import VolumeMesh
from twin.patient import Ecg, ElectroanatomicalMap
from twin.volume import LABELS, LabelVolume

MAX_VALUES = 40
HEART_MM = (40.0, 250.0)
SMALL_DEG, CLIPPED = 5.0, 0.02
MAX_TETS_FOR_EDGES = 3_000_000


def accepting(read: Any, path: Path, *arguments: Any, **named: Any) -> tuple[Any, list[str]]:
    """Call a reader that takes `notes`, accepting every doubt it has; returns its value and the doubts."""
    accepted: list[str] = []
    doubts: list[str] = []
    while True:
        notes = Notes(accepted)
        try:
            value = read(path, *arguments, notes=notes, **named)
        except Suspicious as doubt:
            if doubt.code in accepted:
                raise
            accepted.append(doubt.code)
            doubts.append(f"{doubt.field}: {doubt.problem} ({doubt.code})")
            continue
        return value, [*doubts, *(line for line in notes.lines if not line.startswith("accepted"))]


def read_volume_file(path: Path) -> Any:
    """A label volume if it is one, else an image or cine stack; the handedness of the file's own axes is noted."""
    from twin.io.labels import read_labels

    doubts: list[str] = []
    try:
        return read_labels(path)
    except InputError as first:
        if "left-handed" in first.problem:
            doubts.append(f"{first.field}: {first.problem}")
            try:
                volume = read_labels(path, flip=True)
                return describe(volume, doubts)
            except InputError:
                pass
        try:
            return _image(path, doubts)
        except InputError as second:
            # which of the two says more: geometry is checked before values, so an error about geometry comes from both
            raise (first if first.field == second.field else second) from None


def _image(path: Path, doubts: list[str]) -> Any:
    from twin.io.image import read_cine, read_image

    try:
        image, more = accepting(read_image, path)
    except InputError as error:
        if "several times" not in error.problem:
            raise
        stacks, more = accepting(read_cine, path)
        return tuple(describe(stack, [*doubts, *more]) for stack in stacks)
    return describe(image, [*doubts, *more])


def read_dicom_path(path: Path) -> Any:
    """A DICOM file, zip or folder: a segmentation, or every stack of images in it."""
    from twin.io.dicom import imaging, load_all, scan_dicom
    from twin.io.labels import read_labels

    if path.is_file():
        try:
            return read_labels(path)
        except InputError:
            pass
    scanned, doubts = accepting(scan_dicom, path)
    if not scanned:
        raise InputError(path, "DICOM", "holds no images that vtwin reads", "name the folder of a study")
    loaded, more = accepting(lambda where, notes: load_all(imaging(scanned, where, notes), where, notes), path)
    return tuple(describe(value, [*doubts, *more] if i == 0 else []) for i, value in enumerate(loaded))


def describe(value: Any, doubts: list[str] | tuple[str, ...] = ()) -> Findings:
    """Facts about one noun. Raises TypeError for a type that no describer knows: a reader in the registry returned something else."""
    if isinstance(value, Findings):
        return value
    describers: dict[type, Any] = {
        LabelVolume: of_labels,
        Image: of_image,
        CineStack: of_cine,
        Surface: of_surface,
        VolumeMesh: of_mesh,
        ElectroanatomicalMap: of_map,
        Ecg: of_ecg,
    }
    for kind, function in describers.items():
        if isinstance(value, kind):
            found: Findings = function(value)
            return Findings(found.what, found.facts, (*doubts, *found.suspicious), found.shown)
    raise TypeError(f"nothing describes {type(value).__name__}")


def orientation(affine: NDArray[np.float64]) -> str:
    """Where each index axis points most: three letters of R/L, A/P, I/S, with the angle to that axis if it is above one degree."""
    letters = (("R", "L"), ("A", "P"), ("I", "S"))
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    text, worst = "", 0.0
    for column in axes.T:
        axis = int(np.argmax(np.abs(column)))
        text += letters[axis][int(column[axis] > 0)]
        worst = max(worst, float(np.degrees(np.arccos(min(1.0, abs(column[axis]))))))
    return text if worst < 1.0 else f"{text}, oblique by up to {worst:.0f} degrees"


def _geometry(shape: tuple[int, ...], affine: NDArray[np.float64]) -> dict[str, Any]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return {
        "voxels": list(shape),
        "spacing_mm": [round(float(s), 4) for s in spacing],
        "size_mm": [round(float(s * n), 1) for s, n in zip(spacing, shape)],
        "axes_point": orientation(affine),
        "first_voxel_lps_mm": [round(float(v), 2) for v in affine[:3, 3]],
    }


def of_labels(volume: LabelVolume) -> Findings:
    """Geometry, volume of each label, and what `vtwin plan` would say about it as a heart."""
    from twin.io.labels import check_heart

    present = {name: value for name, value in LABELS.items() if value and (volume.data == value).any()}
    labels = {name: round(volume.volume_ml(name), 2) for name in present}
    suspicious: list[str] = []
    if not labels:
        return Findings("label volume", {**_geometry(volume.data.shape, volume.affine), "labels_ml": {}}, ("no voxel is labelled",))
    try:
        _, suspicious = accepting(lambda where, notes: check_heart(volume, where, notes), Path(volume.source or "volume"))
    except InputError as error:
        suspicious = [f"not usable as a heart: {error.field}: {error.problem}"]
    touching = [f"{'ijk'[axis]}" for axis in range(3) if np.take(volume.data, [0, -1], axis).any()]
    if touching:
        suspicious.append(f"labels touch the edge of the volume along {', '.join(touching)}: cut off?")
    return Findings("label volume", {**_geometry(volume.data.shape, volume.affine), "labels_ml": labels}, tuple(suspicious), volume)


def of_image(image: Image) -> Findings:
    """Geometry and range of intensities; few whole values are listed, as labels without names."""
    values = np.asarray(image.data)
    facts = _geometry(values.shape, image.affine)
    facts |= {"modality": image.modality or "not said", "values": str(values.dtype), "range": [float(values.min()), float(values.max())]}
    facts["percentiles_1_50_99"] = [round(float(v), 3) for v in np.percentile(values, [1, 50, 99])]
    if image.thickness_mm is not None:
        facts |= {"slice_thickness_mm": image.thickness_mm, "slice_gap_mm": round(image.gap_mm, 3)}
    suspicious = []
    if values.min() == values.max():
        suspicious.append("all voxels have one value")
    elif (values == values.max()).mean() > CLIPPED and values.dtype.kind == "f":
        suspicious.append("many voxels have the largest value: clipped?")
    what = "image"
    if values.dtype.kind in "iu":
        unique = np.unique(values)
        if len(unique) <= MAX_VALUES:
            what = "image of few values (labels without names?)"
            voxel = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000.0
            facts["volume_ml_of_value"] = {str(v): round(float((values == v).sum()) * voxel, 2) for v in unique.tolist() if v != 0}
    return Findings(what, facts, tuple(suspicious), image)


def of_cine(stack: CineStack) -> Findings:
    """Geometry, frames and heart rate of each slice; the middle phase is shown."""
    still = stack.at(0.0)
    facts = _geometry(still.data.shape, stack.affine)
    beats = [round(one.rr_ms, 1) for one in stack.slices]
    facts |= {"modality": stack.modality or "not said", "frames": sorted({one.frames.shape[2] for one in stack.slices})}
    facts["rr_ms"] = [min(beats), max(beats)]
    if stack.thickness_mm is not None:
        facts |= {"slice_thickness_mm": stack.thickness_mm, "slice_gap_mm": round(stack.gap_mm, 3)}
    suspicious = () if max(beats) <= 1.2 * min(beats) else (f"R-R intervals from {min(beats):.0f} to {max(beats):.0f} ms",)
    return Findings("cine stack", facts, suspicious, still)


def _box(points: NDArray[np.float64]) -> dict[str, Any]:
    low, high = points.min(axis=0), points.max(axis=0)
    return {"low_mm": [round(float(v), 2) for v in low], "high_mm": [round(float(v), 2) for v in high]}


def _extent(points: NDArray[np.float64]) -> list[str]:
    size = float(np.ptp(points, axis=0).max())
    if HEART_MM[0] <= size <= HEART_MM[1]:
        return []
    return [f"{size:.0f} mm long: not the size of a heart ({HEART_MM[0]:.0f} to {HEART_MM[1]:.0f} mm)"]


def ranges(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Shape, smallest and largest value of each array, and how many are not finite."""
    out: dict[str, Any] = {}
    for name, values in list(arrays.items())[:MAX_VALUES]:
        if not values.size or values.dtype.kind not in "fiub":
            continue
        finite = values[np.isfinite(values)]
        entry: dict[str, Any] = {"components": values.shape[1] if values.ndim > 1 else 1}
        entry["range"] = [float(finite.min()), float(finite.max())] if finite.size else None
        if finite.size < values.size:
            entry["not_finite"] = int(values.size - finite.size)
        out[str(name)[:60]] = entry
    return out


def of_surface(surface: Surface) -> Findings:
    """Counts, box, area, volume, whether it is closed, and its arrays."""
    from meshing.surfaces import topology

    found = topology(surface.triangles)
    facts = {"points": len(surface.points_mm), "triangles": len(surface.triangles), **_box(surface.points_mm)}
    facts |= {"area_cm2": round(surface.area_cm2, 2), "volume_ml": round(surface.volume_ml, 2), "pieces": found.components}
    facts |= {"open_edges": found.open_edges, "pinched_edges": found.pinched_edges, "closed": found.open_edges == 0}
    if found.open_edges == 0 and found.pinched_edges == 0:
        facts["genus"] = found.genus
    facts |= {"point_values": ranges(surface.point_data), "triangle_values": ranges(surface.cell_data)}
    suspicious = _extent(surface.points_mm)
    if found.pinched_edges:
        suspicious.append(f"{found.pinched_edges} edges with more than two triangles")
    if found.open_edges == 0 and surface.volume_ml < 0:
        suspicious.append("triangles point inward")
    return Findings("surface", facts, tuple(suspicious), surface)


def of_mesh(mesh: VolumeMesh) -> Findings:
    """Counts, box, regions with volumes, fibres, quality of the tetrahedra, arrays."""
    from meshing.quality import dihedral_angles, mean_edge_mm

    volume = np.abs(mesh.tet_volumes_mm3)
    smallest, largest = dihedral_angles(mesh.points_mm, mesh.tets)
    regions = {}
    for number in np.unique(mesh.region).tolist():
        here = mesh.region == number
        regions[mesh.name_of(number)] = {
            "number": number,
            "tetrahedra": int(here.sum()),
            "volume_ml": round(float(volume[here].sum()) / 1000, 3),
        }
    facts: dict[str, Any] = {"points": len(mesh.points_mm), "tetrahedra": len(mesh.tets), **_box(mesh.points_mm), "regions": regions}
    facts |= {"volume_ml": round(float(volume.sum()) / 1000, 3), "fibres": mesh.fibre is not None, "sheets": mesh.sheet is not None}
    if len(mesh.tets) <= MAX_TETS_FOR_EDGES:
        facts["mean_edge_mm"] = round(mean_edge_mm(mesh.points_mm, mesh.tets), 4)
    facts["dihedral_min_deg"] = round(float(smallest.min()), 2)
    facts["dihedral_p1_deg"] = round(float(np.percentile(smallest, 1)), 2)
    facts["dihedral_max_deg"] = round(float(largest.max()), 2)
    facts |= {"point_values": ranges(mesh.point_data), "element_values": ranges(mesh.cell_data)}
    suspicious = [*mesh.notes, *_extent(mesh.points_mm)]
    if smallest.min() < SMALL_DEG:
        flat = int((smallest < SMALL_DEG).sum())
        suspicious.append(f"{flat} tetrahedra have a dihedral angle below {SMALL_DEG:g} degrees")
    used = np.zeros(len(mesh.points_mm), bool)
    used[mesh.tets] = True
    if not used.all():
        suspicious.append(f"{int((~used).sum())} points belong to no tetrahedron")
    if mesh.fibre is not None and (empty := int((np.linalg.norm(mesh.fibre, axis=1) < 0.5).sum())):
        suspicious.append(f"{empty} tetrahedra have no fibre direction")
    return Findings("tetrahedral mesh", facts, tuple(suspicious), mesh)


def of_map(eam: ElectroanatomicalMap) -> Findings:
    """Counts, box, ranges of times and voltages, landmarks."""
    facts = {"points": len(eam.points_mm), "surface": eam.surface, "rhythm": eam.rhythm, **_box(eam.points_mm)}
    facts |= {"values": ranges({"lat_ms": eam.lat_ms, "bipolar_mv": eam.bipolar_mv}), "landmarks": sorted(eam.landmarks)}
    return Findings("electroanatomical map", facts, tuple(_extent(eam.points_mm)), eam)


def of_ecg(ecg: Ecg) -> Findings:
    """Leads, sampling, duration and range."""
    seconds = len(ecg.time_ms) / ecg.fs_hz
    facts = {"leads": list(ecg.leads), "fs_hz": ecg.fs_hz, "seconds": round(seconds, 3), "rhythm": ecg.rhythm, "normalised": ecg.normalised}
    flat = [name for name, values in ecg.leads.items() if np.ptp(values) == 0]
    facts["values"] = ranges(ecg.leads)
    return Findings("electrocardiogram", facts, (f"flat leads: {', '.join(flat)}",) if flat else (), ecg)
