"""DICOM radiotherapy structure sets (RTSTRUCT) as labels: contours filled on a grid by the parity of crossings.

Standard: DICOM PS3.3, C.8.8.5 and C.8.8.6. A voxel is inside if its centre is; where contours of one structure lie in one
plane they exclude each other (a hole is a contour within a contour, or a keyhole: both are the same parity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.dicom import grid
from twin.io.dicom_files import AGAIN, DicomFile, dicom_files, guarded, header
from twin.io.dicom_frames import frames_of, number, tags
from twin.io.dicom_stacks import sort_frames
from twin.io.grid import check_shape
from twin.io.notes import Notes
from twin.io.segments import check_room, combine, names_of
from twin.volume import LabelVolume

KEYWORDS = ("Modality", "StructureSetROISequence", "ROIContourSequence")
CONTOUR_DATA = 0x30060050
PIXEL_MM = 1.0
"""Chosen here: in-plane size of a derived grid; contours are drawn on pixels of 1 to 2 mm."""

PLANE_MM = 0.1
MAX_POINTS = 20_000_000

Contours = dict[int, list[NDArray[np.float64]]]
Grid = tuple[NDArray[np.float64], tuple[int, int, int]]
"""Voxel index to LPS mm (4, 4), and shape (ni, nj, nk)."""


def _points(item: Any, where: str) -> NDArray[np.float64]:
    """Points (n, 3) of one contour; parsed from the bytes, as a structure may have a million numbers."""
    element = item.get_item(CONTOUR_DATA)
    value = None if element is None else element.value
    words = value.strip(b"\0 ").split(b"\\") if isinstance(value, bytes) else list(value or [])
    flat = np.array([float(word) for word in words])
    if len(flat) < 9 or len(flat) % 3 or not np.isfinite(flat).all() or np.abs(flat).max() > 1e5:
        raise InputError(where, "ContourData", "is not three or more points in mm", AGAIN)
    return flat.reshape(-1, 3)


def _contours(ds: Any, where: str, notes: Notes) -> tuple[dict[int, str], Contours, set[str]]:
    """Names and closed contours by number of structure, and the images they were drawn on."""
    names = {int(number(item, "ROINumber") or 0): str(item.get("ROIName", "")) for item in ds.get("StructureSetROISequence") or []}
    contours: Contours = {}
    images: set[str] = set()
    total = 0
    for roi in ds.get("ROIContourSequence") or []:
        which = int(number(roi, "ReferencedROINumber") or 0)
        for item in roi.get("ContourSequence") or []:
            if str(item.get("ContourGeometricType", "")) not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                notes.add("points and open contours of the structure set were passed over")
                continue
            contours.setdefault(which, []).append(_points(item, where))
            images |= {str(image.get("ReferencedSOPInstanceUID", "")) for image in item.get("ContourImageSequence") or []}
            total += len(contours[which][-1])
            if total > MAX_POINTS:
                raise InputError(where, "ContourData", f"more than {MAX_POINTS} points", "export the heart's structures alone")
    if not contours or not set(contours) <= set(names):
        raise InputError(where, "ROIContourSequence", "holds no closed contour of a named structure", AGAIN)
    return {n: names[n] for n in contours}, contours, images


def _area(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vector area of a closed polygon, (3,) mm^2."""
    middle = points - points.mean(axis=0)
    return np.asarray(0.5 * np.cross(middle, np.roll(middle, -1, axis=0)).sum(axis=0))


