"""Surface bundles (.npz): vertices_mm, faces, and what was known on them (lat_ms, bipolar_mv, class) or beside them (ecg, ecg_leads)."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.eam import check_eam, near_blood
from twin.io.ecg import check_ecg
from twin.io.notes import Notes
from twin.io.source import file_size
from twin.patient import Ecg, ElectroanatomicalMap
from twin.volume import LabelVolume

MAX_BYTES = 500_000_000
NEAR_MM = 2.5
"""How near a blood pool a vertex must be to count as its endocardium: below the thinnest wall, above a voxel's diagonal."""


def read_bundle(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a .npz file. Raises InputError for damage, pickled objects, and sizes no surface has."""
    file_size(path, MAX_BYTES)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES or len(archive.infolist()) > 1000:
                raise InputError(path, "file", "unpacks to more than 500 MB", "give the surface and its values alone")
            for name in archive.namelist():
                if name.endswith(".npy"):
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
        MemoryError,
    ) as error:
        raise InputError(path, "file", f"is not a readable .npz ({str(error)[:80]})", "export or copy it again") from None
    return arrays


def _array(arrays: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...], where: Path) -> NDArray[np.float64]:
    """A numeric array of a given shape (-1: any length)."""
    if name not in arrays:
        raise InputError(where, name, "is not in the file", f"it has {', '.join(sorted(arrays)) or 'nothing'}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(want in (-1, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "fiu" or array.size == 0:
        raise InputError(where, name, f"has shape {array.shape} and type {array.dtype}", f"numbers of shape {shape} are needed (-1: any)")
    return array.astype(np.float64)


def bundle_eam(
    path: Path, surface: str, volume: LabelVolume, notes: Notes, rhythm: str = "sinus", within_mm: float = NEAR_MM
) -> ElectroanatomicalMap:
    """Map from a bundle's lat_ms (and bipolar_mv if there): its vertices on one endocardium of `volume`, whose frame it shares, or all."""
    arrays = read_bundle(path)
    points = _array(arrays, "vertices_mm", (-1, 3), path)
    lat = _array(arrays, "lat_ms", (len(points),), path)
    bipolar = _array(arrays, "bipolar_mv", (len(points),), path) if "bipolar_mv" in arrays else np.full(len(points), np.nan)
    if not np.isfinite(points).all():
        raise InputError(path, "vertices_mm", "is not finite", "remove vertices without position")
    keep = near_blood(volume, points, surface, within_mm) if surface not in ("epi", "all") else np.ones(len(points), bool)
    if not keep.any():
        raise InputError(
            path, "vertices_mm", f"no vertex lies on {surface} of the labels", "give a surface in the frame of the labels (LPS mm)"
        )
    notes.add(f"{path.name}: {int(keep.sum())} of {len(points)} surface points lie on {surface} and are used as the map")
    return check_eam(ElectroanatomicalMap(points[keep], lat[keep], bipolar[keep], surface, rhythm), path, notes)


def bundle_ecg(path: Path, notes: Notes, fs_hz: float | None, normalised: bool, rhythm: str = "sinus") -> Ecg:
    """ECG from a bundle's ecg (leads, n) and ecg_leads; `fs_hz` of the case wins over the rate that the file states."""
    arrays = read_bundle(path)
    names = arrays.get("ecg_leads", np.zeros(0))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(path, "ecg_leads", "is missing or not a list of names", "name the rows of ecg")
    traces = _array(arrays, "ecg", (len(names), -1), path)
    stated = arrays.get("ecg_fs_hz", arrays.get("ecg_fs_hz_as_stated"))
    said = float(stated) if stated is not None and stated.size == 1 and stated.dtype.kind in "fiu" else None
    rate = fs_hz or said
    if rate is None or not 50.0 <= rate <= 20_000.0:
        raise InputError(path, "ecg_fs_hz", f"sampling rate {rate}", "give fs_hz in [ecg] of the case")
    if said is not None and fs_hz is not None and said != fs_hz:
        notes.add(f"{path.name}: the file states {said:g} Hz; {fs_hz:g} Hz from the case is used")
    ecg = Ecg({str(name): np.ascontiguousarray(row) for name, row in zip(names, traces, strict=True)}, rate, rhythm, normalised)
    check_ecg(ecg, path, notes)
    return ecg
