"""DICOM images: a folder, zip or file to images and cine stacks in patient space.

Frames are found by header alone and their pixels read one by one into the place they belong to, so memory holds one stack.
Gantry tilt and slices shifted in their plane are put on one grid with perpendicular axes; slices that are missing or uneven
are interpolated if the case accepts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.image import CineSlice, CineStack, Image
from twin.io.dicom_files import dicom_files, need_pydicom
from twin.io.dicom_frames import Frame, frames_of
from twin.io.dicom_pixels import pixels, value_type
from twin.io.dicom_stacks import Stack, sort_frames
from twin.io.grid import MAX_IMAGE_BYTES, check_affine
from twin.io.notes import Notes

OFFSET_PIXELS = 0.05
"""Slices whose in-plane offset stays below this share of a pixel are taken as aligned."""

DEFAULT_RR_MS = 1000.0


def scan_dicom(path: Path, notes: Notes | None = None) -> list[Stack]:
    """The stacks in a folder, zip or file, largest first, from the headers alone. Raises InputError if there is none."""
    need_pydicom()
    notes = Notes() if notes is None else notes
    frames: list[Frame] = []
    others = 0
    for file in dicom_files(path):
        found = list(frames_of(file))
        others += not found
        frames += found
        if len(frames) > 100_000:
            raise InputError(path, "folder", "holds more than 100000 frames", "name the folder of one study")
    if not frames:
        held = f"{others} DICOM objects that are no grey-value images" if others else "no DICOM file"
        raise InputError(path, "DICOM", f"holds {held}", "give a folder, zip or file of MR or CT images")
    if others:
        notes.add(f"{path.name}: {others} DICOM objects that are no grey-value images were passed over")
    return sort_frames(frames, str(path), notes)


def _offsets(stack: Stack) -> NDArray[np.float64]:
    """In-plane offset of each plane from the first, (nk, 2) in pixels: along columns' index, along rows' index."""
    first = stack.first
    away = np.array([plane[0].position - first.position for plane in stack.planes])
    out = np.stack([away @ first.along_row / first.pixel_mm[1], away @ first.along_column / first.pixel_mm[0]], axis=1)
    # positions are written with limited digits: an offset of nearly whole pixels is one
    out = np.where(np.abs(out - np.rint(out)) < 0.01, np.rint(out), out)
    return out if np.abs(out).max() > OFFSET_PIXELS else np.zeros_like(out)


def _say_offsets(stack: Stack, offsets: NDArray[np.float64], where: Path, notes: Notes) -> None:
    """Note gantry tilt or shifted slices."""
    depths = stack.depths_mm - stack.depths_mm[0]
    slope = offsets[-1] / depths[-1]
    size = np.array([stack.first.pixel_mm[1], stack.first.pixel_mm[0]])
    if np.abs(offsets - depths[:, None] * slope).max() < 0.1:
        tilt = float(np.degrees(np.arctan(np.linalg.norm(slope * size))))
        notes.add(f"{where.name}: gantry tilt of {tilt:.1f} degrees: slices were shifted in their plane to perpendicular axes")
    else:
        most = float(np.linalg.norm(offsets * size, axis=1).max())
        notes.add(f"{where.name}: slices are offset in their plane by up to {most:.1f} mm: they were shifted to one grid")


def _place(
    values: NDArray[np.float64], shift: NDArray[np.float64], shape: tuple[int, int], fill: float, whole: bool
) -> NDArray[np.float64]:
    """A slice (rows, columns) moved by `shift` (columns, rows) pixels on a grid of `shape` (rows, columns), linear between pixels."""
    if shape == values.shape and not shift.any():
        return values
    move = shift[::-1]
    out: NDArray[np.float64] = ndimage.affine_transform(values, np.ones(2), -move, output_shape=shape, order=1, mode="nearest")
    for axis in range(2):
        source = np.arange(shape[axis]) - move[axis]
        beyond = (source < -0.5) | (source > values.shape[axis] - 0.5)
        out[(beyond, slice(None)) if axis == 0 else (slice(None), beyond)] = fill
    return np.rint(out) if whole else out


def grid(stack: Stack, where: Path) -> tuple[NDArray[np.float64], tuple[int, int, int], NDArray[np.float64]]:
    """Voxel index to LPS mm (4, 4), shape (ni, nj, nk), and how far each plane is to be shifted on that grid (nk, 2) in pixels.

    Raises InputError if its slices do not overlap or the grid is none.
    """
    first, offsets, depths = stack.first, _offsets(stack), stack.depths_mm
    low = np.floor(offsets.min(axis=0) + 1e-6)
    size = np.array([first.storage.columns, first.storage.rows])
    whole = size + np.ceil(offsets.max(axis=0) - low - 1e-6).astype(int)
    if (whole > 2 * size).any():
        raise InputError(where, "ImagePositionPatient", "slices of one stack hardly overlap", "export one stack of slices")
    step, count = stack.step_mm, 1
    if len(depths) > 1:
        count = round(float(depths[-1] - depths[0]) / step) + 1
        step = float(depths[-1] - depths[0]) / (count - 1)
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.pixel_mm[1]
    affine[:3, 1] = first.along_column * first.pixel_mm[0]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = first.position + affine[:3, :2] @ low
    shape = (int(whole[0]), int(whole[1]), count)
    check_affine(affine, shape, where, "ImageOrientationPatient", image=True)
    return affine, shape, offsets - low


def _fill_planes(stack: Stack, arrays: Sequence[NDArray[Any]], shifts: NDArray[np.float64], where: Path, notes: Notes) -> None:
    """Read every frame, file by file, into arrays[k] (nt, rows, columns), and compare doubles with what was kept."""
    home = {id(frame): (k, t) for k, plane in enumerate(stack.planes) for t, frame in enumerate(plane)}
    by_file: dict[str, list[Frame]] = {}
    for frame in (f for plane in stack.planes for f in plane):
        by_file.setdefault(frame.file.where, []).append(frame)
    fill, whole = (-1024.0 if stack.first.modality == "CT" else 0.0), arrays[0].dtype.kind != "f"
    for group in by_file.values():
        group.sort(key=lambda f: f.index)
        for frame, values in zip(group, pixels(group[0].file, group), strict=True):
            k, t = home[id(frame)]
            shape = (arrays[k].shape[1], arrays[k].shape[2])
            arrays[k][t] = _place(values, shifts[k], shape, fill, whole)
    same = sum(_equal(kept, other) for kept, other in stack.doubles)
    if same:
        notes.add(f"{where.name}: {same} slices were there twice, with equal pixels")
    if same < len(stack.doubles):
        problem = f"{len(stack.doubles) - same} slices were measured twice at one place and time, with different pixels"
        remedy = "export one acquisition (the later one is used)"
        notes.suspect("duplicate_slices", where, "ImagePositionPatient", problem, remedy)


def _equal(one: Frame, other: Frame) -> bool:
    a, b = (next(pixels(frame.file, [frame])) for frame in (one, other))
    return bool(np.array_equal(a, b))


def _beat(stack: Stack, k: int, notes: Notes) -> tuple[NDArray[np.float64], float]:
    """Trigger times (nt,) ms and R-R interval of a plane."""
    plane = stack.planes[k]
    rr = next((f.rr_ms for f in plane if f.rr_ms is not None), None)
    known = [f.trigger_ms for f in plane if f.trigger_ms is not None]
    if len(known) < len(plane) or len(set(known)) < len(plane):
        if rr is None:
            notes.add(f"series {plane[0].number}: the length of the beat is not said, {DEFAULT_RR_MS:.0f} ms are assumed")
        rr = rr or DEFAULT_RR_MS
        return np.arange(len(plane)) * rr / len(plane), rr
    times = np.array(known)
    if times.min() < 0 or times.max() > 5000.0:
        raise InputError(plane[0].file.where, "TriggerTime", f"{times.min():.0f} to {times.max():.0f} ms", "export it again")
    if rr is None or times[-1] > 1.05 * rr:
        rr = float(times[-1] + np.median(np.diff(times))) if len(times) > 1 else DEFAULT_RR_MS
        notes.add(f"series {plane[0].number}: the R-R interval is taken from the trigger times ({rr:.0f} ms)")
    return times, max(rr, float(times[-1]) + 1e-6)


def _even(slices: Sequence[Any], depths: NDArray[np.float64], step: float) -> list[Any]:
    """Slices at even steps, linear between the neighbours (arrays, or CineSlices at equal shares of the beat)."""
    count = round((depths[-1] - depths[0]) / step) + 1
    out = []
    for depth in np.linspace(depths[0], depths[-1], count):
        k = int(np.clip(np.searchsorted(depths, depth + 1e-6) - 1, 0, len(depths) - 2))
        weight = float((depth - depths[k]) / (depths[k + 1] - depths[k]))
        near, far = slices[k], slices[k + 1]
        if min(weight, 1 - weight) < 0.01:
            out.append(near if weight < 0.5 else far)
        elif isinstance(near, CineSlice):
            other = np.stack([far.at(phase) for phase in near.phase], axis=-1)
            out.append(CineSlice(((1 - weight) * near.frames + weight * other).astype(near.frames.dtype), near.trigger_ms, near.rr_ms))
        else:
            out.append(((1 - weight) * near + weight * far).astype(near.dtype))
    return out


def load(stack: Stack, where: Path, notes: Notes | None = None) -> Image | CineStack:
    """Read the pixels of one stack. Raises InputError, and Suspicious for doubts that `notes` does not accept."""
    notes = Notes() if notes is None else notes
    if stack.mapping:
        raise InputError(where, "InversionTime", f"series {stack.numbers[0]} is an inversion scout or T1 mapping", "give another series")
    for doubt in stack.doubts:
        notes.suspect(doubt.code, where, doubt.field, doubt.problem, doubt.remedy)
    for note in stack.notes:
        notes.add(f"{where.name}: {note}")
    affine, size, offsets = grid(stack, where)
    if offsets.any():
        _say_offsets(stack, _offsets(stack), where, notes)
    thick, step = stack.first.thickness_mm, float(np.linalg.norm(affine[:3, 2]))
    if thick is not None and step > 1.1 * thick:
        notes.add(f"{where.name}: slices {thick:.3g} mm thick lie {step:.3g} mm apart: {step - thick:.3g} mm between them were not imaged")
    frames = [frame for plane in stack.planes for frame in plane]
    dtype = value_type(frames)
    total = size[0] * size[1] * len(frames) * dtype.itemsize
    if total > MAX_IMAGE_BYTES:
        raise InputError(where, "images", f"one stack takes {total / 1e6:.0f} MB, the limit is {MAX_IMAGE_BYTES / 1e6:.0f}", "crop it")
    # one block for a still volume: its slices are views, and (ni, nj, nk) is a view of it too
    block = np.empty((len(frames), size[1], size[0]), dtype)
    ends = np.cumsum([0, *(len(plane) for plane in stack.planes)])
    arrays = [block[a:b] for a, b in pairwise(ends)]
    _fill_planes(stack, arrays, offsets, where, notes)
    depths = stack.depths_mm
    uneven = any(doubt.code in ("missing_slices", "uneven_slices") for doubt in stack.doubts)
    said = (affine, stack.first.modality, stack.first.thickness_mm, where.name)
    if stack.cine:
        slices = [CineSlice(a.transpose(2, 1, 0), *_beat(stack, k, notes)) for k, a in enumerate(arrays)]
        return CineStack(tuple(_even(slices, depths, step) if uneven else slices), *said)
    data = np.stack(_even(list(block), depths, step)) if uneven else block
    return Image(data.transpose(2, 1, 0), *said)


def imaging(stacks: Sequence[Stack], where: Path, notes: Notes) -> list[Stack]:
    """The stacks that are volumes or cine; inversion scouts and mapping series are passed over, and that is noted."""
    out = [stack for stack in stacks if not stack.mapping]
    if len(out) < len(stacks):
        notes.add(f"{where.name}: {len(stacks) - len(out)} inversion scouts or mapping series were passed over")
    return out


def load_all(stacks: Sequence[Stack], where: Path, notes: Notes) -> tuple[Image | CineStack, ...]:
    """Read several stacks, if they fit in memory together. Raises as `load` does."""
    total = sum(len(plane) * plane[0].storage.rows * plane[0].storage.columns * 4 for stack in stacks for plane in stack.planes)
    if total > 1.5 * MAX_IMAGE_BYTES:
        raise InputError(where, "folder", f"its images take {total / 1e6:.0f} MB together", "name the folder of one series")
    return tuple(load(stack, where, notes) for stack in stacks)


def read_dicom(path: Path, notes: Notes | None = None) -> tuple[Image | CineStack, ...]:
    """Every stack of a study, largest first. Raises InputError; Suspicious for what `notes` does not accept."""
    notes = Notes() if notes is None else notes
    return load_all(imaging(scan_dicom(path, notes), path, notes), path, notes)