def _normal(contours: Sequence[NDArray[np.float64]], where: str) -> NDArray[np.float64]:
    """Common normal of all contours, (3,). Raises InputError if they are not parallel planes."""
    areas = np.array([_area(c) for c in contours])
    biggest = areas[np.argmax(np.linalg.norm(areas, axis=1))]
    mean = (areas * np.where(areas @ biggest < 0, -1.0, 1.0)[:, None]).sum(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise InputError(where, "ContourData", "contours enclose no area", AGAIN)
    normal = mean / length
    normal = normal * np.sign(normal[np.argmax(np.abs(normal))])
    if np.abs(normal).max() > 1 - 1e-6:
        normal = np.rint(normal)
    if max(float(np.ptp(c @ normal)) for c in contours) > 5 * PLANE_MM:
        raise InputError(where, "ContourData", "contours do not lie in parallel planes", "contour one stack of slices")
    return np.asarray(normal, np.float64)


def _planes(depths: NDArray[np.float64], where: str) -> tuple[float, float, int]:
    """First plane, step and number of planes that hold all contours. Raises InputError if no even step does."""
    unique = np.sort(depths)
    unique = unique[np.concatenate([[True], np.diff(unique) > PLANE_MM])]
    if len(unique) < 2:
        raise InputError(where, "ContourData", "lie in a single plane", "contour the whole heart")
    steps = np.sort(np.diff(unique))
    count = round(float((unique[-1] - unique[0]) / steps[(len(steps) - 1) // 2])) + 1
    step = float(unique[-1] - unique[0]) / (count - 1)
    index = (unique - unique[0]) / step
    if np.abs(index - np.rint(index)).max() > 0.1:
        raise InputError(where, "ContourData", "planes of contours are unevenly spaced", "contour one evenly spaced stack")
    return float(unique[0]), step, count


def derived_grid(contours: Sequence[NDArray[np.float64]], where: str) -> Grid:
    """A grid that holds all contours (n, 3): their planes as slices, `PIXEL_MM` within them, a margin of two pixels."""
    normal = _normal(contours, where)
    first, step, count = _planes(np.array([float((c @ normal).mean()) for c in contours]), where)
    side = np.eye(3)[0] if abs(normal[0]) < 0.9 else np.eye(3)[1]
    row = side - normal * (side @ normal)
    row /= np.linalg.norm(row)
    axes = np.stack([row, np.cross(normal, row), normal], axis=1)
    flat = np.concatenate(contours) @ axes[:, :2]
    low, high = np.floor(flat.min(axis=0) / PIXEL_MM) - 2, np.ceil(flat.max(axis=0) / PIXEL_MM) + 2
    affine = np.eye(4)
    affine[:3, :3] = axes * [PIXEL_MM, PIXEL_MM, step]
    affine[:3, 3] = axes @ [low[0] * PIXEL_MM, low[1] * PIXEL_MM, first]
    size = (high - low).astype(int) + 1
    return affine, (int(size[0]), int(size[1]), count)


def fill(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (ni, nj) whose centres lie inside an odd number of the polygons, each (n, 2) in pixel coordinates.

    An edge counts for rows between its ends, the lower end included; both directions of an edge give the same crossing to the
    last bit, so that the two banks of a keyhole cancel.
    """
    flips = np.zeros((shape[1], shape[0] + 1), np.int64)
    for polygon in polygons:
        a, b = polygon, np.roll(polygon, -1, axis=0)
        swap = (a[:, 1] > b[:, 1]) | ((a[:, 1] == b[:, 1]) & (a[:, 0] > b[:, 0]))
        low, high = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
        first = np.clip(np.ceil(low[:, 1]), 0, shape[1]).astype(np.int64)
        count = np.clip(np.ceil(high[:, 1]), 0, shape[1]).astype(np.int64) - first
        edge = np.repeat(np.arange(len(polygon)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        slope = (high[edge, 0] - low[edge, 0]) / (high[edge, 1] - low[edge, 1])
        column = np.clip(np.ceil(low[edge, 0] + (row - low[edge, 1]) * slope), 0, shape[0]).astype(np.int64)
        np.add.at(flips, (row, column), 1)
    return np.asarray((np.cumsum(flips, axis=1)[:, :-1] & 1).T, np.bool_)


def _mask(
    contours: Sequence[NDArray[np.float64]], affine: NDArray[np.float64], shape: tuple[int, int, int], name: str, where: str, notes: Notes
) -> NDArray[np.bool_]:
    """Mask (ni, nj, nk) of one structure."""
    by_plane: dict[int, list[NDArray[np.float64]]] = {}
    for points in contours:
        ijk = np.linalg.solve(affine[:3, :3], (points - affine[:3, 3]).T).T
        k = float(ijk[:, 2].mean())
        if abs(k - round(k)) > 0.1 or not 0 <= round(k) < shape[2]:
            raise InputError(
                where, "ContourData", f"a contour of {name} lies between or beyond the slices", "give the images it was drawn on"
            )
        by_plane.setdefault(round(k), []).append(np.asarray(ijk[:, :2], np.float64))
    gaps = max(by_plane) - min(by_plane) + 1 - len(by_plane)
    if gaps:
        notes.suspect("missing_contours", where, name, f"{gaps} slices between its contours have none", "contour every slice")
    mask = np.zeros(shape, bool)
    for k, polygons in by_plane.items():
        mask[:, :, k] = fill(polygons, shape[:2])
    return mask


def image_grid(folder: Path, images: set[str]) -> Grid | None:
    """The grid of the stack in `folder` that holds the named images, None if they are not there."""
    frames = [frame for file in dicom_files(folder) for frame in frames_of(file)] if images else []
    for stack in sort_frames(frames, str(folder), Notes(["several_patients"])) if frames else []:
        if images <= {frame.uid for plane in stack.planes for frame in plane} and len(stack.planes) > 1:
            affine, shape, shifts = grid(stack, folder)
            return None if shifts.any() else (affine, shape)
    return None


def read_rtstruct(path: Path, labels: Mapping[str, int] | None = None, notes: Notes | None = None) -> LabelVolume:
    """Read a structure set on the grid of the images it was drawn on, if they lie beside it, or on one of its own planes (1 mm in them).

    labels: vtwin name -> ROI number, wins over the structures' names. Overlaps as in `twin.io.segments`. Raises InputError;
    Suspicious for structures with gaps, unless `notes` accepts them.
    """
    notes = Notes() if notes is None else notes
    where = str(path)
    with guarded(where), header(DicomFile(path), tags(KEYWORDS)) as (ds, _):
        in_file, contours, images = _contours(ds, where, notes)
    names = names_of(in_file, labels, path, "ROIName")
    wanted = {n: name for n, name in names.items() if name not in ("background", "ignore")}
    used = [c for n in wanted for c in contours[n]]
    if not used:
        raise InputError(where, "ROIName", "no structure is of the heart", "name them in [segmentation.labels]")
    affine, shape = image_grid(path.parent, images) or derived_grid(used, where)
    check_shape(shape, path)
    check_room(len(set(wanted.values())), shape, path)
    masks: dict[str, NDArray[np.bool_]] = {}
    for n, name in wanted.items():
        mask = _mask(contours[n], affine, shape, name, where, notes)
        masks[name] = masks[name] | mask if name in masks else mask
    return combine(masks, affine, path)
