"""Late enhancement and CT as a scanner would show labelled hearts: partial volume, thick slices, noise; the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.atomic import write_bytes
from twin.image import Image
from twin.params import Param
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]

_OWN = "chosen here: arbitrary units; contrasts typical of inversion recovery with nulled remote myocardium, no published set"
SIGNAL = {
    "background": Param(60.0, "1", 0.0, 200.0, _OWN),
    "blood": Param(260.0, "1", 150.0, 400.0, _OWN),
    "healthy": Param(60.0, "1", 20.0, 120.0, _OWN),
    "scar": Param(400.0, "1", 300.0, 600.0, _OWN),
    "mixed": Param(200.0, "1", 120.0, 300.0, _OWN + "; half of scar: a voxel of scar mixed with surviving muscle"),
}
HU = {
    "background": Param(-60.0, "HU", -150.0, 50.0, "fat and lung round the heart; chosen here"),
    "blood": Param(380.0, "HU", 250.0, 500.0, "arterial phase, usual range of cardiac CT; chosen here"),
    "healthy": Param(110.0, "HU", 80.0, 140.0, "enhanced myocardium, usual range of cardiac CT; chosen here"),
}


@dataclass(frozen=True)
class ScanSpec:
    """How an image is taken: in-plane pixel and slice distance in mm, noise SD (units of SIGNAL), and the seed of the noise."""

    pixel_mm: float = 1.4
    slice_mm: float = 8.0
    noise: float = 15.0
    bias: float = 0.1
    seed: int = 1


def signal(volume: LabelVolume, table: dict[str, Param] | None = None) -> NDArray[np.float32]:
    """Ideal intensity of every voxel of a label volume, (ni, nj, nk) float32."""
    values = SIGNAL if table is None else table
    out = np.full(volume.data.shape, values["background"].value, np.float32)
    out[volume.mask("lv_blood", "rv_blood")] = values["blood"].value
    out[volume.mask("lv_myocardium", "rv_myocardium", "myocardium")] = values["healthy"].value
    out[volume.mask("scar")] = values.get("scar", values["healthy"]).value
    out[volume.mask("border_zone", "isthmus")] = values.get("mixed", values["healthy"]).value
    return out


def scan(volume: LabelVolume, frame: Array, spec: ScanSpec = ScanSpec()) -> tuple[Image, LabelVolume]:
    """A stack of slices of a finely labelled heart, and the labels a reader would draw on it (the commonest in each voxel).

    volume: labels finer than the stack; frame (3, 3): columns are the stack's index axes in LPS, orthonormal and right-handed.
    Intensities are means over the voxel's box; noise is Rician (two channels); bias: relative
    change of the coil's sensitivity across the heart.
    """
    occupied = volume.to_mm(np.argwhere(volume.data > 0).astype(np.float64)) @ frame
    spacing = np.array([spec.pixel_mm, spec.pixel_mm, spec.slice_mm])
    low, high = occupied.min(axis=0) - 2.2 * spacing, occupied.max(axis=0) + 2.2 * spacing
    shape = np.ceil((high - low) / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = frame * spacing, frame @ low
    fine = signal(volume)
    clear, votes = np.zeros(tuple(shape)), np.zeros((len(LABELS), *shape), np.uint16)
    parts = [max(1, int(np.ceil(s / v))) for s, v in zip(spacing, [1.0, 1.0, 1.0])]
    to_fine = np.linalg.solve(volume.affine, affine)
    for offset in np.ndindex(*parts):
        shift = (np.array(offset) + 0.5) / parts - 0.5
        at = [
            to_fine[r, 0] * (np.arange(shape[0]) + shift[0])[:, None, None]
            + to_fine[r, 1] * (np.arange(shape[1]) + shift[1])[:, None]
            + to_fine[r, 2] * (np.arange(shape[2]) + shift[2])
            + to_fine[r, 3]
            for r in range(3)
        ]
        clear += ndimage.map_coordinates(fine, at, order=1, mode="nearest")
        drawn = ndimage.map_coordinates(volume.data, at, order=0, mode="constant")
        for value in np.unique(drawn):
            votes[value] += drawn == value
    clear /= np.prod(parts)
    rng = np.random.default_rng(spec.seed)
    x = np.linspace(-0.5, 0.5, shape[0])[:, None, None]
    noisy = clear * (1.0 + spec.bias * x)
    measured = np.hypot(noisy + rng.normal(0.0, spec.noise, noisy.shape), rng.normal(0.0, spec.noise, noisy.shape))
    labels = LabelVolume(np.argmax(votes, axis=0).astype(np.uint8), affine, source="labels drawn on a virtual scan")
    return Image(measured.astype(np.float32), affine, "MR", spec.slice_mm, "virtual late enhancement"), labels


def write_scan(path: Path, image: Image, said: Mapping[str, str] | None = None) -> None:
    """Write intensities as raw float32 NRRD in LPS, atomically, with pairs `said` in its header; equal images give equal bytes."""
    columns = " ".join("(" + ",".join(repr(float(x) + 0.0) for x in image.affine[:3, axis]) + ")" for axis in range(3))
    origin = "(" + ",".join(repr(float(x) + 0.0) for x in image.affine[:3, 3]) + ")"
    sizes = " ".join(str(n) for n in image.data.shape)
    header = f"NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\nspace directions: {columns}\n"
    header += f"kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: {origin}\n"
    header += "".join(f"{key}:={value}\n" for key, value in (said or {}).items()) + "\n"
    write_bytes(path, header.encode() + np.asarray(image.data, "<f4").tobytes(order="F"))
